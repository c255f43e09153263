//! Keeps one informer's cache current: list and watch, resume, start over.

use std::sync::Arc;
use std::time::Duration;

use skiff_base::Random;

use crate::informer::Core;
use crate::store::Erased;
use crate::watch::{RawEvent, RawWatch};
use crate::{Client, Error, ListOptions, Result, WatchOptions};

/// Waits between failed attempts, as upstream's reflector: 0.8 s doubling to 30 s, with jitter so
/// that many watchers of a restarted server do not come back together.
const BACKOFF_MIN: Duration = Duration::from_millis(800);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Objects per page of a list.
const PAGE_OBJECTS: u32 = 500;

/// A watch is asked to end after 5 to 10 minutes, so load spreads again after a server restart.
const WATCH_SECS_MIN: u32 = 300;

/// Runs until dropped.
pub(crate) async fn run(core: Arc<Core>, client: Client, random: Random) {
    let _close = CloseOnDrop(core.clone());
    let mut reflector = Reflector { core, client, random, version: None, watch_list: true, failures: 0 };
    loop {
        let outcome = reflector.round().await;
        reflector.settle(outcome).await;
    }
}

struct CloseOnDrop(Arc<Core>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Reflector {
    core: Arc<Core>,
    client: Client,
    random: Random,
    /// The version up to which the cache is complete; `None` when it must be filled anew.
    version: Option<String>,
    /// Whether the server streams the initial state (`sendInitialEvents`).
    watch_list: bool,
    failures: u32,
}

impl Reflector {
    /// One stream from its start to its end. An `Ok` round saw at least a bookmark or an event.
    async fn round(&mut self) -> Result<Progress> {
        match self.version.clone() {
            Some(version) => {
                let watch = self.watch(version, Initial::No).await?;
                self.follow(watch, None).await
            }
            None if self.watch_list => match self.watch(String::new(), Initial::Yes).await {
                Ok(watch) => self.follow(watch, Some(Vec::new())).await,
                Err(error) if error.is_invalid() || error.code() == 400 => {
                    tracing::debug!(resource = %self.core.resource, "server does not stream lists, listing instead");
                    self.watch_list = false;
                    self.list().await
                }
                Err(error) => Err(error),
            },
            None => self.list().await,
        }
    }

    async fn settle(&mut self, outcome: Result<Progress>) {
        match outcome {
            Ok(Progress::Some) => {
                self.failures = 0;
                return;
            }
            Ok(Progress::None) => {}
            Err(error) if error.is_expired() => {
                tracing::debug!(resource = %self.core.resource, %error, "watch expired, filling the cache anew");
                self.version = None;
            }
            // The resource is gone (its definition was deleted) or not yet there.
            Err(error) if error.is_not_found() => {
                tracing::debug!(resource = %self.core.resource, %error, "resource is not served");
                self.version = None;
                if self.core.metadata_only {
                    self.core.replace(Vec::new());
                }
            }
            Err(error) => {
                tracing::warn!(resource = %self.core.resource, %error, "watch failed");
            }
        }
        let delay = self.backoff();
        tokio::time::sleep(delay).await;
    }

    fn backoff(&mut self) -> Duration {
        let delay = BACKOFF_MIN.saturating_mul(1 << self.failures.min(6)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(1.0 + self.random.unit())
    }

    async fn watch(&self, resource_version: String, initial: Initial) -> Result<RawWatch> {
        let options = WatchOptions {
            selection: self.core.selection.clone(),
            resource_version,
            initial_events: matches!(initial, Initial::Yes),
            timeout_secs: WATCH_SECS_MIN + self.random.below(u64::from(WATCH_SECS_MIN)) as u32,
        };
        let (resource, namespace) = (&self.core.resource, &self.core.namespace);
        if self.core.metadata_only {
            self.client.watch_metadata(resource, namespace, &options).await.map(crate::Watch::into_raw)
        } else {
            self.client.watch_raw(resource, namespace, &options).await
        }
    }

    /// Consumes a watch. `initial` collects the initial state until its end is marked.
    async fn follow(&mut self, mut watch: RawWatch, mut initial: Option<Vec<Erased>>) -> Result<Progress> {
        let mut progress = Progress::None;
        while let Some(event) = watch.next().await? {
            tokio::task::coop::consume_budget().await;
            match event {
                RawEvent::Error(status) => {
                    let attempt = format!("watch {}", self.core.resource);
                    return Err(Error::Api { attempt, status });
                }
                RawEvent::Bookmark { resource_version, initial_events_end } => {
                    if initial_events_end && let Some(objects) = initial.take() {
                        self.core.replace(objects);
                    }
                    if initial.is_none() {
                        self.version = Some(resource_version);
                    }
                    self.failures = 0;
                    progress = Progress::Some;
                }
                RawEvent::Added(bytes) | RawEvent::Modified(bytes) => {
                    let Some(object) = self.decode(&bytes) else { continue };
                    match &mut initial {
                        Some(objects) => objects.push(object),
                        None => {
                            self.advance(&object);
                            self.core.put(object);
                            progress = Progress::Some;
                        }
                    }
                }
                RawEvent::Deleted(bytes) => {
                    let Some(object) = self.decode(&bytes) else { continue };
                    self.advance(&object);
                    self.core.remove(&object);
                    progress = Progress::Some;
                }
            }
        }
        Ok(progress)
    }

    async fn list(&mut self) -> Result<Progress> {
        // "0" lets the server answer from its cache; a later page or retry asks for the newest.
        let mut options = ListOptions {
            selection: self.core.selection.clone(),
            limit: PAGE_OBJECTS,
            resource_version: if self.failures == 0 { "0".into() } else { String::new() },
            ..ListOptions::default()
        };
        let mut objects = Vec::new();
        loop {
            let page = if self.core.metadata_only {
                self.client.list_metadata_raw(&self.core.resource, &self.core.namespace, &options).await?
            } else {
                self.client.list_raw(&self.core.resource, &self.core.namespace, &options).await?
            };
            for item in &page.items {
                tokio::task::coop::consume_budget().await;
                objects.extend(self.decode(item));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => {
                    options.continue_token = token;
                    options.resource_version.clear();
                }
                None => {
                    self.core.replace(objects);
                    self.version = page.metadata.resource_version;
                    return Ok(Progress::Some);
                }
            }
        }
    }

    /// An object that does not decode is left out and logged: one bad object must not blind us to
    /// all others.
    fn decode(&self, bytes: &[u8]) -> Option<Erased> {
        match (self.core.codec.decode)(bytes) {
            Ok(object) => Some(object),
            Err(error) => {
                tracing::error!(resource = %self.core.resource, error, "object does not decode");
                None
            }
        }
    }

    fn advance(&mut self, object: &Erased) {
        let version = (self.core.codec.meta)(object).and_then(|meta| meta.resource_version.clone());
        if version.is_some() {
            self.version = version;
        }
    }
}

#[derive(Clone, Copy)]
enum Initial {
    Yes,
    No,
}

#[derive(Clone, Copy)]
enum Progress {
    Some,
    None,
}
