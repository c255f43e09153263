//! From the creation of a pod to Running, image present.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use skiff_client::{Client, DeleteOptions, Selection, WatchEvent, WatchOptions};

use super::{Figure, Setting, percentile};
use crate::demo::IMAGE;

const ROUNDS: usize = 20;
const ROUND_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn measure(context: &Setting<'_>) -> Result<Vec<Figure>> {
    let client = Client::new(context.endpoint.clone(), "skiff-bench");
    let mut latencies = Vec::new();
    let before = context.server.as_ref().map(super::Group::cpu);
    for round in 0..ROUNDS {
        let name = format!("bench-{}-{round}", std::process::id());
        let outcome = tokio::time::timeout(ROUND_TIMEOUT, one(context, &client, &name)).await;
        let deleted = client.delete::<Pod>("default", &name, &DeleteOptions::default().grace(0)).await;
        latencies.push(outcome.with_context(|| format!("pod {name} was not Running within 30 seconds"))??);
        deleted.with_context(|| format!("delete pod {name}"))?;
    }
    let cpu = context.server.as_ref().zip(before).map(|(server, before)| server.cpu().saturating_sub(before));
    let cpu = cpu
        .map_or_else(String::new, |cpu| format!("{:.1} ms server CPU each, ", cpu.as_secs_f64() * 1e3 / ROUNDS as f64));
    Ok(vec![Figure {
        name: "pod: create to Running".into(),
        value: percentile(&mut latencies, 0.5),
        unit: "ms p50",
        cost: format!("{cpu}p90 {:.0} ms, one at a time, {ROUNDS} pods", percentile(&mut latencies, 0.9)),
        durability: "",
    }])
}

async fn one(context: &Setting<'_>, client: &Client, name: &str) -> Result<Duration> {
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "containers": [{ "name": "demo", "image": IMAGE, "imagePullPolicy": "Never" }] },
    }))
    .context("make the pod")?;
    let options = WatchOptions {
        selection: Selection::fields(format!("metadata.name={name}")),
        initial_events: true,
        ..WatchOptions::default()
    };
    let mut watch = client.watch::<Pod>("default", &options).await.context("watch the pod")?;
    let began = context.session.clock.instant();
    client.create(&pod).await.with_context(|| format!("create pod {name}"))?;
    while let Some(event) = watch.next().await.context("watch the pod")? {
        let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else { continue };
        match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
            Some("Running") => return Ok(began.elapsed()),
            Some("Failed") => bail!("pod {name} failed; is the cluster one with the image {IMAGE}?"),
            _ => {}
        }
    }
    bail!("the watch of pod {name} ended")
}
