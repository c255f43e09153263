//! The cluster's entry in the user's kubeconfig: merged in, never at another entry's cost.

use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use skiff_object::{Map, Tree, yaml};

use crate::files;
use crate::pki::Identity;

/// What a kubeconfig entry is made of.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Context, cluster and user name: `skiff-NAME`.
    pub name: String,
    /// The server's URL.
    pub server: String,
    /// The certificate authority, PEM.
    pub authority: String,
    /// The client certificate.
    pub identity: Identity,
}

/// Who runs the command, seen through `sudo`: files made for the user belong to the user.
#[derive(Clone, Debug)]
pub struct Invoker {
    uid: u32,
    gid: u32,
    home: PathBuf,
}

impl Invoker {
    /// The user behind `sudo`, else the process's own.
    pub fn current() -> Result<Self> {
        let sudo = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        let own = nix::unistd::getuid().as_raw();
        if own == 0
            && let (Some(uid), Some(gid)) = (sudo("SUDO_UID"), sudo("SUDO_GID"))
            && uid != 0
        {
            let user = nix::unistd::User::from_uid(uid.into())
                .context("look up the user behind sudo")?
                .with_context(|| format!("user {uid} behind sudo does not exist"))?;
            return Ok(Self { uid, gid, home: user.dir });
        }
        let home = std::env::var_os("HOME").context("HOME is not set; set it, or name a file with KUBECONFIG")?;
        Ok(Self { uid: own, gid: nix::unistd::getgid().as_raw(), home: home.into() })
    }

    /// The kubeconfig that `kubectl` would write: the first of `$KUBECONFIG`, else `~/.kube/config`.
    pub fn kubeconfig(&self) -> PathBuf {
        std::env::var_os("KUBECONFIG")
            .and_then(|list| std::env::split_paths(&list).find(|path| !path.as_os_str().is_empty()))
            .unwrap_or_else(|| self.home.join(".kube/config"))
    }

    fn owns(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("give {} to user {}", path.display(), self.uid))
    }
}

/// A whole kubeconfig with this entry alone.
pub fn render(entry: &Entry) -> String {
    let mut config = empty();
    put(&mut config, entry);
    String::from_utf8_lossy(&yaml::encode_untyped(&config)).into_owned()
}

/// Puts `entry` into the kubeconfig at `path` and makes it the current context; gives the context
/// that was current before.
pub fn merge(path: &Path, entry: &Entry, invoker: &Invoker) -> Result<String> {
    let mut before = String::new();
    change(path, invoker, |config| {
        before = config.str_at(&["current-context"]).to_owned();
        put(config, entry);
        Ok(())
    })?;
    Ok(before)
}

/// Takes the entry `name` out of the kubeconfig at `path` and makes `before` current again if
/// `name` was; a file that is not there is fine, and one that has nothing left is removed.
pub fn remove(path: &Path, name: &str, before: &str, invoker: &Invoker) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    change(path, invoker, |config| {
        for list in ["clusters", "users", "contexts"] {
            if let Some(items) = config.get_mut(list).and_then(Tree::as_list_mut) {
                items.retain(|item| item.str_at(&["name"]) != name);
            }
        }
        if config.str_at(&["current-context"]) == name {
            let is_there = config.list_at(&["contexts"]).iter().any(|item| item.str_at(&["name"]) == before);
            config.set(&["current-context"], if is_there { before } else { "" });
        }
        Ok(())
    })
}

fn change(path: &Path, invoker: &Invoker, edit: impl FnOnce(&mut Tree) -> Result<()>) -> Result<()> {
    // A link to a file elsewhere stays a link.
    let is_link = path.is_symlink();
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(folder) = path.parent()
        && !folder.exists()
    {
        files::create_private_dir(folder)?;
        invoker.owns(folder)?;
    }
    let _lock = Lock::take(&path, invoker)?;
    let existing = files::read_optional(&path)?;
    let mut config = match existing.as_deref().map(str::trim) {
        None | Some("") => empty(),
        Some(text) => {
            yaml::decode_untyped(text.as_bytes()).map_err(|error| anyhow::anyhow!("{error}")).with_context(|| {
                format!("{} is no valid kubeconfig and was left as it is; repair it or move it away", path.display())
            })?
        }
    };
    if config.as_map().is_none() {
        bail!(
            "{} is no kubeconfig (its content is no mapping) and was left as it is; repair it or move it away",
            path.display()
        );
    }
    let before = config.clone();
    edit(&mut config)?;
    if existing.is_some() && config == before {
        return Ok(());
    }
    if existing.is_some() && says_nothing(&config) && !is_link {
        return std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()));
    }
    let owner = std::fs::metadata(&path).ok().map(|meta| (meta.uid(), meta.gid()));
    files::write_atomic(&path, &yaml::encode_untyped(&config), 0o600)?;
    match owner {
        Some((uid, gid)) => {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid)).context("restore the kubeconfig's owner")
        }
        None => invoker.owns(&path),
    }
}

fn empty() -> Tree {
    let mut config = Tree::map();
    config.set(&["apiVersion"], "v1");
    config.set(&["kind"], "Config");
    for list in ["clusters", "contexts", "users"] {
        config.set(&[list], Tree::list());
    }
    config
}

/// Whether it is what [`empty`] makes, give or take the current context.
fn says_nothing(config: &Tree) -> bool {
    let mut config = config.clone();
    if config.str_at(&["current-context"]).is_empty() {
        config.ensure_map().remove("current-context");
    }
    config == empty()
}

fn put(config: &mut Tree, entry: &Entry) {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let mut cluster = Tree::map();
    cluster.set(&["cluster", "certificate-authority-data"], encode(&entry.authority));
    cluster.set(&["cluster", "server"], entry.server.as_str());
    let mut user = Tree::map();
    user.set(&["user", "client-certificate-data"], encode(&entry.identity.certificate));
    user.set(&["user", "client-key-data"], encode(&entry.identity.key));
    let mut context = Tree::map();
    context.set(&["context", "cluster"], entry.name.as_str());
    context.set(&["context", "user"], entry.name.as_str());
    for (list, mut item) in [("clusters", cluster), ("users", user), ("contexts", context)] {
        item.set(&["name"], entry.name.as_str());
        put_item(config.ensure_map(), list, item);
    }
    config.set(&["current-context"], entry.name.as_str());
}

fn put_item(config: &mut Map, list: &'static str, mut item: Tree) {
    let slot = config.entry_or(list, Tree::list);
    if slot.as_list().is_none() {
        *slot = Tree::list(); // `clusters: null` is what kubectl writes when the last one goes
    }
    let Some(items) = slot.as_list_mut() else { return };
    match items.iter_mut().find(|old| old.str_at(&["name"]) == item.str_at(&["name"])) {
        Some(old) => {
            // A namespace that the user chose for the context stays.
            if let Some(namespace) = old.at(&["context", "namespace"]) {
                item.set(&["context", "namespace"], namespace.clone());
            }
            *old = item;
        }
        None => items.push(item),
    }
}

/// The lock file that client-go takes as well, so that `kubectl config` and we take turns.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path, invoker: &Invoker) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock) {
            Ok(_) => {
                invoker.owns(&lock)?;
                Ok(Self(lock))
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                bail!("{} is locked by another program; if none is running, remove {}", path.display(), lock.display())
            }
            Err(error) => Err(error).with_context(|| format!("create {}", lock.display())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry(name: &str) -> Entry {
        Entry {
            name: name.into(),
            server: "https://127.0.0.1:6443".into(),
            authority: "CA".into(),
            identity: Identity { certificate: "CERT".into(), key: "KEY".into() },
        }
    }

    fn invoker(home: &Path) -> Invoker {
        Invoker { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw(), home: home.into() }
    }

    const OTHERS: &str = "apiVersion: v1\nkind: Config\npreferences: {}\nclusters:\n- name: prod\n  cluster:\n    server: https://prod\n    insecure-skip-tls-verify: true\nusers:\n- name: me\n  user:\n    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      command: aws\n      args: [\"eks\", \"get-token\"]\ncontexts:\n- name: prod\n  context: {cluster: prod, user: me, namespace: a}\ncurrent-context: prod\n";

    #[test]
    fn merging_and_removing_leaves_other_entries_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".kube/config");
        std::fs::create_dir(folder.path().join(".kube")).unwrap();
        std::fs::write(&path, OTHERS).unwrap();
        let before = yaml::decode_untyped(OTHERS.as_bytes()).unwrap();

        merge(&path, &entry("skiff-a"), &invoker(folder.path())).unwrap();
        merge(&path, &entry("skiff-a"), &invoker(folder.path())).unwrap();
        let merged = yaml::decode_untyped(std::fs::read_to_string(&path).unwrap().as_bytes()).unwrap();
        assert_eq!(merged.str_at(&["current-context"]), "skiff-a");
        assert_eq!(merged.list_at(&["clusters"]).len(), 2);
        for list in ["clusters", "users", "contexts"] {
            assert_eq!(merged.list_at(&[list])[0], before.list_at(&[list])[0], "{list}");
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        remove(&path, "skiff-a", "prod", &invoker(folder.path())).unwrap();
        let after = yaml::decode_untyped(std::fs::read_to_string(&path).unwrap().as_bytes()).unwrap();
        assert_eq!(after, before);
    }

    #[test]
    fn a_file_made_for_the_cluster_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        assert_eq!(merge(&path, &entry("skiff-a"), &invoker(folder.path())).unwrap(), "");
        assert_eq!(merge(&path, &entry("skiff-b"), &invoker(folder.path())).unwrap(), "skiff-a");
        remove(&path, "skiff-a", "", &invoker(folder.path())).unwrap();
        let config = yaml::decode_untyped(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(config.str_at(&["current-context"]), "skiff-b");
        remove(&path, "skiff-b", "skiff-a", &invoker(folder.path())).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        for damaged in ["a: [", "- 1\n", "just text"] {
            std::fs::write(&path, damaged).unwrap();
            assert!(merge(&path, &entry("skiff-a"), &invoker(folder.path())).is_err(), "{damaged}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged);
        }
        assert!(!folder.path().join("config.lock").exists());
    }

    #[test]
    fn a_chosen_namespace_survives_the_next_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/config");
        merge(&path, &entry("skiff-a"), &invoker(folder.path())).unwrap();
        let mut config = yaml::decode_untyped(&std::fs::read(&path).unwrap()).unwrap();
        config.get_mut("contexts").unwrap().as_list_mut().unwrap()[0].set(&["context", "namespace"], "team");
        std::fs::write(&path, yaml::encode_untyped(&config)).unwrap();
        merge(&path, &entry("skiff-a"), &invoker(folder.path())).unwrap();
        let config = yaml::decode_untyped(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(config.list_at(&["contexts"])[0].str_at(&["context", "namespace"]), "team");
    }
}
