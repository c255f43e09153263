//! Events, by the core group and by `events.k8s.io`.

use serde_json::{Value, json};

use crate::Outcome;
use crate::context::Context;

fn core_event(ctx: &Context, name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"testevent-set": "true"}},
        "message": "This is a test event",
        "reason": "Test",
        "type": "Normal",
        "count": 1,
        "involvedObject": {"namespace": ctx.namespace},
    })
}

fn new_event(ctx: &Context, name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"testevent-set": "true"}},
        "eventTime": "2026-01-01T00:00:00.000001Z",
        "reportingController": "test-controller",
        "reportingInstance": "test-node",
        "action": "Do",
        "reason": "Test",
        "type": "Normal",
        "note": "This is a test event",
        "regarding": {"namespace": ctx.namespace},
    })
}

/// Fetched, listed here and everywhere, patched, updated with a series, deleted.
async fn life(ctx: &Context, path: &str, everywhere: &str, event: Value, patch: Value, regarding: &str) -> Outcome {
    ctx.create(path, event).await?;
    let one = format!("{path}/event-test");
    let selected =
        format!("{everywhere}?labelSelector=testevent-set%3Dtrue&fieldSelector=metadata.namespace%3D{}", ctx.namespace);
    let all = ctx.get(&selected).await?;
    anyhow::ensure!(all["items"].as_array().map(Vec::len) == Some(1), "one expected: {all}");
    let patched = ctx.strategic(&one, patch.clone()).await?;
    for (field, value) in patch.as_object().into_iter().flatten() {
        anyhow::ensure!(patched[field] == *value, "{field} not patched: {patched}");
    }
    let mut wanted = ctx.get(&one).await?;
    anyhow::ensure!(wanted[regarding]["namespace"] == ctx.namespace, "about another: {wanted}");
    wanted["series"] = json!({"count": 100, "lastObservedTime": "2026-01-01T00:00:10.000005Z"});
    let updated = ctx.update(&one, wanted).await?;
    anyhow::ensure!(updated["series"]["count"] == 100, "not updated: {updated}");
    let time = "2026-01-01T00:00:10.000005Z";
    anyhow::ensure!(updated["series"]["lastObservedTime"] == time, "the time is another: {updated}");
    ctx.delete(&one).await?;
    ctx.gone(&one).await
}

/// A set by label, deleted at once.
async fn collection(ctx: &Context, path: &str, make: impl Fn(&str) -> Value) -> Outcome {
    let mut other = make("other");
    other["metadata"]["labels"] = json!({"testevent-set": "false"});
    ctx.create(path, other).await?;
    for index in 0..3 {
        ctx.create(path, make(&format!("test-event-{index}"))).await?;
    }
    let selected = format!("{path}?labelSelector=testevent-set%3Dtrue");
    let listed = ctx.get(&selected).await?;
    anyhow::ensure!(listed["items"].as_array().map(Vec::len) == Some(3), "three expected: {listed}");
    ctx.delete(&selected).await?;
    ctx.until_object("an empty list", &selected, |list| list["items"] == json!([])).await?;
    ctx.get(&format!("{path}/other")).await.map(drop)
}

pub(crate) async fn core_life(ctx: Context) -> Outcome {
    let event = core_event(&ctx, "event-test");
    life(
        &ctx,
        &ctx.path("events"),
        "/api/v1/events",
        event,
        json!({"message": "This is a patched test event"}),
        "involvedObject",
    )
    .await
}

pub(crate) async fn core_collection(ctx: Context) -> Outcome {
    collection(&ctx, &ctx.path("events"), |name| core_event(&ctx, name)).await
}

pub(crate) async fn new_life(ctx: Context) -> Outcome {
    let event = new_event(&ctx, "event-test");
    let path = ctx.path("events.k8s.io/v1/events");
    // Through this API only the series may change.
    let patch = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:05.000000Z"}});
    life(&ctx, &path, "/apis/events.k8s.io/v1/events", event, patch, "regarding").await
}

pub(crate) async fn new_collection(ctx: Context) -> Outcome {
    collection(&ctx, &ctx.path("events.k8s.io/v1/events"), |name| new_event(&ctx, name)).await
}
