//! Where the cluster's objects are: the embedded store, or an etcd cluster that other servers may
//! share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use skiff_base::{Clock, Random, Tasks};
use skiff_etcd::{EtcdStore, Facade, Keys, PREFIX, Settings, Tls};
use skiff_store::embedded::{EmbeddedStore, Options};
use skiff_store::{Limits, Store};

use super::extra_config::{self, ExtraConfig};
use super::open_store;
use crate::profile::Profile;

/// What keys begin with inside the servers that share an etcd. It is never stored, but encrypted
/// values are bound to whole keys, so all must have the same.
const SHARED: &str = "etcd";

/// The store of a server.
pub enum Storage {
    /// Files of this machine. Nobody else opens them.
    Embedded(Arc<EmbeddedStore>, PathBuf),
    /// An etcd cluster.
    Etcd(Arc<EtcdStore>),
}

impl Storage {
    /// Opens what the flags say.
    ///
    /// # Errors
    /// When a flag is no good, its file cannot be read, or the store cannot be opened.
    pub async fn open(folder: PathBuf, extra: &ExtraConfig, clock: Clock, random: Random) -> Result<Self> {
        let mut limits = Limits::default();
        if let Some(age) = extra.value("etcd-compaction-interval") {
            limits.history_age = extra_config::positive_duration(age).context("etcd-compaction-interval")?;
        }
        let Some(servers) = extra.value("etcd-servers") else {
            let path = folder.clone();
            let options = Options { limits, ..Options::new(clock, random) };
            let opened = tokio::task::spawn_blocking(move || open_store(&path, options)).await;
            return Ok(Self::Embedded(opened.context("open the store")??, folder));
        };
        let endpoints: Vec<String> = servers.split(',').map(|server| server.trim().to_owned()).collect();
        let keys = Keys::kubernetes(extra.value("etcd-prefix").unwrap_or(PREFIX), SHARED)?;
        let settings = Settings { tls: tls(extra)?, limits, ..Settings::new(endpoints, keys, clock) };
        let store = EtcdStore::open(settings).await.with_context(|| format!("reach etcd at {servers}"))?;
        Ok(Self::Etcd(Arc::new(store)))
    }

    /// The store.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store, _) => store.clone(),
            Self::Etcd(store) => store.clone(),
        }
    }

    /// The cluster's identity in stored keys.
    pub fn cluster<'a>(&self, profile: &'a Profile) -> &'a str {
        if self.is_shared() { SHARED } else { &profile.settings.cluster_id }
    }

    /// Whether other servers may use it too.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Etcd(_))
    }

    /// What was found when it was opened, if it is worth a word.
    pub fn remark(&self) -> Option<String> {
        match self {
            Self::Embedded(store, _) => store.recovery().dropped.as_ref().map(|dropped| {
                format!("dropped {} bytes of a write that was cut off before it was acknowledged", dropped.bytes)
            }),
            Self::Etcd(_) => Some("etcd".to_owned()),
        }
    }

    /// Answers etcd's API on the profile's socket; who has an etcd asks that.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn serve(&self, profile: &Profile, clock: &Clock, tasks: &Tasks) -> Result<()> {
        let Self::Embedded(store, folder) = self else { return Ok(()) };
        let socket = profile.etcd_socket();
        let facade = Facade {
            store: store.clone(),
            keys: Keys::kubernetes(PREFIX, self.cluster(profile))?,
            name: profile.name.clone(),
            folder: Some(folder.clone()),
            clock: clock.clone(),
            tasks: tasks.group("etcd"),
        };
        skiff_etcd::serve(facade, &socket).with_context(|| format!("listen on {}", socket.display()))
    }

    /// Gives it free.
    pub async fn close(&self) {
        match self {
            Self::Embedded(store, _) => store.close().await,
            Self::Etcd(store) => store.close().await,
        }
    }
}

/// The certificates that the flags name.
fn tls(extra: &ExtraConfig) -> Result<Option<Tls>> {
    let read = |flag: &str| extra.value(flag).map(|path| read(flag, Path::new(path))).transpose();
    let Some(authority) = read("etcd-cafile")? else { return Ok(None) };
    let identity = match (read("etcd-certfile")?, read("etcd-keyfile")?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => anyhow::bail!("etcd-certfile and etcd-keyfile belong together"),
    };
    Ok(Some(Tls { authority, identity }))
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{flag}: read {}", path.display()))
}
