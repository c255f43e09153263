//! The loop that every controller shares: keys from a queue, bounded workers, backoff.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use skiff_base::Tasks;

use crate::{Error, ObjectKey, WorkQueue};

/// What a reconciliation asks for after it has done what it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until the next event.
    Event,
    /// The same key again after this time.
    After(Duration),
    /// The same key again after its backoff, without this being an error.
    Backoff,
}

/// Brings one object to its wanted state.
#[async_trait]
pub trait Reconcile: Send + Sync + 'static {
    /// Reads what is observed for `key`, plans, performs. Called again after an error, with
    /// backoff; never concurrently for the same key.
    ///
    /// # Errors
    /// The request that failed.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error>;
}

/// Starts `workers` workers named `name` that take keys from `queue` once `ready` resolves
/// (normally: the informers have synced).
pub fn run_controller(
    tasks: &Tasks,
    name: &'static str,
    queue: WorkQueue,
    workers: usize,
    reconciler: Arc<dyn Reconcile>,
    ready: impl Future<Output = ()> + Send + 'static,
) {
    queue.show(tasks.metrics(), name);
    let ready = ready.boxed().shared();
    for _ in 0..workers.max(1) {
        let (ready, queue, reconciler) = (ready.clone(), queue.clone(), reconciler.clone());
        tasks.spawn(name, async move {
            ready.await;
            loop {
                let key = queue.next().await;
                work(name, &queue, &*reconciler, &key).await;
            }
        });
    }
}

async fn work(name: &'static str, queue: &WorkQueue, reconciler: &dyn Reconcile, key: &ObjectKey) {
    let outcome = AssertUnwindSafe(reconciler.reconcile(key)).catch_unwind().await;
    match outcome {
        Ok(Ok(next)) => {
            if next != Next::Backoff {
                queue.forget(key);
            }
            match next {
                Next::Event => {}
                Next::After(delay) => queue.add_after(key.clone(), delay),
                Next::Backoff => queue.retry(key.clone()),
            }
        }
        Ok(Err(error)) => {
            // Being overtaken is how optimistic concurrency works, and a namespace that goes away
            // refuses writes: neither is worth a warning.
            if error.is_conflict() || error.is_namespace_terminating() || error.is_already_exists() {
                tracing::debug!(controller = name, %key, %error, "reconciliation will be repeated");
            } else {
                tracing::warn!(controller = name, %key, %error, "reconciliation failed");
            }
            queue.retry(key.clone());
        }
        Err(_) => {
            tracing::error!(controller = name, %key, "reconciliation panicked");
            queue.retry(key.clone());
        }
    }
    queue.done(key);
}
