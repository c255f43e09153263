//! What upstream fills into a pod spec.

use skiff_object::Tree;

use super::resources;
use crate::fill::{absent, each, entries, items, number, put, round_resources, text, within};

/// Fills in a pod template: the spec, without what only pods themselves get.
pub(crate) fn template(template: &mut Tree) {
    spec(within(template, "spec"));
}

/// Fills in a pod: the spec and what upstream gives to pods but not to templates.
pub(crate) fn pod(object: &mut Tree) {
    let spec_tree = within(object, "spec");
    spec(spec_tree);
    for list in ["containers", "initContainers"] {
        for container in items(spec_tree, &[list]) {
            each(container, &["resources"], |resources| {
                if let Some(limits) = resources.get("limits").and_then(Tree::as_map).cloned() {
                    entries(resources, "requests", &limits);
                }
            });
        }
    }
    resources::default_pod_level(spec_tree);
    absent(spec_tree, "enableServiceLinks", true);
    if spec_tree.bool_at(&["hostNetwork"]) == Some(true) {
        for list in ["containers", "initContainers"] {
            for container in items(spec_tree, &[list]) {
                for port in items(container, &["ports"]) {
                    if let Some(inside) = port.int_at(&["containerPort"]) {
                        number(port, "hostPort", inside);
                    }
                }
            }
        }
    }
}

/// Fills in a pod spec.
pub(crate) fn spec(spec: &mut Tree) {
    text(spec, "dnsPolicy", "ClusterFirst");
    text(spec, "restartPolicy", "Always");
    absent(spec, "securityContext", Tree::map());
    absent(spec, "terminationGracePeriodSeconds", 30);
    text(spec, "schedulerName", "default-scheduler");
    service_account(spec);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(spec, &[list]) {
            fill_container(container);
        }
    }
    for volume in items(spec, &["volumes"]) {
        fill_volume(volume);
    }
    for path in [&["overhead"][..], &["resources", "limits"], &["resources", "requests"]] {
        round_resources(spec, path);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both always say the same.
fn service_account(spec: &mut Tree) {
    let name = match spec.str_at(&["serviceAccountName"]) {
        "" => spec.str_at(&["serviceAccount"]),
        name => name,
    }
    .to_owned();
    if !name.is_empty() {
        put(spec, "serviceAccountName", name.as_str());
        put(spec, "serviceAccount", name);
    }
}

fn fill_container(container: &mut Tree) {
    let policy = pull_policy(container.str_at(&["image"]));
    text(container, "imagePullPolicy", policy);
    text(container, "terminationMessagePath", "/dev/termination-log");
    text(container, "terminationMessagePolicy", "File");
    for port in items(container, &["ports"]) {
        text(port, "protocol", "TCP");
    }
    for variable in items(container, &["env"]) {
        each(variable, &["valueFrom", "fieldRef"], |field| text(field, "apiVersion", "v1"));
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        each(container, &[probe], fill_probe);
    }
    for hook in ["postStart", "preStop"] {
        each(container, &["lifecycle", hook, "httpGet"], fill_http_get);
    }
    for list in ["limits", "requests"] {
        round_resources(container, &["resources", list]);
    }
}

fn fill_probe(probe: &mut Tree) {
    number(probe, "timeoutSeconds", 1);
    number(probe, "periodSeconds", 10);
    number(probe, "successThreshold", 1);
    number(probe, "failureThreshold", 3);
    each(probe, &["httpGet"], fill_http_get);
    each(probe, &["grpc"], |grpc| absent(grpc, "service", ""));
}

fn fill_http_get(action: &mut Tree) {
    text(action, "path", "/");
    text(action, "scheme", "HTTP");
}

/// `Always` for the tag `latest`, given or implied; `IfNotPresent` for everything else.
pub(super) fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let latest = match name.split_once('@') {
        // With a digest, only a tag that is written out counts.
        Some((name, _)) => name.split_once(':').is_some_and(|(_, tag)| tag == "latest"),
        None => name.split_once(':').is_none_or(|(_, tag)| tag == "latest"),
    };
    // What is no reference at all has no tag either; validation speaks about it.
    if latest && is_reference(image) { "Always" } else { "IfNotPresent" }
}

fn is_reference(image: &str) -> bool {
    let path = image.split_once('/').map_or(image, |(_, rest)| rest);
    !image.is_empty()
        && !image.ends_with(['/', ':', '@'])
        && image.chars().all(|c| c.is_ascii_alphanumeric() || "-._/:@+[]".contains(c))
        && !path.split([':', '@']).next().unwrap_or("").contains(|c: char| c.is_ascii_uppercase())
}

const NAMES_NOT_SOURCES: [&str; 1] = ["name"];

fn fill_volume(volume: &mut Tree) {
    let has_source = volume.as_map().is_some_and(|map| {
        map.iter().any(|(key, value)| !NAMES_NOT_SOURCES.contains(&key.as_str()) && !value.is_null())
    });
    if !has_source {
        put(volume, "emptyDir", Tree::map());
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        each(volume, &[source], |source| absent(source, "defaultMode", 0o644));
    }
    for item in items(volume, &["downwardAPI", "items"]) {
        each(item, &["fieldRef"], |field| text(field, "apiVersion", "v1"));
    }
    for source in items(volume, &["projected", "sources"]) {
        each(source, &["serviceAccountToken"], |token| absent(token, "expirationSeconds", 3_600));
        for item in items(source, &["downwardAPI", "items"]) {
            each(item, &["fieldRef"], |field| text(field, "apiVersion", "v1"));
        }
    }
    each(volume, &["ephemeral", "volumeClaimTemplate"], |claim| volume_claim_spec(within(claim, "spec")));
    each(volume, &["image"], |image| {
        let policy = pull_policy(image.str_at(&["reference"]));
        text(image, "pullPolicy", policy);
    });
    volume_source(volume);
}

/// Fills in the sources that volumes and persistent volumes have in common.
pub(crate) fn volume_source(volume: &mut Tree) {
    each(volume, &["hostPath"], |path| absent(path, "type", ""));
    each(volume, &["iscsi"], |iscsi| text(iscsi, "iscsiInterface", "default"));
    each(volume, &["rbd"], |rbd| {
        text(rbd, "pool", "rbd");
        text(rbd, "user", "admin");
        text(rbd, "keyring", "/etc/ceph/keyring");
    });
    each(volume, &["azureDisk"], |disk| {
        absent(disk, "cachingMode", "ReadWrite");
        absent(disk, "kind", "Shared");
        absent(disk, "fsType", "ext4");
        absent(disk, "readOnly", false);
    });
    each(volume, &["scaleIO"], |scale| {
        text(scale, "storageMode", "ThinProvisioned");
        text(scale, "fsType", "xfs");
    });
}

/// Fills in the spec of a claim.
pub(crate) fn volume_claim_spec(spec: &mut Tree) {
    absent(spec, "volumeMode", "Filesystem");
    for list in ["limits", "requests"] {
        round_resources(spec, &["resources", list]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tag_latest_is_always_pulled() {
        for (image, want) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1.2", "IfNotPresent"),
            ("nginx:1.27", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
            ("Not An Image", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), want, "{image}");
        }
    }
}
