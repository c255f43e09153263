//! The sandbox configuration of a pod: names, DNS, ports, namespaces, cgroup.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::SeccompProfile;
use skiff_runtime::cri;

use crate::config::NodeConfig;
use crate::cri::sandbox_labels;
use crate::pod::PodView;
use crate::resources::{Amounts, KernelLimits, QUOTA_PERIOD_US, Qos, milli, units};

/// The kernel's bound for a host name.
const HOSTNAME_MAX: usize = 63;

/// A resolver configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub(crate) servers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl Resolver {
    /// Reads `resolv.conf`; unknown lines are skipped, as the C library does.
    pub(crate) fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => out.servers.extend(words.next()),
                Some("search") => out.searches = words.filter(|word| word != ".").collect(),
                Some("options") => out.options = words.collect(),
                _ => {}
            }
        }
        out
    }
}

/// The resolver configuration of a pod.
pub(crate) fn resolver(pod: &PodView, config: &NodeConfig, host: &Resolver) -> Resolver {
    let spec = pod.spec();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !pod.host_network());
    let mut out = if policy == "None" {
        Resolver::default()
    } else if cluster && !config.cluster_dns.is_empty() {
        let domain = &config.cluster_domain;
        let mut searches = vec![format!("{}.svc.{domain}", pod.namespace), format!("svc.{domain}"), domain.clone()];
        extend_unique(&mut searches, &host.searches);
        Resolver {
            servers: config.cluster_dns.iter().map(ToString::to_string).collect(),
            searches,
            options: vec!["ndots:5".into()],
        }
    } else {
        host.clone()
    };
    if let Some(own) = &spec.dns_config {
        extend_unique(&mut out.servers, own.nameservers.as_deref().unwrap_or_default());
        extend_unique(&mut out.searches, own.searches.as_deref().unwrap_or_default());
        for option in own.options.iter().flatten() {
            let Some(name) = option.name.as_deref().filter(|name| !name.is_empty()) else { continue };
            out.options.retain(|known| known.split(':').next() != Some(name));
            out.options.push(match option.value.as_deref().filter(|value| !value.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            });
        }
    }
    out
}

fn extend_unique(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// The pod's host name and its fully qualified name (empty without a subdomain).
pub(crate) fn host_names(pod: &PodView, domain: &str) -> (String, String) {
    let spec = pod.spec();
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return (name.to_owned(), String::new());
    }
    let own = spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(&pod.name);
    let host = own.get(..HOSTNAME_MAX).unwrap_or(own).trim_end_matches(['-', '.']).to_owned();
    let full = match spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()) {
        Some(subdomain) => format!("{host}.{subdomain}.{}.svc.{domain}", pod.namespace),
        None => String::new(),
    };
    (host, full)
}

/// The whole configuration for attempt number `attempt`.
pub(crate) fn config(pod: &PodView, config: &NodeConfig, host: &Resolver, attempt: u32) -> cri::PodSandboxConfig {
    let dns = resolver(pod, config, host);
    let (short, full) = host_names(pod, &config.cluster_domain);
    let as_full = pod.spec().set_hostname_as_fqdn.unwrap_or(false) && !full.is_empty();
    let hostname = if pod.host_network() {
        config.name.clone()
    } else if as_full {
        full
    } else {
        short
    };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            attempt,
        }),
        hostname,
        log_directory: config.pod_log_dir(&pod.namespace, &pod.name, &pod.uid).to_string_lossy().into_owned(),
        dns_config: Some(cri::DnsConfig { servers: dns.servers, searches: dns.searches, options: dns.options }),
        port_mappings: if pod.host_network() { Vec::new() } else { ports(pod) },
        labels: sandbox_labels(pod),
        annotations: pod.pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(linux(pod, config)),
        windows: None,
    }
}

fn ports(pod: &PodView) -> Vec<cri::PortMapping> {
    let ports = pod.containers.iter().flat_map(|spec| spec.container.ports.iter().flatten());
    ports
        .map(|port| cri::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp,
                Some("SCTP") => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            } as i32,
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

fn linux(pod: &PodView, config: &NodeConfig) -> cri::LinuxPodSandboxConfig {
    let security = pod.spec().security_context.clone().unwrap_or_default();
    let privileged = pod
        .containers
        .iter()
        .any(|spec| spec.container.security_context.as_ref().and_then(|security| security.privileged).unwrap_or(false));
    let sysctls: HashMap<_, _> =
        security.sysctls.iter().flatten().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect();
    let limits = KernelLimits::of_pod(pod);
    cri::LinuxPodSandboxConfig {
        cgroup_parent: Qos::of(pod).cgroup(&config.cgroup_root, &pod.uid),
        security_context: Some(cri::LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces(pod)),
            run_as_user: security.run_as_user.map(|value| cri::Int64Value { value }),
            run_as_group: security.run_as_group.map(|value| cri::Int64Value { value }),
            supplemental_groups: groups(pod),
            privileged,
            seccomp: Some(seccomp(security.seccomp_profile.as_ref(), privileged)),
            ..cri::LinuxSandboxSecurityContext::default()
        }),
        sysctls,
        overhead: Some(overhead(pod.spec().overhead.as_ref())),
        resources: Some(cri::LinuxContainerResources {
            cpu_period: QUOTA_PERIOD_US,
            cpu_quota: limits.cpu_quota_us,
            cpu_shares: limits.cpu_shares,
            memory_limit_in_bytes: limits.memory_bytes,
            ..cri::LinuxContainerResources::default()
        }),
    }
}

fn overhead(amounts: Option<&Amounts>) -> cri::LinuxContainerResources {
    let get = |name: &str| amounts.and_then(|amounts| amounts.get(name));
    let cpu = get("cpu").and_then(milli).unwrap_or(0);
    cri::LinuxContainerResources {
        cpu_shares: if cpu > 0 { (cpu * 1024 / 1000).max(2) } else { 0 },
        memory_limit_in_bytes: get("memory").and_then(units).unwrap_or(0),
        ..cri::LinuxContainerResources::default()
    }
}

/// The groups every process of the pod gets beside its own.
pub(crate) fn groups(pod: &PodView) -> Vec<i64> {
    let Some(security) = &pod.spec().security_context else { return Vec::new() };
    let mut groups: Vec<i64> =
        security.fs_group.into_iter().chain(security.supplemental_groups.iter().flatten().copied()).collect();
    groups.dedup();
    groups
}

/// Which namespaces the pod shares with the node or within itself.
pub(crate) fn namespaces(pod: &PodView) -> cri::NamespaceOption {
    let spec = pod.spec();
    let mode = |node: Option<bool>, otherwise| if node.unwrap_or(false) { cri::NamespaceMode::Node } else { otherwise };
    let shared = spec.share_process_namespace.unwrap_or(false);
    let pid = if shared { cri::NamespaceMode::Pod } else { cri::NamespaceMode::Container };
    cri::NamespaceOption {
        network: mode(spec.host_network, cri::NamespaceMode::Pod) as i32,
        pid: mode(spec.host_pid, pid) as i32,
        ipc: mode(spec.host_ipc, cri::NamespaceMode::Pod) as i32,
        target_id: String::new(),
        userns_options: None,
    }
}

/// Without a profile a container runs unconfined, as upstream's kubelet has it by default.
pub(crate) fn seccomp(profile: Option<&SeccompProfile>, privileged: bool) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, localhost_ref) = match profile.filter(|_| !privileged) {
        Some(profile) if profile.type_ == "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
        Some(profile) if profile.type_ == "Localhost" => {
            (ProfileType::Localhost, profile.localhost_profile.clone().unwrap_or_default())
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref }
}

/// The pod's `/etc/hosts`.
pub(crate) fn hosts_file(pod: &PodView, domain: &str, ips: &[String], host_file: &str) -> String {
    let mut out = if pod.host_network() {
        format!("# Kubernetes-managed hosts file (host network).\n{host_file}")
    } else {
        let mut out = String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let (short, full) = host_names(pod, domain);
        for ip in ips {
            let full = if full.is_empty() { String::new() } else { format!("{full}\t") };
            out.push_str(&format!("{ip}\t{full}{short}\n"));
        }
        out
    };
    let mut aliases = pod.spec().host_aliases.iter().flatten().peekable();
    if aliases.peek().is_some() {
        out.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        out.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn pod(spec: &str) -> Arc<PodView> {
        let text = format!(r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u"}},"spec":{spec}}}"#);
        PodView::new(Arc::new(serde_json::from_str(&text).unwrap())).unwrap()
    }

    fn check(spec: &str, want: (&[&str], &[&str], &[&str])) {
        let mut node = NodeConfig::new("node", [10, 0, 0, 2].into(), "/d".into(), "/r".into());
        node.cluster_dns = vec![[10, 96, 0, 10].into()];
        let host = Resolver::parse("# c\nnameserver 1.1.1.1\nsearch corp.example\noptions edns0\n");
        let got = resolver(&pod(spec), &node, &host);
        assert_eq!(
            (&got.servers[..], &got.searches[..], &got.options[..]),
            (&owned(want.0)[..], &owned(want.1)[..], &owned(want.2)[..])
        );
    }

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn dns_follows_the_policy() {
        let cluster = ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"];
        check(r#"{"containers":[]}"#, (&["10.96.0.10"], &cluster, &["ndots:5"]));
        check(r#"{"containers":[],"hostNetwork":true}"#, (&["1.1.1.1"], &["corp.example"], &["edns0"]));
        check(r#"{"containers":[],"dnsPolicy":"Default"}"#, (&["1.1.1.1"], &["corp.example"], &["edns0"]));
        check(
            r#"{"containers":[],"dnsPolicy":"None","dnsConfig":{"nameservers":["9.9.9.9"],"searches":["s"],"options":[{"name":"ndots","value":"2"}]}}"#,
            (&["9.9.9.9"], &["s"], &["ndots:2"]),
        );
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let pod = pod(
            r#"{"containers":[],"hostname":"h","subdomain":"s","hostAliases":[{"ip":"1.2.3.4","hostnames":["a","b"]}]}"#,
        );
        let text = hosts_file(&pod, "cluster.local", &["10.244.0.5".into()], "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.244.0.5\th.s.n.svc.cluster.local\th\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
    }
}
