//! A profile: one cluster of this machine, by name, with its folders, addresses and ports.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use skiff_base::Random;

use crate::files;

/// The longest profile name: it becomes part of node names and unix socket paths.
const NAME_LENGTH_MAX: usize = 40;

/// Where everything of all profiles lies.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Data that survives a reboot: `/var/lib/skiff`.
    pub data: PathBuf,
    /// State of the running system: `/run/skiff`.
    pub run: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { data: "/var/lib/skiff".into(), run: "/run/skiff".into() }
    }
}

/// What is fixed when a cluster is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Identifies the cluster in storage keys, link names and kernel tables: six hex digits.
    pub cluster_id: String,
    /// The number of this cluster on this machine: its machine network is `10.89.<index>.0/24`.
    pub index: u8,
    /// The port of the API server.
    pub api_port: u16,
    /// How many nodes were asked for.
    pub nodes: u8,
    /// Flags of components, as `up --extra-config` last took them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_config: Vec<String>,
}

/// A kubeconfig into which a cluster was put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Before {
    /// The file.
    pub file: PathBuf,
    /// The context that was current in it.
    pub context: String,
}

/// One cluster of this machine.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What was fixed when it was made.
    pub settings: Settings,
    data: PathBuf,
    run: PathBuf,
}

/// Services get their addresses here, in every cluster: they mean something only inside it.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The address of the `kubernetes` Service.
pub const KUBERNETES_SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The address of the `kube-dns` Service.
pub const DNS_SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The DNS domain of every cluster.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

const SETTINGS_FILE: &str = "profile.json";
const BEFORE_FILE: &str = "kubeconfig-before.json";

impl Profile {
    /// The existing profile `name`.
    pub fn open(roots: &Roots, name: &str) -> Result<Option<Self>> {
        check_name(name)?;
        let data = roots.data.join(name);
        let Some(text) = files::read_optional(&data.join(SETTINGS_FILE))? else { return Ok(None) };
        let settings = serde_json::from_str(&text).with_context(|| {
            format!("{} is damaged; restore it, or run: skiff delete -p {name}", data.join(SETTINGS_FILE).display())
        })?;
        Ok(Some(Self { name: name.to_owned(), settings, data, run: roots.run.join(name) }))
    }

    /// The profile `name`, made when there is none.
    pub fn open_or_create(roots: &Roots, name: &str, api_port: Option<u16>, random: &Random) -> Result<Self> {
        if let Some(profile) = Self::open(roots, name)? {
            return Ok(profile);
        }
        files::create_private_dir(&roots.data)?;
        // Two `skiff up` at once must not take the same index. The folder itself is locked: a file
        // would stay behind when the last profile is deleted.
        let lock = std::fs::File::open(&roots.data).with_context(|| format!("open {}", roots.data.display()))?;
        lock.lock().with_context(|| format!("lock {}", roots.data.display()))?;
        let others = Self::all(roots)?;
        let index = (0..=254_u8)
            .find(|index| others.iter().all(|other| other.settings.index != *index))
            .context("255 clusters exist on this machine; delete one with: skiff delete -p NAME")?;
        let api_port = match api_port {
            Some(port) => port,
            None => free_port(&others)?,
        };
        let settings = Settings {
            cluster_id: format!("{:06x}", random.next_u64() & 0x00ff_ffff),
            index,
            api_port,
            nodes: 1,
            extra_config: Vec::new(),
        };
        let data = roots.data.join(name);
        files::create_private_dir(&data)?;
        let profile = Self { name: name.to_owned(), settings, data, run: roots.run.join(name) };
        profile.save()?;
        Ok(profile)
    }

    /// Keeps these flags of components for this start and all that follow.
    pub fn set_extra_config(&mut self, extra_config: Vec<String>) -> Result<()> {
        self.settings.extra_config = extra_config;
        self.save()
    }

    fn save(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.settings).context("encode the profile")?;
        files::write_atomic(&self.data.join(SETTINGS_FILE), &text, 0o600)
    }

    /// All profiles of this machine, by name.
    pub fn all(roots: &Roots) -> Result<Vec<Self>> {
        let mut names = Vec::new();
        match std::fs::read_dir(&roots.data) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.with_context(|| format!("read {}", roots.data.display()))?;
                    if let Ok(name) = entry.file_name().into_string()
                        && check_name(&name).is_ok()
                    {
                        names.push(name);
                    }
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", roots.data.display())),
        }
        names.sort();
        let mut profiles = Vec::new();
        for name in names {
            profiles.extend(Self::open(roots, &name)?);
        }
        Ok(profiles)
    }

    /// The folder of everything that survives a reboot.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The folder of the running system's state.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The folder of the cluster's keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }

    /// The folder of the component logs.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// The socket on which a running server takes commands.
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// Where the store answers as etcd.
    pub fn etcd_socket(&self) -> PathBuf {
        self.run().join("etcd.sock")
    }

    /// The CRI socket of the node, for `crictl`.
    pub fn cri_socket(&self) -> PathBuf {
        self.run.join("cri.sock")
    }

    /// Held locked by the running server; contains its process id.
    pub fn pid_file(&self) -> PathBuf {
        self.run.join("server.pid")
    }

    /// The kubeconfig context.
    pub fn context(&self) -> String {
        format!("skiff-{}", self.name)
    }

    /// What was current in the user's kubeconfig before this cluster was; `None` when the cluster
    /// was never put into one.
    pub fn before(&self) -> Result<Option<Before>> {
        let path = self.data.join(BEFORE_FILE);
        let Some(text) = files::read_optional(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Remembers `before`.
    pub fn set_before(&self, before: &Before) -> Result<()> {
        let text = serde_json::to_vec_pretty(before).context("encode the kubeconfig's state")?;
        files::write_atomic(&self.data.join(BEFORE_FILE), &text, 0o600)
    }

    /// The name of the first node.
    pub fn node_name(&self) -> String {
        if self.name == "default" { "skiff".to_owned() } else { self.name.clone() }
    }

    /// The host's address on the machine network, where pods reach the API server.
    pub fn host_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 89, self.settings.index, 1)
    }

    /// The first node's address.
    pub fn node_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 89, self.settings.index, 2)
    }

    /// The addresses of the first node's pods.
    pub fn pod_cidr(&self) -> String {
        "10.244.0.0/24".to_owned()
    }

    /// Where `kubectl` on this machine finds the API server.
    pub fn server_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.settings.api_port)
    }
}

/// Whether `name` can be a profile name: a DNS label, since node names are made of it.
pub fn check_name(name: &str) -> Result<()> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = !name.is_empty()
        && name.len() <= NAME_LENGTH_MAX
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !good {
        bail!(
            "the profile name {name:?} is invalid: use 1 to {NAME_LENGTH_MAX} lower-case letters, digits and dashes, \
             with a letter or digit at both ends"
        );
    }
    Ok(())
}

/// 6443 when it is free, else whatever port is, never one that another profile has.
fn free_port(others: &[Profile]) -> Result<u16> {
    let taken = |port: u16| others.iter().any(|other| other.settings.api_port == port);
    for wanted in (6443..6543).chain(std::iter::once(0)) {
        if wanted != 0 && taken(wanted) {
            continue;
        }
        if let Ok(listener) = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)) {
            return Ok(listener.local_addr().context("read the port")?.port());
        }
    }
    bail!("no free TCP port on 127.0.0.1; name one with --api-port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["default", "a", "eks-1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "..", &"x".repeat(41)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn profiles_get_their_own_index_and_port_and_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { data: folder.path().join("data"), run: folder.path().join("run") };
        let random = Random::seeded(1);
        let one = Profile::open_or_create(&roots, "one", None, &random).unwrap();
        let two = Profile::open_or_create(&roots, "two", None, &random).unwrap();
        assert_ne!(one.settings.index, two.settings.index);
        assert_ne!(one.settings.api_port, two.settings.api_port);
        assert_eq!(Profile::open_or_create(&roots, "one", None, &random).unwrap().settings, one.settings);
        assert_eq!(Profile::all(&roots).unwrap().len(), 2);
        assert!(Profile::open(&roots, "three").unwrap().is_none());
    }
}
