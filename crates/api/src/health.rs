//! `/healthz`, `/livez`, `/readyz`: each check by itself or all together, under upstream's names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Response, StatusCode};
use parking_lot::{Mutex, RwLock};
use skiff_store::Store;

use crate::body::Body;
use crate::request::options;
use crate::respond;

/// A check: nothing when all is well, else what is not.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A store that does not answer in this time is not well (upstream's health check timeout).
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// Names of checks that are counted; there are as many as there are checks.
const COUNTED_MAX: usize = 256;

/// What is done once at the start, by upstream's names of it. They stand here for what
/// [`crate::bootstrap::run`] does, and are well when it is done.
const START_HOOKS: [&str; 12] = [
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
];

/// The checks of a server.
#[derive(Default)]
pub struct Health {
    extra: RwLock<Vec<(String, Check)>>,
    bootstrapped: AtomicBool,
    stopping: AtomicBool,
    counts: Mutex<BTreeMap<(&'static str, String), Count>>,
}

/// How a check went so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) is_well: bool,
    pub(crate) successes: u64,
    pub(crate) errors: u64,
}

/// One of the three, and what is asked of it.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// `healthz`, `livez` or `readyz`.
    pub endpoint: &'static str,
    /// The name of one check, or nothing.
    pub check: &'a str,
    /// The query.
    pub query: &'a str,
}

impl<'a> Question<'a> {
    /// Reads a path; nothing when it is none of the three.
    pub fn parse(path: &'a str, query: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let (name, check) = path.split_once('/').unwrap_or((path, ""));
        let endpoint = ["healthz", "livez", "readyz"].into_iter().find(|endpoint| *endpoint == name)?;
        Some(Self { endpoint, check: check.trim_end_matches('/'), query })
    }
}

impl Health {
    /// Adds a check to all three.
    pub fn add(&self, name: &str, check: Check) {
        self.extra.write().push((name.to_owned(), check));
    }

    /// What every cluster begins with is there.
    pub fn set_bootstrapped(&self) {
        self.bootstrapped.store(true, Ordering::Release);
    }

    /// The server is going to end: it is not ready any more.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether the server is going to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    async fn checks(&self, question: Question<'_>, store: &dyn Store) -> Vec<(String, Result<(), String>)> {
        let mut checks = vec![("ping".to_owned(), Ok(())), ("log".to_owned(), Ok(()))];
        // The store is asked only by who wants to know.
        let wants = |name: &str| question.check.is_empty() || question.check == name;
        if wants("etcd") || wants("etcd-readiness") {
            let store = match tokio::time::timeout(STORE_TIMEOUT, store.check()).await {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err("etcd failed: context deadline exceeded".to_owned()),
            };
            checks.push(("etcd".to_owned(), store.clone()));
            if question.endpoint == "readyz" {
                checks.push(("etcd-readiness".to_owned(), store));
            }
        }
        let started = if self.bootstrapped.load(Ordering::Acquire) { Ok(()) } else { Err("not finished".to_owned()) };
        if question.endpoint == "readyz" {
            checks.push(("informer-sync".to_owned(), started.clone()));
        }
        checks.extend(START_HOOKS.map(|name| (name.to_owned(), started.clone())));
        for (name, check) in self.extra.read().iter() {
            checks.push((name.clone(), check()));
        }
        if question.endpoint == "readyz" {
            let stopping = if self.is_stopping() { Err("process is shutting down".into()) } else { Ok(()) };
            checks.push(("shutdown".to_owned(), stopping));
        }
        checks
    }

    /// Answers one of the three; nothing for a check that does not exist.
    pub async fn answer(&self, question: Question<'_>, store: &dyn Store) -> Option<Response<Body>> {
        let checks = self.checks(question, store).await;
        if !question.check.is_empty() {
            let (_, outcome) = checks.into_iter().find(|(name, _)| name == question.check)?;
            return Some(match outcome {
                Ok(()) => respond::text(StatusCode::OK, "ok"),
                Err(why) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
            });
        }
        self.count(question.endpoint, &checks);
        Some(report(question, &checks))
    }

    fn count(&self, endpoint: &'static str, checks: &[(String, Result<(), String>)]) {
        let mut counts = self.counts.lock();
        for (name, outcome) in checks {
            if counts.len() >= COUNTED_MAX && !counts.contains_key(&(endpoint, name.clone())) {
                continue;
            }
            let count = counts.entry((endpoint, name.clone())).or_default();
            count.is_well = outcome.is_ok();
            *(if outcome.is_ok() { &mut count.successes } else { &mut count.errors }) += 1;
        }
    }

    /// How the checks went so far, for `/metrics/slis`.
    pub(crate) fn counts(&self) -> BTreeMap<(&'static str, String), Count> {
        self.counts.lock().clone()
    }
}

fn report(question: Question<'_>, checks: &[(String, Result<(), String>)]) -> Response<Body> {
    let endpoint = question.endpoint;
    let excluded: Vec<String> = options::pairs(question.query)
        .filter(|(key, _)| key == "exclude")
        .flat_map(|(_, value)| value.split(',').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let is_verbose = options::pairs(question.query).any(|(key, _)| key == "verbose");
    let mut text = String::new();
    let mut failed = Vec::new();
    for (name, outcome) in checks {
        match outcome {
            _ if excluded.contains(name) => text.push_str(&format!("[+]{name} excluded: ok\n")),
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            Err(_) => {
                failed.push(name.as_str());
                // Why is in the log: nobody needs to be authenticated to ask.
                text.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !checks.iter().any(|(check, _)| check == *name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(",")));
    }
    if !failed.is_empty() {
        tracing::warn!(endpoint, failed = failed.join(","), "health check failed");
        text.push_str(&format!("{endpoint} check failed\n"));
        return respond::text(StatusCode::INTERNAL_SERVER_ERROR, text);
    }
    if is_verbose {
        text.push_str(&format!("{endpoint} check passed\n"));
        return respond::text(StatusCode::OK, text);
    }
    respond::text(StatusCode::OK, "ok")
}
