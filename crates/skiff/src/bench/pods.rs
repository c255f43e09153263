//! Single requests over pods such as a Deployment makes, and what the pods cost in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use http::Method;

use super::api::{closed_loop, figure, in_namespace, must, send};
use super::{Figure, Setting};

/// A pod with ports, environment, probes and volumes, as a client sends it. No scheduler knows its scheduler's name,
/// so that it stays what it is.
const POD: &str = include_str!("pod.json");
/// How many pods GET goes round.
const READ_PODS: usize = 1_000;
/// How many pods memory is measured with.
const MEMORY_PODS: usize = 150_000;
/// How long after the load memory is looked at again: caches and history are bounded, and what was needed only to get
/// so far should have been given back.
const SETTLE: Duration = Duration::from_secs(15);

/// The body of a pod called `name`.
pub(super) fn pod(name: &str) -> Vec<u8> {
    POD.replace("NAME", name).into_bytes()
}

/// A namespace in which pods can be made; `work` gets the path of its pods.
pub(super) async fn with_pods<T>(
    context: &Setting<'_>,
    name: &str,
    work: impl AsyncFnOnce(String) -> Result<T>,
) -> Result<T> {
    in_namespace(context, name, async |path| {
        // Where controllers run they make it as well, a moment later.
        let account = br#"{"metadata":{"name":"default"}}"#.to_vec();
        let accounts = format!("{path}/serviceaccounts");
        let (status, body) = send(&*context.endpoint, Method::POST, &accounts, account).await?;
        if status >= 300 && status != 409 {
            bail!("POST {accounts} answered {status}: {}", String::from_utf8_lossy(&body));
        }
        work(format!("{path}/pods")).await
    })
    .await
}

/// Durable creates.
pub(super) async fn create(context: &Setting<'_>) -> Result<Vec<Figure>> {
    let endpoint = Arc::clone(&context.endpoint);
    with_pods(context, "create", async |path| {
        let measured = closed_loop(context, async |client, round| {
            must(&*endpoint, Method::POST, &path, pod(&format!("web-{client}-{round}"))).await.map(drop)
        })
        .await?;
        let durability = if context.server.is_some() { "disk" } else { "its own" };
        let name = format!("API: create pod, {} clients", context.options.clients);
        Ok(vec![figure(name, "creates/s", durability, measured)])
    })
    .await
}

/// GET of one object after the other.
pub(super) async fn get(context: &Setting<'_>) -> Result<Vec<Figure>> {
    let endpoint = Arc::clone(&context.endpoint);
    with_pods(context, "get", async |path| {
        fill(context, &path, READ_PODS).await?;
        let next = AtomicUsize::new(0);
        let measured = closed_loop(context, async |_, _| {
            let one = format!("{path}/{}", name(next.fetch_add(1, Ordering::Relaxed) % READ_PODS));
            must(&*endpoint, Method::GET, &one, Vec::new()).await.map(drop)
        })
        .await?;
        Ok(vec![figure(format!("API: GET pod, {} clients", context.options.clients), "GET/s", "", measured)])
    })
    .await
}

fn name(index: usize) -> String {
    format!("web-{index:07}")
}

/// Makes `count` pods.
async fn fill(context: &Setting<'_>, path: &str, count: usize) -> Result<()> {
    futures::stream::iter(0..count)
        .map(|index| async move { must(&*context.endpoint, Method::POST, path, pod(&name(index))).await.map(drop) })
        .buffer_unordered(context.options.clients)
        .try_collect()
        .await
}

/// Resident memory of the server for each byte of pods in it: store, watch cache, and all.
pub(super) async fn memory(context: &Setting<'_>) -> Result<Vec<Figure>> {
    let server = context.server.as_ref().context("memory is measured of a server on this machine")?;
    let count = context.options.objects.unwrap_or(MEMORY_PODS);
    with_pods(context, "memory", async |path| {
        // The watch cache holds them, too, as soon as anybody has listed or watched.
        must(&*context.endpoint, Method::GET, &format!("{path}?limit=1"), Vec::new()).await?;
        let before = server.rss();
        fill(context, &path, count).await?;
        let loaded = server.rss();
        let one = must(&*context.endpoint, Method::GET, &format!("{path}/{}", name(0)), Vec::new()).await?.len();
        context.session.clock.sleep(SETTLE).await;
        let settled = server.rss();
        let encoded = (one * count) as f64;
        let cost = |now: u64| {
            let each = now.saturating_sub(before) as f64 / count as f64 - one as f64;
            format!(
                "{:.0} MB, {:.0} MB before, {one} bytes each and {each:.0} besides",
                now as f64 / 1e6,
                before as f64 / 1e6
            )
        };
        let figure = |when: &str, now: u64| Figure {
            name: format!("memory: {count} pods, {when}"),
            value: now as f64 / encoded,
            unit: "of their size",
            cost: cost(now),
            durability: "",
        };
        Ok(vec![figure("just created", loaded), figure(&format!("after {} s", SETTLE.as_secs()), settled)])
    })
    .await
}
