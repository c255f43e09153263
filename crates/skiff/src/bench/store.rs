//! The embedded store alone, on the disk where clusters keep theirs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use skiff_store::embedded::Options;
use skiff_store::{Expect, Store};

use super::{Figure, Group, percentile, scratch_name};
use crate::cli::Bench;
use crate::commands::Session;

/// The value size of the first round of measurements, so that figures compare.
const VALUE_BYTES: usize = 1_024;

pub(super) async fn measure(session: &Session, options: &Bench) -> Result<Vec<Figure>> {
    let folder = session.roots.data.join(scratch_name());
    crate::files::create_private_dir(&folder)?;
    let outcome = rounds(session, options, &folder).await;
    std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    outcome
}

async fn rounds(session: &Session, options: &Bench, folder: &std::path::Path) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for writers in [1, options.clients] {
        let store = crate::server::open_store(
            &folder.join(writers.to_string()),
            Options::new(session.clock.clone(), skiff_base::Random::system()),
        )?;
        figures.push(round(session, options, store.clone(), writers).await?);
        store.close().await;
    }
    Ok(figures)
}

async fn round(session: &Session, options: &Bench, store: Arc<dyn Store>, writers: usize) -> Result<Figure> {
    let process = Group::own();
    let before = process.cpu();
    let began = session.clock.instant();
    let deadline = began + Duration::from_secs(options.seconds);
    let clock = session.clock.clone();
    let work = (0..writers).map(|writer| {
        let (store, clock) = (Arc::clone(&store), clock.clone());
        async move {
            let mut latencies = Vec::new();
            while clock.instant() < deadline {
                let key = format!("/bench/{writer:04}/{:08}", latencies.len());
                let sent = clock.instant();
                store.put(key.into(), Bytes::from(vec![b'x'; VALUE_BYTES]), Expect::Absent, None).await?;
                latencies.push(sent.elapsed());
            }
            Ok::<_, skiff_store::Error>(latencies)
        }
    });
    let latencies = futures::future::try_join_all(work).await.context("write")?;
    let elapsed = began.elapsed();
    let mut latencies: Vec<Duration> = latencies.into_iter().flatten().collect();
    let cpu = process.cpu().saturating_sub(before);
    let count = latencies.len() as f64;
    Ok(Figure {
        name: format!("store: put of {VALUE_BYTES} bytes, {writers} writers"),
        value: count / elapsed.as_secs_f64(),
        unit: "writes/s",
        cost: format!(
            "{:.0} µs CPU/write, p50 {:.2} ms, p99 {:.2} ms",
            cpu.as_secs_f64() * 1e6 / count,
            percentile(&mut latencies, 0.5),
            percentile(&mut latencies, 0.99)
        ),
        durability: super::durability(store.durability()),
    })
}
