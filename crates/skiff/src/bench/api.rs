//! The API over TLS, as every client sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use skiff_client::Endpoint;

use super::{Figure, Group, Setting, percentile};

const JSON: &str = "application/json";
/// How many objects the LIST reads.
const LIST_OBJECTS: usize = 10_000;
/// So many changes may be on their way to the slowest watcher: enough that nobody waits for a
/// writer, few enough that no watcher is cut for being late.
const CHANGES_UNDER_WAY: u64 = 256;
/// Objects are about as large as a small pod.
const PADDING_BYTES: usize = 600;

/// Sends one request; gives the code and the whole body.
pub(super) async fn send(endpoint: &dyn Endpoint, method: Method, path: &str, body: Vec<u8>) -> Result<(u16, Bytes)> {
    let request = Request::builder()
        .method(method.clone())
        .uri(path)
        .header(http::header::ACCEPT, JSON)
        .header(http::header::CONTENT_TYPE, JSON)
        .body(Bytes::from(body))
        .context("make the request")?;
    let response = endpoint.send(request).await.with_context(|| format!("{method} {path}"))?;
    let status = response.status().as_u16();
    let mut chunks = response.into_body();
    let mut whole = Vec::new();
    while let Some(chunk) = chunks.next().await {
        whole.extend_from_slice(&chunk.with_context(|| format!("{method} {path}"))?);
    }
    Ok((status, whole.into()))
}

/// As [`send`], for requests that must succeed.
pub(super) async fn must(endpoint: &dyn Endpoint, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes> {
    let (status, body) = send(endpoint, method.clone(), path, body).await?;
    if status >= 300 {
        bail!("{method} {path} answered {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

/// A namespace of its own, removed afterwards; `work` gets its path.
pub(super) async fn in_namespace<T>(
    context: &Setting<'_>,
    name: &str,
    work: impl AsyncFnOnce(String) -> Result<T>,
) -> Result<T> {
    let namespace = format!("bench-{name}-{}", std::process::id());
    let object = serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
    must(&*context.endpoint, Method::POST, "/api/v1/namespaces", object.to_string().into_bytes()).await?;
    let outcome = work(format!("/api/v1/namespaces/{namespace}")).await;
    must(&*context.endpoint, Method::DELETE, &format!("/api/v1/namespaces/{namespace}"), Vec::new()).await?;
    outcome
}

fn config_map(name: &str) -> Vec<u8> {
    let padding = "x".repeat(PADDING_BYTES);
    serde_json::json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": { "app": "bench" } }, "data": { "padding": padding } })
        .to_string()
        .into_bytes()
}

/// Processor time while something is measured.
pub(super) struct Meter<'a> {
    server: Option<(&'a Group, Duration)>,
    client: Duration,
}

impl<'a> Meter<'a> {
    pub(super) fn start(context: &'a Setting<'_>) -> Self {
        let server = context.server.as_ref().map(|server| (server, server.cpu()));
        Self { server, client: Group::own().cpu() }
    }

    /// Microseconds of each side for each of `count` pieces of work.
    pub(super) fn each(&self, count: f64) -> String {
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / count;
        let client = each(Group::own().cpu().saturating_sub(self.client));
        match self.server {
            Some((server, before)) => {
                let server = each(server.cpu().saturating_sub(before));
                format!("CPU each: server {server:.1} µs, client {client:.1} µs, ")
            }
            None => format!("CPU each: client {client:.1} µs, "),
        }
    }
}

/// What a [`closed_loop`] measured.
pub(super) struct Measured {
    pub(super) latencies: Vec<Duration>,
    elapsed: Duration,
    cpu: String,
}

/// Runs `work(client, round)` from many clients until the time is over.
pub(super) async fn closed_loop(
    context: &Setting<'_>,
    work: impl AsyncFn(usize, usize) -> Result<()>,
) -> Result<Measured> {
    let clock = &context.session.clock;
    let meter = Meter::start(context);
    let began = clock.instant();
    let deadline = began + Duration::from_secs(context.options.seconds);
    let work = &work;
    let clients = (0..context.options.clients).map(|client| async move {
        let mut latencies = Vec::new();
        while clock.instant() < deadline {
            let sent = clock.instant();
            work(client, latencies.len()).await?;
            latencies.push(sent.elapsed());
        }
        Ok::<_, anyhow::Error>(latencies)
    });
    let latencies: Vec<_> = futures::future::try_join_all(clients).await?.into_iter().flatten().collect();
    let elapsed = began.elapsed();
    let cpu = meter.each(latencies.len() as f64);
    Ok(Measured { latencies, elapsed, cpu })
}

pub(super) fn figure(name: String, unit: &'static str, durability: &'static str, measured: Measured) -> Figure {
    let Measured { mut latencies, elapsed, cpu } = measured;
    let count = latencies.len() as f64;
    let latency =
        format!("p50 {:.2} ms, p99 {:.2} ms", percentile(&mut latencies, 0.5), percentile(&mut latencies, 0.99));
    Figure { name, value: count / elapsed.as_secs_f64(), unit, cost: cpu + &latency, durability }
}

/// LIST of many objects: the first byte, the whole, and a selector that matches nothing.
pub(super) async fn list(context: &Setting<'_>) -> Result<Vec<Figure>> {
    let endpoint = Arc::clone(&context.endpoint);
    let clock = &context.session.clock;
    in_namespace(context, "list", async |path| {
        let path = format!("{path}/configmaps");
        let names: Vec<String> = (0..LIST_OBJECTS).map(|index| format!("c{index}")).collect();
        let path = path.as_str();
        let creates = futures::stream::iter(&names)
            .map(|name| must(&*endpoint, Method::POST, path, config_map(name)))
            .buffer_unordered(context.options.clients);
        creates.for_each(|created| async { drop(created) }).await;
        let mut figures = Vec::new();
        for (name, query) in [("whole", ""), ("no match", "?labelSelector=app%3Dnone")] {
            let (mut latencies, mut bytes) = (Vec::new(), 0);
            let before = context.server.as_ref().map(super::Group::cpu);
            for _ in 0..20 {
                let sent = clock.instant();
                bytes = must(&*endpoint, Method::GET, &format!("{path}{query}"), Vec::new()).await?.len();
                latencies.push(sent.elapsed());
            }
            let cpu = context.server.as_ref().zip(before).map(|(server, before)| server.cpu().saturating_sub(before));
            let cpu = cpu
                .map_or_else(String::new, |cpu| format!("{:.2} ms server CPU each, ", cpu.as_secs_f64() * 1e3 / 20.0));
            figures.push(Figure {
                name: format!("API: LIST over {LIST_OBJECTS} objects, {name}"),
                value: percentile(&mut latencies, 0.5),
                unit: "ms",
                cost: format!("{cpu}{:.2} MB, p99 {:.2} ms", bytes as f64 / 1e6, percentile(&mut latencies, 0.99)),
                durability: "",
            });
        }
        Ok(figures)
    })
    .await
}

/// Events delivered to many watchers while objects change.
pub(super) async fn watch(context: &Setting<'_>) -> Result<Vec<Figure>> {
    let endpoint = Arc::clone(&context.endpoint);
    let watchers = context.options.watchers;
    in_namespace(context, "watch", async |path| {
        let path = format!("{path}/configmaps");
        let delivered = Arc::new(AtomicU64::new(0));
        let bytes = Arc::new(AtomicU64::new(0));
        let request = format!("{path}?watch=1&timeoutSeconds=600&resourceVersion=0");
        let group = context.tasks.group("watchers");
        let open = (0..watchers).map(|_| open_watch(&*endpoint, &request));
        for body in futures::future::try_join_all(open).await? {
            group.spawn("watcher", count_events(body, Arc::clone(&delivered), Arc::clone(&bytes)));
        }
        must(&*endpoint, Method::POST, &path, config_map("first")).await?;
        wait_for(context, &delivered, watchers as u64).await?;
        let start = delivered.load(Ordering::Relaxed);
        let meter = Meter::start(context);
        let began = context.session.clock.instant();
        let deadline = began + Duration::from_secs(context.options.seconds);
        let (clock, endpoint, path) = (&context.session.clock, &endpoint, path.as_str());
        let (begun, arrived) = (&AtomicU64::new(0), &delivered);
        let writers = (0..context.options.clients).map(|writer| async move {
            let mut count = 0_u64;
            while clock.instant() < deadline {
                let change = begun.fetch_add(1, Ordering::Relaxed);
                let late = change.saturating_sub(CHANGES_UNDER_WAY);
                wait_for(context, arrived, start + late * watchers as u64).await?;
                must(&**endpoint, Method::POST, path, config_map(&format!("w{writer}-{count}"))).await?;
                count += 1;
            }
            Ok::<_, anyhow::Error>(count)
        });
        let changes: u64 = futures::future::try_join_all(writers).await?.into_iter().sum();
        wait_for(context, &delivered, start + changes * watchers as u64).await?;
        let elapsed = began.elapsed();
        let seen = delivered.load(Ordering::Relaxed);
        group.stop().await;
        let events = changes * watchers as u64;
        let cpu = meter.each(events as f64);
        Ok(vec![Figure {
            name: format!("API: watch, {watchers} watchers"),
            value: events as f64 / elapsed.as_secs_f64(),
            unit: "events/s",
            cost: format!("{cpu}{changes} changes of {} bytes, all delivered", bytes.load(Ordering::Relaxed) / seen),
            durability: "",
        }])
    })
    .await
}

pub(super) async fn open_watch(endpoint: &dyn Endpoint, path: &str) -> Result<skiff_client::Body> {
    let request =
        Request::get(path).header(http::header::ACCEPT, JSON).body(Bytes::new()).context("make the request")?;
    let response = endpoint.send(request).await.with_context(|| format!("watch {path}"))?;
    if !response.status().is_success() {
        bail!("watch {path} answered {}", response.status());
    }
    Ok(response.into_body())
}

/// Nothing is parsed: an event is a line.
async fn count_events(mut body: skiff_client::Body, delivered: Arc<AtomicU64>, bytes: Arc<AtomicU64>) {
    while let Some(Ok(chunk)) = body.next().await {
        let events = memchr::memchr_iter(b'\n', &chunk).count();
        bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        delivered.fetch_add(events as u64, Ordering::Relaxed);
    }
}

/// Waits until so many events have arrived; they come on other tasks, without a signal of theirs.
async fn wait_for(context: &Setting<'_>, delivered: &AtomicU64, wanted: u64) -> Result<()> {
    let deadline = context.session.clock.instant() + Duration::from_secs(60);
    while delivered.load(Ordering::Relaxed) < wanted {
        if context.session.clock.instant() > deadline {
            bail!("{} of {wanted} events arrived within a minute", delivered.load(Ordering::Relaxed));
        }
        context.session.clock.sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
