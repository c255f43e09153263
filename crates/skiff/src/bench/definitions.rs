//! Custom resource definitions: what an idle one costs, and how soon a change is published.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use serde_json::{Value, json};

use super::api::{must, send};
use super::{Figure, Setting};

const DEFINITIONS: usize = 1_000;
const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// How long the server gets to establish all of them.
const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(120);
/// What has just been made is not idle yet.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) async fn measure(context: &Setting<'_>) -> Result<Vec<Figure>> {
    let count = context.options.objects.unwrap_or(DEFINITIONS);
    let group = format!("bench{}.example.com", std::process::id());
    let outcome = figures(context, &group, count).await;
    let names: Vec<String> = (0..count).map(|number| format!("{PATH}/{}", name(number, &group))).collect();
    let deletes = futures::stream::iter(&names)
        .map(|path| send(&*context.endpoint, Method::DELETE, path, Vec::new()))
        .buffer_unordered(context.options.clients);
    deletes.for_each(|deleted| async { drop(deleted) }).await;
    outcome
}

async fn figures(context: &Setting<'_>, group: &str, count: usize) -> Result<Vec<Figure>> {
    let clock = &context.session.clock;
    let (cpu, memory) = spent(context);
    let bodies: Vec<Vec<u8>> = (0..count).map(|number| definition(number, group, "first")).collect();
    let size = bodies.first().map_or(0, Vec::len);
    let began = clock.instant();
    let creates = futures::stream::iter(bodies)
        .map(|body| must(&*context.endpoint, Method::POST, PATH, body))
        .buffer_unordered(context.options.clients);
    let failures = creates.filter_map(|created| async { created.err() });
    if let Some(error) = std::pin::pin!(failures).next().await {
        return Err(error);
    }
    while let Some(waiting) = not_established(context, group).await? {
        if began.elapsed() > ESTABLISH_TIMEOUT {
            bail!("{waiting} definitions are not established after {} s", ESTABLISH_TIMEOUT.as_secs());
        }
        clock.sleep(Duration::from_millis(100)).await;
    }
    let established = began.elapsed();
    clock.sleep(SETTLE).await;
    let (cpu_after, memory_after) = spent(context);
    let each = memory_after.saturating_sub(memory) as f64 / count as f64 / 1024.0;
    let mut figures = vec![Figure {
        name: format!("API: idle definition, one of {count}"),
        value: each,
        unit: "KiB",
        cost: format!(
            "{:.2} ms server CPU each, {size} bytes each, all established in {:.1} s",
            (cpu_after.saturating_sub(cpu)).as_secs_f64() * 1e3 / count as f64,
            established.as_secs_f64()
        ),
        durability: "",
    }];
    for (what, path) in [
        ("OpenAPI 2, first", "/openapi/v2"),
        ("OpenAPI 2, again", "/openapi/v2"),
        ("OpenAPI 3 index, first", "/openapi/v3"),
        ("discovery", "/apis"),
    ] {
        figures.push(document(context, what, path, count).await?);
    }
    let changed = definition(0, group, "changed");
    let path = format!("{PATH}/{}", name(0, group));
    let patch = Request::patch(&path)
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(Bytes::from(changed))
        .context("make the request")?;
    let began = clock.instant();
    let response = context.endpoint.send(patch).await.context("change a definition")?;
    if !response.status().is_success() {
        bail!("change a definition: {}", response.status());
    }
    // Served at once: the first document after the change must have it.
    let mut rounds = 0;
    while !fetch(context, "/openapi/v2").await?.windows(12).any(|window| window == b"changed-desc") {
        rounds += 1;
        if rounds > 100 {
            bail!("the change is not in the document");
        }
    }
    figures.push(Figure {
        name: format!("API: change of one of {count} to OpenAPI 2"),
        value: began.elapsed().as_secs_f64() * 1e3,
        unit: "ms",
        cost: format!("the document asked for {} times until it had the change", rounds + 1),
        durability: "",
    });
    figures.push(document(context, "memory after documents", "/openapi/v2", count).await?);
    let held = spent(context).1.saturating_sub(memory) as f64 / count as f64 / 1024.0;
    figures.push(Figure {
        name: format!("API: idle definition with documents, one of {count}"),
        value: held,
        unit: "KiB",
        cost: "after OpenAPI 2 and 3 and discovery were asked for".into(),
        durability: "",
    });
    Ok(figures)
}

fn spent(context: &Setting<'_>) -> (Duration, u64) {
    context.server.as_ref().map_or((Duration::ZERO, 0), |server| (server.cpu(), server.pss()))
}

async fn document(context: &Setting<'_>, what: &str, path: &str, count: usize) -> Result<Figure> {
    let cpu = spent(context).0;
    let began = context.session.clock.instant();
    let bytes = fetch(context, path).await?.len();
    let took = began.elapsed();
    Ok(Figure {
        name: format!("API: {what}, {count} definitions"),
        value: took.as_secs_f64() * 1e3,
        unit: "ms",
        cost: format!(
            "{:.1} ms server CPU, {:.1} MB",
            spent(context).0.saturating_sub(cpu).as_secs_f64() * 1e3,
            bytes as f64 / 1e6
        ),
        durability: "",
    })
}

async fn fetch(context: &Setting<'_>, path: &str) -> Result<Bytes> {
    must(&*context.endpoint, Method::GET, path, Vec::new()).await
}

/// How many definitions are not established yet; nothing when all are.
async fn not_established(context: &Setting<'_>, group: &str) -> Result<Option<usize>> {
    let list: Value = serde_json::from_slice(&fetch(context, PATH).await?).context("read the definitions")?;
    let is_established = |item: &Value| {
        let conditions = item["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Established" && one["status"] == "True"))
    };
    let own = list["items"].as_array().into_iter().flatten().filter(|item| item["spec"]["group"] == group);
    let waiting = own.filter(|item| !is_established(item)).count();
    Ok((waiting > 0).then_some(waiting))
}

fn name(number: usize, group: &str) -> String {
    format!("things{number}.{group}")
}

/// About as large as those of operators: some dozens of described fields on three levels.
fn definition(number: usize, group: &str, mark: &str) -> Vec<u8> {
    let text = "What this field is for, in a sentence or two as the authors of operators write them for their users.";
    let leaves = |prefix: &str| -> Value {
        let fields = (0..8).map(|field| {
            let ty = if field % 3 == 0 {
                json!({ "type": "integer", "description": text, "minimum": 0 })
            } else {
                json!({ "type": "string", "description": text, "maxLength": 253 })
            };
            (format!("{prefix}{field}"), ty)
        });
        json!({ "type": "object", "description": text, "properties": fields.collect::<serde_json::Map<_, _>>() })
    };
    let groups = (0..8).map(|index| (format!("part{index}"), leaves(&format!("p{index}f"))));
    let mut spec = json!({ "type": "object", "properties": groups.collect::<serde_json::Map<_, _>>() });
    spec["description"] = json!(format!("{mark}-desc"));
    let kind = format!("Thing{number}");
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": name(number, group) },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": { "plural": format!("things{number}"), "singular": format!("thing{number}"), "kind": kind, "listKind": format!("{kind}List") },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": [{ "name": "Ready", "type": "string", "jsonPath": ".status.ready" }],
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": { "spec": spec, "status": { "type": "object", "properties": { "ready": { "type": "string" } } } },
                } },
            }],
        },
    })
    .to_string()
    .into_bytes()
}
