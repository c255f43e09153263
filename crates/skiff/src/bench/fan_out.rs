//! Events delivered to many watchers at a given rate of changes: how late they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use http::Method;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::api::{Meter, in_namespace, must, open_watch};
use super::{Figure, Setting, percentile};

/// The rate of changes; with a thousand watchers a million events a second.
const CHANGES_PER_SECOND: u64 = 1_000;
/// One watcher in so many looks at its clock for every event: the others only count.
const TIMED_PART: usize = 50;
/// Objects are about as large as a small pod.
const PADDING_BYTES: usize = 600;
/// So long the last events are waited for.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What the watchers have seen.
struct Seen {
    events: AtomicU64,
    lates: Mutex<Vec<Duration>>,
    /// When each change was sent.
    sent: Mutex<Vec<Option<Instant>>>,
}

pub(super) async fn measure(context: &Setting<'_>) -> Result<Vec<Figure>> {
    let watchers = context.options.watchers;
    in_namespace(context, "fan-out", async |namespace| {
        let path = format!("{namespace}/configmaps");
        let seen = Arc::new(Seen {
            events: AtomicU64::new(0),
            lates: Mutex::new(Vec::new()),
            sent: Mutex::new(vec![None; (CHANGES_PER_SECOND * context.options.seconds) as usize]),
        });
        let request = format!("{path}?watch=1&timeoutSeconds=600&resourceVersion=0");
        let open = (0..watchers).map(|_| open_watch(&*context.endpoint, &request));
        let group = context.tasks.group("watchers");
        for (number, body) in futures::future::try_join_all(open).await?.into_iter().enumerate() {
            let clock = context.session.clock.clone();
            let seen = Arc::clone(&seen);
            group.spawn("watcher", follow(body, seen, number % TIMED_PART == 0, clock));
        }
        let meter = Meter::start(context);
        let begun = context.session.clock.instant();
        let total = CHANGES_PER_SECOND * context.options.seconds;
        let pace = Duration::from_secs(1) / CHANGES_PER_SECOND as u32;
        let changes = futures::stream::iter(0..total).map(|number| {
            let (seen, path) = (&seen, &path);
            async move {
                tokio::time::sleep_until(begun + pace * number as u32).await;
                seen.sent.lock()[number as usize] = Some(context.session.clock.instant());
                let object = serde_json::json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": { "name": format!("n{number}") },
                    "data": { "padding": "x".repeat(PADDING_BYTES) },
                });
                must(&*context.endpoint, Method::POST, path, object.to_string().into_bytes()).await
            }
        });
        let changes = changes.buffer_unordered(context.options.clients.max(256));
        let failures = changes.filter_map(|change| async { change.err() });
        if let Some(error) = std::pin::pin!(failures).next().await {
            return Err(error).context("change an object");
        }
        let took = begun.elapsed();
        let events = total * watchers as u64;
        let deadline = context.session.clock.instant() + DRAIN_TIMEOUT;
        while seen.events.load(Ordering::Relaxed) < events && context.session.clock.instant() < deadline {
            context.session.clock.sleep(Duration::from_millis(1)).await;
        }
        let cpu = meter.each(events as f64);
        group.stop().await;
        let mut lates = std::mem::take(&mut *seen.lates.lock());
        Ok(vec![Figure {
            name: format!("API: {CHANGES_PER_SECOND} changes/s to {watchers} watchers, p99"),
            value: percentile(&mut lates, 0.99),
            unit: "ms",
            cost: format!(
                "{cpu}p50 {:.2} ms from sending the change, {} of {events} events, {:.0} changes/s",
                percentile(&mut lates, 0.5),
                seen.events.load(Ordering::Relaxed),
                total as f64 / took.as_secs_f64()
            ),
            durability: "",
        }])
    })
    .await
}

/// Counts lines; one that is timed finds the number of the change in each.
async fn follow(mut body: skiff_client::Body, seen: Arc<Seen>, is_timed: bool, clock: skiff_base::Clock) {
    while let Some(Ok(chunk)) = body.next().await {
        let now = clock.instant();
        let lines = memchr::memchr_iter(b'\n', &chunk).count();
        if is_timed {
            let sent = seen.sent.lock();
            let numbers = memchr::memmem::find_iter(&chunk, b"\"name\":\"n").filter_map(|at| {
                let digits = chunk[at + 9..].split(|byte| !byte.is_ascii_digit()).next()?;
                std::str::from_utf8(digits).ok()?.parse::<usize>().ok()
            });
            let late = numbers.filter_map(|number| Some(now - (*sent.get(number)?)?)).collect::<Vec<_>>();
            drop(sent);
            seen.lates.lock().extend(late);
        }
        seen.events.fetch_add(lines as u64, Ordering::Relaxed);
    }
}
