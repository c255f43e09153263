//! `/healthz`, `/livez`, `/readyz`: each check by itself or all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Response, StatusCode};
use parking_lot::RwLock;

use crate::body::Body;
use crate::request::options;
use crate::respond;

/// A check: nothing when all is well, else what is not.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks of a server.
#[derive(Default)]
pub struct Health {
    extra: RwLock<Vec<(String, Check)>>,
    bootstrapped: AtomicBool,
}

impl Health {
    /// Adds a check to `/readyz` (and to the other two).
    pub fn add(&self, name: &str, check: Check) {
        self.extra.write().push((name.to_owned(), check));
    }

    /// What every cluster begins with is there.
    pub fn set_bootstrapped(&self) {
        self.bootstrapped.store(true, Ordering::Release);
    }

    fn checks(&self, endpoint: &str, stopping: bool) -> Vec<(String, Result<(), String>)> {
        let mut checks = vec![("ping".to_owned(), Ok(())), ("log".to_owned(), Ok(())), ("etcd".to_owned(), Ok(()))];
        let bootstrapped =
            if self.bootstrapped.load(Ordering::Acquire) { Ok(()) } else { Err("not finished".to_owned()) };
        if endpoint != "livez" {
            checks.push(("poststarthook/rbac/bootstrap-roles".to_owned(), bootstrapped.clone()));
            checks.push(("poststarthook/scheduling/bootstrap-system-priority-classes".to_owned(), bootstrapped));
        }
        for (name, check) in self.extra.read().iter() {
            checks.push((name.clone(), check()));
        }
        if endpoint == "readyz" {
            checks
                .push(("shutdown".to_owned(), if stopping { Err("process is shutting down".into()) } else { Ok(()) }));
        }
        checks
    }

    /// Answers one of the endpoints; `rest` is what follows it in the path.
    pub fn answer(&self, endpoint: &str, rest: &str, query: &str, stopping: bool) -> Option<Response<Body>> {
        let checks = self.checks(endpoint, stopping);
        if !rest.is_empty() {
            let (_, outcome) = checks.into_iter().find(|(name, _)| name == rest)?;
            return Some(match outcome {
                Ok(()) => respond::text(StatusCode::OK, "ok"),
                Err(why) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}")),
            });
        }
        let excluded: Vec<String> =
            options::pairs(query).filter(|(key, _)| key == "exclude").map(|(_, value)| value).collect();
        let verbose = options::pairs(query).any(|(key, _)| key == "verbose");
        let mut report = String::new();
        let mut failed = false;
        for (name, outcome) in checks {
            match outcome {
                _ if excluded.contains(&name) => report.push_str(&format!("[+]{name} excluded: ok\n")),
                Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
                Err(_) => {
                    failed = true;
                    report.push_str(&format!("[-]{name} failed: reason withheld\n"));
                }
            }
        }
        if failed {
            report.push_str(&format!("{endpoint} check failed\n"));
            return Some(respond::text(StatusCode::INTERNAL_SERVER_ERROR, report));
        }
        if verbose {
            report.push_str(&format!("{endpoint} check passed\n"));
            return Some(respond::text(StatusCode::OK, report));
        }
        Some(respond::text(StatusCode::OK, "ok"))
    }
}
