//! Supervised tasks: named, cancelled together, waited for.

use std::future::Future;
use std::sync::Arc;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::metrics::Metrics;

/// The signal that asks a task to end. Cheap to clone; children end with their parent.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A signal of its own, not yet given.
    pub fn new() -> Self {
        Self::default()
    }

    /// A signal that is given when this one is, and may be given earlier on its own.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Gives the signal. Idempotent.
    pub fn signal(&self) {
        self.0.cancel();
    }

    /// Whether the signal has been given.
    pub fn is_signalled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves once the signal has been given.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }

    /// Runs `future` until it ends or the signal is given; `None` in the second case.
    pub async fn until<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.0.cancelled() => None,
            output = future => Some(output),
        }
    }
}

/// A group of named tasks that start under one [`Shutdown`] and are awaited together.
///
/// A task that panics is logged with its name; it never takes the process down and never
/// disappears silently.
#[derive(Clone, Debug)]
pub struct Tasks {
    name: Arc<str>,
    shutdown: Shutdown,
    /// This group's own, and those of the groups around it, which wait for its tasks too.
    tracker: TaskTracker,
    around: Arc<[TaskTracker]>,
    metrics: Metrics,
}

impl Tasks {
    /// A group called `name` (for logs) that ends with `shutdown`.
    pub fn new(name: &str, shutdown: Shutdown) -> Self {
        let metrics = Metrics::default();
        Self { name: name.into(), shutdown, tracker: TaskTracker::new(), around: Arc::new([]), metrics }
    }

    /// A group below this one: it ends with this one, may be stopped earlier, and this one's
    /// [`Tasks::stop`] waits for it.
    pub fn group(&self, name: &str) -> Self {
        Self {
            name: format!("{}/{name}", self.name).into(),
            shutdown: self.shutdown.child(),
            tracker: TaskTracker::new(),
            around: self.around.iter().chain([&self.tracker]).cloned().collect(),
            metrics: self.metrics.clone(),
        }
    }

    /// What the tasks of this group, of those around it and of those within count.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The signal this group ends with.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Starts `future`; it is dropped at its next await once the group is asked to end.
    pub fn spawn<F>(&self, name: &str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        self.spawn_draining(name, async move {
            shutdown.until(future).await;
        });
    }

    /// Starts `future`, which watches the shutdown signal itself and ends by itself.
    pub fn spawn_draining<F>(&self, name: &str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name: Arc<str> = format!("{}/{name}", self.name).into();
        let tokens: Vec<TaskTrackerToken> = self.around.iter().map(TaskTracker::token).collect();
        #[allow(clippy::disallowed_methods)] // the one place that may
        drop(self.tracker.spawn(async move {
            let _tokens = tokens;
            if let Err(panic) = std::panic::AssertUnwindSafe(future).catch_unwind().await {
                let message = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("a value that is no string");
                tracing::error!(task = %name, panic = message, "task panicked");
            }
        }));
    }

    /// Asks every task of the group to end and waits until all have.
    pub async fn stop(&self) {
        self.shutdown.signal();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_group_within_stops_alone_and_is_waited_for_from_outside() {
        let outer = Tasks::new("outer", Shutdown::new());
        outer.spawn("endless", std::future::pending());
        let inner = outer.group("inner");
        inner.spawn("endless", std::future::pending());
        inner.stop().await;
        assert!(!outer.shutdown().is_signalled());
        let late = outer.group("late");
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let shutdown = late.shutdown().clone();
        late.spawn_draining("drain", async move {
            shutdown.wait().await;
            let _ = sender.send(());
        });
        outer.stop().await;
        receiver.await.expect("the inner group's task ran to its end");
    }

    #[tokio::test]
    async fn stop_waits_for_draining_tasks_and_survives_panics() {
        let tasks = Tasks::new("test", Shutdown::new());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let shutdown = tasks.shutdown().clone();
        tasks.spawn_draining("drain", async move {
            shutdown.wait().await;
            let _ = sender.send(());
        });
        tasks.spawn("panics", async { panic!("boom") });
        tasks.spawn("endless", std::future::pending());
        tasks.stop().await;
        receiver.await.expect("the draining task ran to its end");
    }
}
