//! Large collections: how soon a list begins, what it costs, what many at once hold, and what a selector costs that
//! nothing matches.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use skiff_client::Endpoint;

use super::api::{in_namespace, must};
use super::pods::with_pods;
use super::{Figure, Setting, percentile};

/// The figures are of this many objects unless told otherwise; a selector looks at twice as many.
const OBJECTS: usize = 150_000;
const ROUNDS: usize = 5;
const SELECTOR_ROUNDS: usize = 50;
/// So many lists are begun and not read on, to see what each holds.
const STALLED: usize = 16;
/// What a list has been asked to be, and the `Accept` that asks for it.
const FORMS: [(&str, &str); 3] = [
    ("JSON", "application/json"),
    ("protobuf", "application/vnd.kubernetes.protobuf"),
    ("Table", "application/json;as=Table;v=v1;g=meta.k8s.io"),
];

/// A list that is being read.
struct Reading {
    first: Duration,
    body: skiff_client::Body,
    bytes: usize,
}

/// LIST of many pods.
pub(super) async fn long(context: &Setting<'_>) -> Result<Vec<Figure>> {
    let count = context.options.objects.unwrap_or(OBJECTS);
    with_pods(context, "lists", async |path| {
        fill(context, &path, count, pod).await?;
        let mut figures = Vec::new();
        for (form, accept) in FORMS {
            figures.push(one_form(context, &path, (form, accept), count).await?);
        }
        figures.extend(stalled(context, &path, count).await?);
        Ok(figures)
    })
    .await
}

/// A selector that matches nothing.
pub(super) async fn selector(context: &Setting<'_>) -> Result<Vec<Figure>> {
    let count = context.options.objects.unwrap_or(OBJECTS) * 2;
    in_namespace(context, "selectors", async |namespace| {
        let path = format!("{namespace}/configmaps");
        fill(context, &path, count, config_map).await?;
        let mut figures = Vec::new();
        for (what, query) in [
            ("first", "labelSelector=app%3Dnone"),
            ("equality", "labelSelector=app%3Dnone"),
            ("in", "labelSelector=app+in+(none,nobody)"),
            ("key", "labelSelector=none"),
            ("few match", "labelSelector=number%3D7"),
        ] {
            let rounds = if what == "first" { 1 } else { SELECTOR_ROUNDS };
            let cpu = context.server.as_ref().map(super::Group::cpu);
            let mut latencies = Vec::new();
            for _ in 0..rounds {
                let began = context.session.clock.instant();
                must(&*context.endpoint, Method::GET, &format!("{path}?{query}"), Vec::new()).await?;
                latencies.push(began.elapsed());
            }
            let spent = context.server.as_ref().zip(cpu).map(|(server, before)| server.cpu().saturating_sub(before));
            let cost = spent.map_or_else(String::new, |spent| {
                format!("{:.2} ms server CPU each, ", spent.as_secs_f64() * 1e3 / rounds as f64)
            });
            figures.push(Figure {
                name: format!("API: selector over {count} objects, {what}"),
                value: percentile(&mut latencies, 0.5),
                unit: "ms",
                cost: format!("{cost}p99 {:.2} ms", percentile(&mut latencies, 0.99)),
                durability: "",
            });
        }
        Ok(figures)
    })
    .await
}

async fn fill(context: &Setting<'_>, path: &str, count: usize, object: fn(usize) -> Vec<u8>) -> Result<()> {
    let endpoint = &context.endpoint;
    let creates = futures::stream::iter(0..count)
        .map(|number| must(&**endpoint, Method::POST, path, object(number)))
        .buffer_unordered(context.options.clients);
    let failures = creates.filter_map(|created| async { created.err() });
    match std::pin::pin!(failures).next().await {
        Some(error) => Err(error.context("fill the collection")),
        None => Ok(()),
    }
}

/// About as large as the pods that deployments make; no scheduler takes it.
fn pod(number: usize) -> Vec<u8> {
    let app = format!("app-{}", number % 500);
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{app}-{number:06}"),
            "labels": { "app": app, "pod-template-hash": format!("{:08x}", number % 500), "tier": "web" },
            "annotations": { "checksum/config": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" },
        },
        "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "web", "image": "registry.example/team/web:1.2.3",
                "ports": [{ "containerPort": 8080, "name": "http" }],
                "env": [{ "name": "LOG", "value": "info" }, { "name": "REGION", "value": "eu-central-1" }],
                "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
                "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" } },
            }],
        },
    })
    .to_string()
    .into_bytes()
}

fn config_map(number: usize) -> Vec<u8> {
    serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": format!("c{number}"),
            "labels": { "app": format!("app-{}", number % 500), "number": number.to_string() },
        },
        "data": { "text": "x".repeat(300) },
    })
    .to_string()
    .into_bytes()
}

async fn begin(context: &Setting<'_>, endpoint: &dyn Endpoint, path: &str, accept: &str) -> Result<Reading> {
    let request =
        Request::get(path).header(http::header::ACCEPT, accept).body(Bytes::new()).context("make the request")?;
    let began = context.session.clock.instant();
    let response = endpoint.send(request).await.with_context(|| format!("list {path}"))?;
    if !response.status().is_success() {
        bail!("list {path} answered {}", response.status());
    }
    let mut body = response.into_body();
    let chunk = body.next().await.with_context(|| format!("{path} answered nothing"))?.context("read the list")?;
    Ok(Reading { first: began.elapsed(), body, bytes: chunk.len() })
}

impl Reading {
    async fn finish(mut self) -> Result<usize> {
        while let Some(chunk) = self.body.next().await {
            self.bytes += chunk.context("read the list")?.len();
        }
        Ok(self.bytes)
    }
}

async fn one_form(context: &Setting<'_>, path: &str, (form, accept): (&str, &str), count: usize) -> Result<Figure> {
    let (mut firsts, mut wholes, mut bytes) = (Vec::new(), Vec::new(), 0);
    let cpu = context.server.as_ref().map(super::Group::cpu);
    let mut cold = Duration::ZERO;
    for round in 0..=ROUNDS {
        let began = context.session.clock.instant();
        let reading = begin(context, &*context.endpoint, path, accept).await?;
        let first = reading.first;
        bytes = reading.finish().await?;
        match round {
            0 => cold = first,
            _ => {
                firsts.push(first);
                wholes.push(began.elapsed());
            }
        }
    }
    let spent = context.server.as_ref().zip(cpu).map(|(server, before)| server.cpu().saturating_sub(before));
    let cost = spent.map_or_else(String::new, |spent| {
        format!("{:.2} µs server CPU an object, ", spent.as_secs_f64() * 1e6 / ((ROUNDS + 1) * count) as f64)
    });
    Ok(Figure {
        name: format!("API: LIST of {count} pods, {form}, first byte"),
        value: percentile(&mut firsts, 0.5),
        unit: "ms",
        cost: format!(
            "{cost}slowest {:.2} ms, first of all {:.2} ms, whole {:.0} ms, {:.0} MB",
            percentile(&mut firsts, 1.0),
            cold.as_secs_f64() * 1e3,
            percentile(&mut wholes, 0.5),
            bytes as f64 / 1e6
        ),
        durability: "",
    })
}

/// What the server holds for a list whose reader has stopped.
async fn stalled(context: &Setting<'_>, path: &str, count: usize) -> Result<Option<Figure>> {
    let Some(server) = &context.server else { return Ok(None) };
    let before = server.pss();
    let endpoint = Arc::clone(&context.endpoint);
    let begun = (0..STALLED).map(|_| begin(context, &*endpoint, path, FORMS[0].1));
    let readings = futures::future::try_join_all(begun).await?;
    // What is on its way settles in the buffers.
    context.session.clock.sleep(Duration::from_secs(1)).await;
    let held = server.pss().saturating_sub(before);
    drop(readings);
    Ok(Some(Figure {
        name: format!("API: LIST of {count} pods, {STALLED} at once, not read"),
        value: held as f64 / STALLED as f64 / f64::from(1 << 20),
        unit: "MiB each",
        cost: "server memory (PSS) besides the collection".into(),
        durability: "",
    }))
}
