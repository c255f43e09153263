//! Where events go, and when the request waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, header};
use skiff_base::{Clock, Tasks};
use tokio::sync::mpsc;

use super::event::Event;
use super::log::{Format, Log};
use crate::outbound::{Limits, Outbound, Target};

/// What a webhook answers is not read beyond this.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// One try of a webhook takes at most this long, as upstream's webhook clients have it.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// Tries of a webhook, each after one and a half times the wait of the one before.
const WEBHOOK_TRIES: u32 = 5;
const WEBHOOK_BACKOFF_FACTOR: f64 = 1.5;

/// When the request waits for its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Never: events are collected and written together.
    Batch,
    /// Until it is written; a failure is only counted.
    Blocking,
    /// As `Blocking`, and a request whose first event cannot be written is not served.
    BlockingStrict,
}

/// How events are collected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batching {
    /// Events that wait; what comes beyond is dropped and counted.
    pub buffer: usize,
    /// Events that are written together.
    pub size_max: usize,
    /// How long the first of them waits for more.
    pub wait_max: Duration,
    /// Batches per second and at once; nothing for as many as there are.
    pub throttle: Option<(f64, u32)>,
}

/// Which events are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// An event above this loses its bodies, and is dropped when that is not enough.
    pub event_bytes_max: usize,
    /// A batch above this is sent in parts.
    pub batch_bytes_max: usize,
}

impl Default for Truncation {
    /// Upstream's: 100 KiB and 10 MiB.
    fn default() -> Self {
        Self { event_bytes_max: 100 * 1024, batch_bytes_max: 10 * 1024 * 1024 }
    }
}

/// What writes events.
#[async_trait]
pub(crate) trait Writer: Send + Sync + 'static {
    /// The plugin's name in metrics.
    fn name(&self) -> &'static str;

    /// Writes all of them.
    async fn write(&self, events: &[Arc<Event>]) -> Result<(), String>;
}

/// Writes to the log.
pub(crate) struct LogWriter(pub(crate) Log);

#[async_trait]
impl Writer for LogWriter {
    fn name(&self) -> &'static str {
        "log"
    }

    async fn write(&self, events: &[Arc<Event>]) -> Result<(), String> {
        let mut lines = Vec::new();
        for event in events {
            match self.0.format() {
                Format::Json => lines.extend_from_slice(&event.json()),
                Format::Legacy => lines.extend_from_slice(event.legacy().as_bytes()),
            }
            lines.push(b'\n');
        }
        self.0.append(&lines).map_err(|error| error.to_string())
    }
}

/// Posts `EventList`s.
pub(crate) struct WebhookWriter {
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) target: Target,
    pub(crate) clock: Clock,
    pub(crate) initial_backoff: Duration,
}

impl WebhookWriter {
    fn request(&self, body: Bytes) -> Result<Request<Bytes>, String> {
        Request::post("/")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .body(body)
            .map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Writer for WebhookWriter {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn write(&self, events: &[Arc<Event>]) -> Result<(), String> {
        let mut list = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
        for (at, event) in events.iter().enumerate() {
            if at > 0 {
                list.push(b',');
            }
            list.extend_from_slice(&event.json());
        }
        list.extend_from_slice(b"]}\n");
        let body = Bytes::from(list);
        let limits = Limits { timeout: WEBHOOK_TIMEOUT, answer_bytes_max: ANSWER_BYTES_MAX };
        let (mut wait, mut tries) = (self.initial_backoff, 1);
        loop {
            match self.outbound.fetch(&self.target, self.request(body.clone())?, limits).await {
                Ok(_) => return Ok(()),
                // Events are too precious to give up at the first error, whatever it is.
                Err(_) if tries < WEBHOOK_TRIES => {
                    self.clock.sleep(wait).await;
                    (wait, tries) = (wait.mul_f64(WEBHOOK_BACKOFF_FACTOR), tries + 1);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// Failures, by plugin.
#[derive(Default)]
pub(crate) struct Errors {
    pub(crate) log: AtomicU64,
    pub(crate) webhook: AtomicU64,
    pub(crate) buffered: AtomicU64,
}

impl Errors {
    fn count(&self, plugin: &str, events: usize, why: &str) {
        let counter = match plugin {
            "log" => &self.log,
            "webhook" => &self.webhook,
            _ => &self.buffered,
        };
        counter.fetch_add(events as u64, Ordering::Relaxed);
        tracing::error!(plugin, events, error = why, "audit events were not recorded");
    }
}

/// A writer with the way to it.
pub(crate) struct Backend {
    mode: Mode,
    truncation: Option<Truncation>,
    writer: Arc<dyn Writer>,
    queue: Option<mpsc::Sender<Arc<Event>>>,
    errors: Arc<Errors>,
}

impl Backend {
    pub(crate) fn start(
        writer: Arc<dyn Writer>,
        mode: Mode,
        batching: Batching,
        truncation: Option<Truncation>,
        errors: Arc<Errors>,
        (clock, tasks): (&Clock, &Tasks),
    ) -> Self {
        let queue = (mode == Mode::Batch).then(|| {
            let (sender, receiver) = mpsc::channel(batching.buffer.max(1));
            let batches = Batches { receiver, batching, clock: clock.clone(), tokens: Tokens::new(batching.throttle) };
            let (writer, errors, shutdown) = (Arc::clone(&writer), Arc::clone(&errors), tasks.shutdown().clone());
            tasks.spawn_draining("audit", async move { batches.run(writer, truncation, errors, shutdown).await });
            sender
        });
        Self { mode, truncation, writer, queue, errors }
    }

    /// Takes an event; whether the request may go on.
    pub(crate) async fn process(&self, event: &Arc<Event>) -> bool {
        if let Some(queue) = &self.queue {
            if let Err(error) = queue.try_send(Arc::clone(event)) {
                let why = match error {
                    mpsc::error::TrySendError::Full(_) => "audit buffer queue blocked",
                    mpsc::error::TrySendError::Closed(_) => "audit backend shut down",
                };
                self.errors.count("buffered", 1, why);
            }
            return true;
        }
        let outcome = write(self.writer.as_ref(), self.truncation, std::slice::from_ref(event)).await;
        if let Err(why) = &outcome {
            self.errors.count(self.writer.name(), 1, why);
        }
        outcome.is_ok() || self.mode != Mode::BlockingStrict
    }
}

async fn write(writer: &dyn Writer, truncation: Option<Truncation>, events: &[Arc<Event>]) -> Result<(), String> {
    let Some(truncation) = truncation else { return writer.write(events).await };
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for event in events {
        let Some((event, size)) = truncated(event, truncation.event_bytes_max) else {
            tracing::error!(audit_id = event.audit_id, "an audit event is too large and was dropped");
            continue;
        };
        if bytes + size > truncation.batch_bytes_max && !batch.is_empty() {
            writer.write(&batch).await?;
            (batch, bytes) = (Vec::new(), 0);
        }
        bytes += size;
        batch.push(event);
    }
    if batch.is_empty() { Ok(()) } else { writer.write(&batch).await }
}

fn truncated(event: &Arc<Event>, most: usize) -> Option<(Arc<Event>, usize)> {
    let size = event.json().len();
    if size <= most {
        return Some((Arc::clone(event), size));
    }
    let mut smaller = Event { request_object: None, response_object: None, ..(**event).clone() };
    smaller.annotations.insert("audit.k8s.io/truncated".into(), "true".into());
    let size = smaller.json().len();
    (size <= most).then(|| (Arc::new(smaller), size))
}

/// The task that writes batches.
struct Batches {
    receiver: mpsc::Receiver<Arc<Event>>,
    batching: Batching,
    clock: Clock,
    tokens: Tokens,
}

impl Batches {
    async fn run(
        mut self,
        writer: Arc<dyn Writer>,
        truncation: Option<Truncation>,
        errors: Arc<Errors>,
        shutdown: skiff_base::Shutdown,
    ) {
        loop {
            let first = tokio::select! {
                biased;
                first = self.receiver.recv() => first,
                // What has been taken is written before the server ends.
                () = shutdown.wait() => self.receiver.try_recv().ok(),
            };
            let Some(first) = first else { return };
            let batch = self.collect(first, &shutdown).await;
            let wait = self.tokens.take(self.clock.instant());
            if !wait.is_zero() && !shutdown.is_signalled() {
                self.clock.sleep(wait).await;
            }
            if let Err(why) = write(writer.as_ref(), truncation, &batch).await {
                errors.count(writer.name(), batch.len(), &why);
            }
        }
    }

    async fn collect(&mut self, first: Arc<Event>, shutdown: &skiff_base::Shutdown) -> Vec<Arc<Event>> {
        let mut batch = vec![first];
        let timer = self.clock.sleep(self.batching.wait_max);
        tokio::pin!(timer);
        while batch.len() < self.batching.size_max {
            tokio::select! {
                biased;
                event = self.receiver.recv() => match event {
                    Some(event) => batch.push(event),
                    None => break,
                },
                () = &mut timer => break,
                () = shutdown.wait() => break,
            }
        }
        batch
    }
}

/// A bucket of tokens: so many per second, so many at once.
struct Tokens {
    rate: Option<(f64, f64)>,
    left: f64,
    at: Option<tokio::time::Instant>,
}

impl Tokens {
    fn new(throttle: Option<(f64, u32)>) -> Self {
        let rate = throttle.map(|(qps, burst)| (qps, f64::from(burst)));
        Self { rate, left: rate.map_or(0.0, |(_, burst)| burst), at: None }
    }

    /// Takes a token; how long to wait until it is there.
    fn take(&mut self, now: tokio::time::Instant) -> Duration {
        let Some((qps, burst)) = self.rate else { return Duration::ZERO };
        let since = self.at.map_or(0.0, |at| (now - at).as_secs_f64());
        self.at = Some(now);
        self.left = (self.left + since * qps).min(burst) - 1.0;
        if self.left >= 0.0 || qps <= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.left / qps) }
    }
}
