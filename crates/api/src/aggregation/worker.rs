//! The task behind the table: woken by APIServices, Services, endpoints and definitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use skiff_base::metrics::Metric;
use skiff_object::json;
use skiff_store::cache::Scope;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::check::{self, Condition};
use super::documents::{self, Documents};
use super::{GROUP, PLURAL, Remote, Service, Table, register};
use crate::errors::ApiResult;
use crate::meta;
use crate::server::ApiServer;

static UNAVAILABLE: Metric = Metric::counter(
    "aggregator_unavailable_apiservice_total",
    "Times that an API that another server serves came out of reach, by reason.",
);

/// A server that is available is asked again so often: nobody says when a process behind an
/// endpoint stops answering.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// The first pause after a failed check; every further one is twice as long, up to [`CHECK_EVERY`].
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// How old discovery and OpenAPI of an available server may be, as upstream's.
const DOCUMENTS_EVERY: Duration = Duration::from_secs(60);
/// Between two attempts after the store failed.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// Conditions of our own groups that are written at the same time.
const LOCAL_WRITES_MAX: usize = 64;

/// What has changed since the worker last looked. Sets: however much changes, each is one entry.
#[derive(Default)]
struct Dirty {
    table: bool,
    definitions: bool,
    /// Namespace and name of Services whose ports or endpoints changed.
    backings: BTreeSet<(String, String)>,
}

#[derive(Default)]
struct Inbox {
    dirty: Mutex<Dirty>,
    wake: Notify,
}

impl Inbox {
    fn put(&self, note: impl FnOnce(&mut Dirty)) {
        note(&mut self.dirty.lock());
        self.wake.notify_one();
    }
}

/// What the worker knows of one remote APIService.
struct Probe {
    uid: String,
    remote: Remote,
    /// When to check next; `None` while a check runs.
    due: Option<Instant>,
    /// Something changed while a check ran.
    again: bool,
    pause: Duration,
    documents_at: Option<Instant>,
}

/// What a check found.
struct Outcome {
    name: String,
    uid: String,
    condition: Condition,
    documents: Option<Documents>,
}

/// Fills the table, and keeps following until the server stops.
///
/// # Errors
/// When the APIServices cannot be read.
pub(crate) async fn start(server: &Arc<ApiServer>) -> ApiResult<()> {
    server.aggregator.reload(server).await?;
    let inbox = Arc::new(Inbox::default());
    inbox.put(|dirty| (dirty.table, dirty.definitions) = (true, true));
    follow(server, &inbox, GROUP, PLURAL, |dirty, _| dirty.table = true);
    let definitions = ("apiextensions.k8s.io", "customresourcedefinitions");
    follow(server, &inbox, definitions.0, definitions.1, |dirty, _| dirty.definitions = true);
    follow(server, &inbox, "", "services", |dirty, object| {
        dirty.backings.insert((meta::namespace(object).to_owned(), meta::name(object).to_owned()));
    });
    follow(server, &inbox, "discovery.k8s.io", "endpointslices", |dirty, object| {
        if let Some(service) = meta::label(object, "kubernetes.io/service-name") {
            dirty.backings.insert((meta::namespace(object).to_owned(), service.to_owned()));
        }
    });
    let worker = Worker {
        server: Arc::clone(server),
        inbox,
        probes: BTreeMap::new(),
        definitions: register::Definitions::default(),
    };
    server.config.tasks.spawn("aggregation", worker.run());
    Ok(())
}

/// Notes every change of a collection.
fn follow(
    server: &Arc<ApiServer>,
    inbox: &Arc<Inbox>,
    group: &'static str,
    plural: &'static str,
    note: fn(&mut Dirty, &skiff_object::Tree),
) {
    let (server, inbox) = (Arc::clone(server), Arc::clone(inbox));
    let tasks = server.config.tasks.clone();
    tasks.spawn("aggregation-follower", async move {
        let collection = server.collection(group, plural);
        loop {
            let followed: Result<(), skiff_store::Error> = async {
                let snapshot = collection.cache().current().await?;
                let scope = Scope::prefix(&collection.prefix());
                let mut changes = collection.cache().watch(scope, snapshot.revision()).await?;
                // What changed before is found by looking at everything.
                inbox.put(|dirty| (dirty.table, dirty.definitions) = (true, true));
                loop {
                    let change = changes.next().await?;
                    // Only remote APIServices care for Services, and most clusters have few or none.
                    if plural != PLURAL && group != "apiextensions.k8s.io" && server.aggregator.is_all_local() {
                        continue;
                    }
                    if let Ok(object) = json::decode_untyped(&change.current.stored.value) {
                        inbox.put(|dirty| note(dirty, &object));
                    }
                }
            }
            .await;
            if let Err(error) = followed {
                tracing::debug!(%error, plural, "following anew");
            }
            server.clock().sleep(STORE_RETRY).await;
        }
    });
}

struct Worker {
    server: Arc<ApiServer>,
    inbox: Arc<Inbox>,
    probes: BTreeMap<String, Probe>,
    definitions: register::Definitions,
}

impl Worker {
    async fn run(mut self) {
        let mut checks = FuturesUnordered::new();
        loop {
            let due = self.probes.values().filter_map(|probe| probe.due).min();
            let now = self.server.clock().instant();
            let pause = due.map_or(CHECK_EVERY, |due| due.saturating_duration_since(now));
            tokio::select! {
                biased;
                () = self.inbox.wake.notified() => {}
                Some(outcome) = checks.next(), if !checks.is_empty() => self.conclude(outcome).await,
                () = self.server.clock().sleep(pause) => {}
            }
            if let Err(error) = self.take_in().await {
                tracing::warn!(%error, "could not look after the APIServices");
                self.server.clock().sleep(STORE_RETRY).await;
                self.inbox.put(|dirty| (dirty.table, dirty.definitions) = (true, true));
            }
            for check in self.due_checks() {
                checks.push(check);
            }
        }
    }

    /// Looks at what has changed.
    async fn take_in(&mut self) -> ApiResult<()> {
        let dirty = std::mem::take(&mut *self.inbox.dirty.lock());
        if dirty.definitions || dirty.table {
            register::custom(&self.server, &mut self.definitions).await?;
        }
        if dirty.table {
            let table = self.server.aggregator.reload(&self.server).await?;
            self.compare(&table);
            say_local(&self.server, &table).await?;
        }
        let now = self.server.clock().instant();
        for probe in self.probes.values_mut() {
            if dirty.backings.contains(&(probe.remote.namespace.clone(), probe.remote.name.clone())) {
                probe.soon(now);
            }
        }
        Ok(())
    }

    /// Probes for exactly the remote APIServices; those that mean another server begin anew.
    fn compare(&mut self, table: &Table) {
        let now = self.server.clock().instant();
        let remote = |name: &str| table.services.get(name).and_then(|service| service.remote.as_ref());
        let gone: Vec<String> = self.probes.keys().filter(|name| remote(name).is_none()).cloned().collect();
        for name in gone {
            self.probes.remove(&name);
            self.server.aggregator.documents.lock().remove(&name);
            self.server.openapi.forget();
        }
        for service in table.remotes.values() {
            let Some(remote) = &service.remote else { continue };
            match self.probes.get_mut(&service.name) {
                Some(probe) if probe.uid == service.uid && probe.remote == *remote => {}
                Some(probe) => {
                    (probe.uid, probe.remote) = (service.uid.clone(), remote.clone());
                    probe.documents_at = None;
                    probe.soon(now);
                }
                None => {
                    let probe = Probe {
                        uid: service.uid.clone(),
                        remote: remote.clone(),
                        due: Some(now),
                        again: false,
                        pause: RETRY_FIRST,
                        documents_at: None,
                    };
                    self.probes.insert(service.name.clone(), probe);
                }
            }
        }
    }

    fn due_checks(&mut self) -> Vec<impl Future<Output = Outcome> + Send + use<>> {
        let now = self.server.clock().instant();
        let table = self.server.aggregator.table();
        let mut started = Vec::new();
        for (name, probe) in &mut self.probes {
            let Some(service) = table.services.get(name) else { continue };
            if probe.due.is_none_or(|due| due > now) {
                continue;
            }
            probe.due = None;
            let stale = probe.documents_at.is_none_or(|at| now.saturating_duration_since(at) >= DOCUMENTS_EVERY);
            started.push(look(Arc::clone(&self.server), Arc::clone(service), stale));
        }
        started
    }

    async fn conclude(&mut self, outcome: Outcome) {
        let now = self.server.clock().instant();
        let Some(probe) = self.probes.get_mut(&outcome.name).filter(|probe| probe.uid == outcome.uid) else { return };
        let available = outcome.condition.is_true();
        let was_available = self.server.aggregator.table().services.get(&outcome.name).is_none_or(|one| one.available);
        if was_available && !available {
            let labels = [("name", outcome.name.as_str()), ("reason", outcome.condition.reason)];
            self.server.metrics().counter(&UNAVAILABLE, &labels).increment();
        }
        if available {
            (probe.pause, probe.due) = (RETRY_FIRST, Some(now + CHECK_EVERY));
        } else {
            probe.due = Some(now + probe.pause);
            probe.pause = (probe.pause * 2).min(CHECK_EVERY);
            probe.documents_at = None;
        }
        if std::mem::take(&mut probe.again) {
            probe.due = Some(now);
        }
        if outcome.documents.is_some() && available {
            probe.documents_at = Some(now);
        }
        self.server.aggregator.learn(&self.server, &outcome.name, available, outcome.documents);
        let written = check::write(&self.server, &outcome.name, &outcome.uid, &outcome.condition).await;
        if let Err(error) = written {
            tracing::warn!(%error, name = outcome.name, "could not write the status of an APIService");
        }
    }
}

impl Probe {
    /// Check as soon as may be; a check that runs may have looked too early.
    fn soon(&mut self, now: Instant) {
        self.pause = RETRY_FIRST;
        match self.due {
            Some(_) => self.due = Some(now),
            None => self.again = true,
        }
    }
}

async fn look(server: Arc<ApiServer>, service: Arc<Service>, documents_stale: bool) -> Outcome {
    let condition = check::check(&server, &service).await;
    let mut documents = None;
    if condition.is_true() && documents_stale {
        let before = server.aggregator.documents(&service.name).map(|known| (*known).clone()).unwrap_or_default();
        documents = Some(documents::fetch(&server, &service, before).await);
    }
    Outcome { name: service.name.clone(), uid: service.uid.clone(), condition, documents }
}

/// Says of everything this server serves itself that it is available.
async fn say_local(server: &Arc<ApiServer>, table: &Table) -> ApiResult<()> {
    let local = Condition::local();
    let mut waiting = Vec::new();
    for service in table.services.values() {
        if service.remote.is_none() && !service.available {
            waiting.push(check::write(server, &service.name, &service.uid, &local));
        }
    }
    let mut writes = futures::stream::iter(waiting).buffer_unordered(LOCAL_WRITES_MAX);
    while let Some(written) = writes.next().await {
        written?;
    }
    Ok(())
}

impl super::Aggregator {
    fn is_all_local(&self) -> bool {
        self.table.load().remotes.is_empty()
    }

    /// Keeps what a server said, or that it says nothing any more.
    fn learn(&self, server: &ApiServer, name: &str, available: bool, said: Option<Documents>) {
        let mut documents = self.documents.lock();
        let before = documents.get(name).cloned().unwrap_or_default();
        let now = match said {
            Some(said) => said,
            None if available => return,
            None => Documents { fresh: false, ..(*before).clone() },
        };
        let changed = now.differs(&before);
        documents.insert(name.to_owned(), Arc::new(now));
        drop(documents);
        if changed {
            server.openapi.forget();
        }
    }
}
