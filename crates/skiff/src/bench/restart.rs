//! From the start of an API server over many objects until it is ready.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use skiff_base::{Random, Shutdown, Tasks};
use skiff_store::embedded::Options;
use skiff_store::{Commit, Range, Store, Write};

use super::alone::Alone;
use super::api::must;
use super::{Figure, pods};
use crate::cli::Bench;
use crate::commands::Session;
use crate::connect;

/// How many objects there are.
const OBJECTS: usize = 1_000_000;
/// Objects written at once while the store is filled.
const COMMIT_OBJECTS: usize = 1_000;
/// The pod that all others are copies of.
const ORIGINAL: &str = "web-original";

pub(super) async fn measure(session: &Session, options: &Bench) -> Result<Vec<Figure>> {
    let count = options.objects.unwrap_or(OBJECTS);
    let tasks = Tasks::new("bench", Shutdown::new());
    let mut alone = Alone::new(session)?;
    alone.start()?;
    let endpoint = connect::endpoint(session, alone.profile(), &tasks)?;
    let namespace = "/api/v1/namespaces/default";
    let account = br#"{"metadata":{"name":"default"}}"#.to_vec();
    must(&*endpoint, Method::POST, &format!("{namespace}/serviceaccounts"), account).await?;
    must(&*endpoint, Method::POST, &format!("{namespace}/pods"), pods::pod(ORIGINAL)).await?;
    alone.stop()?;
    let bytes = fill(session, &alone, count).await?;
    let began = session.clock.instant();
    alone.start()?;
    must(&*endpoint, Method::GET, "/readyz", Vec::new()).await?;
    let took = began.elapsed();
    let cpu = alone.group().cpu();
    let last = must(&*endpoint, Method::GET, &format!("{namespace}/pods/{}", name(count - 1)), Vec::new()).await?;
    ensure!(!last.is_empty(), "the last pod is there");
    let figure = Figure {
        name: format!("restart over {count} pods: to /readyz"),
        value: took.as_secs_f64() * 1e3,
        unit: "ms",
        cost: format!(
            "{:.0} ms server CPU, {:.2} GB of pods, {:.2} GB resident",
            cpu.as_secs_f64() * 1e3,
            bytes as f64 / 1e9,
            alone.group().rss() as f64 / 1e9
        ),
        durability: "disk",
    };
    alone.stop()?;
    tasks.stop().await;
    Ok(vec![figure])
}

fn name(index: usize) -> String {
    // As long as the original's, so that copies are made by replacing it.
    format!("web-{index:08}")
}

/// Puts copies of the pod into the store itself; the bytes of their values.
async fn fill(session: &Session, alone: &Alone, count: usize) -> Result<usize> {
    let folder = alone.profile().data().join("store");
    let store = crate::server::open_store(&folder, Options::new(session.clock.clone(), Random::system()))?;
    let entries = store.range(Range::default()).await.context("read the store")?.entries;
    let original = entries.iter().find(|entry| entry.key.ends_with(ORIGINAL.as_bytes())).context("find the pod")?;
    let (key, value) = (std::str::from_utf8(&original.key)?, std::str::from_utf8(&original.value)?);
    let mut bytes = 0;
    for first in (0..count).step_by(COMMIT_OBJECTS) {
        let writes = (first..count.min(first + COMMIT_OBJECTS)).map(|index| {
            let name = name(index);
            let value = Bytes::from(value.replace(ORIGINAL, &name));
            bytes += value.len();
            Write::Put { key: Bytes::from(key.replace(ORIGINAL, &name)), value, lease: None }
        });
        store.commit(Commit { writes: writes.collect(), ..Commit::default() }).await.context("fill the store")?;
    }
    store.close().await;
    Ok(bytes)
}
