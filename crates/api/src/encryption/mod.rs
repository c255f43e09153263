//! Encryption at rest: what some resources are stored as.
//!
//! [`EncryptedStore`](store::EncryptedStore) stands between the server and any engine, so that
//! everything above it (caches, watches, lists) sees plain values and every engine keeps encrypted
//! ones. The form is upstream's (`k8s:enc:aescbc:v1:key1:…`, with the key that upstream has in etcd as
//! authenticated data).
//! Values are written with the first provider and key, and read with whichever fits; what was not
//! written with the first is written anew when it is updated, even when nothing else changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use skiff_base::metrics::Metric;
use skiff_base::{Clock, Random, Tasks};
use skiff_store::Store;

mod ciphers;
mod config;
mod kms;
mod place;
mod store;

use ciphers::Cipher;
use config::{Configuration, ENCRYPTED, KMS_V2, Pattern, ProviderConfig};
use kms::Kms;

static RELOADS: Metric = Metric::counter(
    "apiserver_encryption_config_controller_automatic_reloads_total",
    "Times that a changed encryption configuration was to be taken over, by what became of it.",
);
static RELOADED: Metric = Metric::gauge(
    "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds",
    "When a changed encryption configuration was last to be taken over, in seconds since 1970.",
);

/// How often a configuration that may change is looked at (upstream's interval).
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// Where the configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file (`--encryption-provider-config`).
    pub file: PathBuf,
    /// Whether it is read again when it changes.
    pub reload: bool,
}

/// The encryption of one server.
pub struct Encryption {
    file: PathBuf,
    rules: ArcSwap<Rules>,
    clock: Clock,
    random: Random,
    tasks: Tasks,
}

struct Rules {
    hash: [u8; 32],
    rules: Vec<(Vec<Pattern>, Arc<Vec<Provider>>)>,
    plugins: Vec<Arc<Kms>>,
    /// The tasks that ask the plugins; stopped when other rules come.
    probes: Tasks,
}

enum Provider {
    Identity,
    Keys { prefix: &'static str, keys: Vec<(String, Cipher)> },
    Kms { prefix: String, kms: Arc<Kms> },
}

/// A value that was read.
struct Opened {
    data: Bytes,
    /// Whether it should be written anew.
    is_stale: bool,
}

impl Encryption {
    /// Reads the configuration and puts it between the caller and `store`. Plugins are asked once
    /// before this returns, so that the first request finds them.
    ///
    /// # Errors
    /// When the file cannot be read or used; the sentence names it.
    pub async fn start(
        settings: &Settings,
        store: Arc<dyn Store>,
        clock: Clock,
        random: Random,
        tasks: Tasks,
    ) -> Result<(Arc<Self>, Arc<dyn Store>), String> {
        let text = read(&settings.file)?;
        let rules = Rules::make(&text, &settings.file, &clock, &random, &tasks)?;
        for plugin in &rules.plugins {
            plugin.probe().await;
        }
        rules.start_probes(&clock);
        let encryption =
            Arc::new(Self { file: settings.file.clone(), rules: ArcSwap::from_pointee(rules), clock, random, tasks });
        if settings.reload {
            let reloading = Arc::clone(&encryption);
            encryption.tasks.spawn("encryption-reload", async move {
                loop {
                    reloading.clock.sleep(RELOAD_INTERVAL).await;
                    if let Err(error) = reloading.reload().await {
                        tracing::error!(error, "the encryption configuration stays as it was");
                    }
                }
            });
        }
        let wrapped = Arc::new(store::EncryptedStore::new(store, Arc::clone(&encryption)));
        Ok((encryption, wrapped))
    }

    /// Reads the configuration again and takes it over when it is another and its plugins answer.
    ///
    /// # Errors
    /// Why what was before stays.
    pub async fn reload(&self) -> Result<(), String> {
        let file = self.file.as_path();
        let text = read(file)?;
        if hash(&text) == self.rules.load().hash {
            return Ok(());
        }
        let outcome = self.take_over(&text, file).await;
        let status = [("status", if outcome.is_ok() { "success" } else { "failure" })];
        let metrics = self.tasks.metrics();
        metrics.counter(&RELOADS, &status).increment();
        metrics.gauge(&RELOADED, &status).set(self.clock.now().as_nanos() as f64 / 1e9);
        outcome
    }

    async fn take_over(&self, text: &[u8], file: &Path) -> Result<(), String> {
        let rules = Rules::make(text, file, &self.clock, &self.random, &self.tasks)?;
        for plugin in &rules.plugins {
            if !plugin.probe().await {
                return Err(plugin.problem().unwrap_or_default());
            }
        }
        rules.start_probes(&self.clock);
        let before = self.rules.swap(Arc::new(rules));
        before.probes.shutdown().signal();
        tracing::info!(file = %file.display(), "the encryption configuration was read anew");
        Ok(())
    }

    /// Asks every plugin for its status now; a plugin with another key gets another seed to wrap.
    pub async fn probe(&self) {
        let rules = self.rules.load_full();
        for plugin in &rules.plugins {
            plugin.probe().await;
        }
    }

    /// Nothing when every plugin can be used, else what is wrong with them.
    ///
    /// # Errors
    /// What the plugins say.
    pub fn check(&self) -> Result<(), String> {
        let problems: Vec<String> = self.rules.load().plugins.iter().filter_map(|plugin| plugin.problem()).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems.join(", ")) }
    }

    /// Whether values under this key may be encrypted.
    fn providers(&self, key: &[u8]) -> Option<Arc<Vec<Provider>>> {
        let (group, resource) = resource(key)?;
        let rules = self.rules.load();
        // The most specific pattern decides: a resource, its group, everything.
        let rank = |pattern: &Pattern| match pattern {
            Pattern::Resource { .. } => 0,
            Pattern::Group(_) => 1,
            Pattern::Everything => 2,
        };
        let matching = rules.rules.iter().filter_map(|(patterns, providers)| {
            let ranks = patterns.iter().filter(|pattern| pattern.matches(group, resource)).map(rank);
            ranks.min().map(|rank| (rank, providers))
        });
        matching.min_by_key(|(rank, _)| *rank).map(|(_, providers)| Arc::clone(providers))
    }

    /// The form in which a value is stored.
    fn seal(&self, key: &[u8], data: Bytes) -> Result<Bytes, String> {
        let Some(providers) = self.providers(key) else { return Ok(data) };
        let with = |prefix: &str, sealed: Vec<u8>| Bytes::from([prefix.as_bytes(), &sealed].concat());
        let place = place::of(key);
        match providers.first() {
            None | Some(Provider::Identity) => Ok(data),
            Some(Provider::Keys { prefix, keys }) => {
                let (name, cipher) = keys.first().ok_or("no key to write with")?;
                let sealed = cipher.seal(&data, &place, &self.random).ok_or("the value cannot be encrypted")?;
                Ok(with(&format!("{prefix}{name}:"), sealed))
            }
            Some(Provider::Kms { prefix, kms }) => Ok(with(prefix, kms.seal(&data, &place)?)),
        }
    }

    /// A stored value as it was before.
    async fn open(&self, key: &[u8], stored: Bytes) -> Result<Opened, String> {
        let Some(providers) = self.providers(key) else { return Ok(Opened { data: stored, is_stale: false }) };
        let mut problem = None;
        let place = place::of(key);
        for (at, provider) in providers.iter().enumerate() {
            match provider.open(&place, &stored).await {
                None => {}
                // Several providers may have the same prefix: the next may have the right key.
                Some(Err(why)) => problem = problem.or(Some(why)),
                Some(Ok(opened)) => return Ok(Opened { is_stale: opened.is_stale || at > 0, ..opened }),
            }
        }
        Err(problem.unwrap_or_else(|| "no matching prefix found".into()))
    }

    /// Whether the value under `key` was not written with what is written with now. `stored` is
    /// the value as the engine has it.
    async fn is_stale(&self, key: &[u8], stored: Bytes) -> bool {
        self.open(key, stored).await.is_ok_and(|opened| opened.is_stale)
    }
}

impl Provider {
    /// `None` when the value is not in this provider's form.
    async fn open(&self, place: &[u8], stored: &Bytes) -> Option<Result<Opened, String>> {
        match self {
            Self::Identity if stored.starts_with(ENCRYPTED) => None,
            Self::Identity => Some(Ok(Opened { data: stored.clone(), is_stale: false })),
            Self::Keys { prefix, keys } => {
                let rest = stored.strip_prefix(prefix.as_bytes())?;
                let mut problem = "no matching key was found for the provided transformer";
                for (at, (name, cipher)) in keys.iter().enumerate() {
                    let Some(sealed) = rest.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b":"))
                    else {
                        continue;
                    };
                    match cipher.open(sealed, place) {
                        Ok(data) => return Some(Ok(Opened { data: data.into(), is_stale: at > 0 })),
                        Err(why) => problem = why,
                    }
                }
                Some(Err(problem.to_owned()))
            }
            Self::Kms { prefix, kms } => {
                let sealed = stored.strip_prefix(prefix.as_bytes())?;
                let opened = kms.open(sealed, place).await;
                Some(opened.map(|(data, is_stale)| Opened { data: data.into(), is_stale }))
            }
        }
    }
}

impl Rules {
    fn make(text: &[u8], file: &Path, clock: &Clock, random: &Random, tasks: &Tasks) -> Result<Self, String> {
        let configuration = Configuration::parse(text)
            .map_err(|error| format!("encryption provider configuration file {}: {error}", file.display()))?;
        let mut plugins: Vec<Arc<Kms>> = Vec::new();
        let mut rules = Vec::new();
        for rule in configuration.rules {
            let mut providers = Vec::new();
            for provider in rule.providers {
                providers.push(match provider {
                    ProviderConfig::Identity => Provider::Identity,
                    ProviderConfig::Keys { prefix, keys } => Provider::Keys { prefix, keys },
                    ProviderConfig::Kms { name, socket, timeout } => {
                        let prefix = format!("{KMS_V2}{name}:");
                        let kms = Arc::new(Kms::new(name, socket, timeout, clock.clone(), random.clone()));
                        plugins.push(Arc::clone(&kms));
                        Provider::Kms { prefix, kms }
                    }
                });
            }
            rules.push((rule.resources, Arc::new(providers)));
        }
        Ok(Self { hash: hash(text), rules, plugins, probes: tasks.group("kms") })
    }

    fn start_probes(&self, clock: &Clock) {
        for plugin in &self.plugins {
            let (plugin, clock) = (Arc::clone(plugin), clock.clone());
            self.probes.spawn("status", async move {
                let mut is_well = plugin.problem().is_none();
                loop {
                    clock.sleep(if is_well { kms::STATUS_INTERVAL } else { kms::STATUS_INTERVAL_FAILED }).await;
                    is_well = plugin.probe().await;
                }
            });
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let failed = |why: &dyn std::fmt::Display| {
        format!("error reading encryption provider configuration file {:?}: {why}", file.display().to_string())
    };
    let text = std::fs::read(file).map_err(|error| failed(&error))?;
    if text.is_empty() { Err(failed(&"it is empty")) } else { Ok(text) }
}

fn hash(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Group and resource of `<cluster>/registry/<group or core>/<plural>/…`.
fn resource(key: &[u8]) -> Option<(&str, &str)> {
    let mut parts = std::str::from_utf8(key).ok()?.split('/');
    let (_, registry, group, plural) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (registry == "registry").then_some((if group == "core" { "" } else { group }, plural))
}
