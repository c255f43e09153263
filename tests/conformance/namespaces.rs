//! Namespaces: changes, finalizers, and what goes with them.

use serde_json::json;

use crate::Outcome;
use crate::cluster::IMAGE;
use crate::context::Context;

/// Another namespace of the test's, besides the one it has.
async fn another(ctx: &Context, suffix: &str) -> anyhow::Result<(String, String)> {
    let name = format!("{}-{suffix}", ctx.namespace);
    ctx.create("/api/v1/namespaces", json!({"metadata": {"name": name}})).await?;
    let path = format!("/api/v1/namespaces/{name}");
    Ok((name, path))
}

pub(crate) async fn patch(ctx: Context) -> Outcome {
    let (_, path) = another(&ctx, "patch").await?;
    ctx.strategic(&path, json!({"metadata": {"labels": {"testLabel": "testValue"}}})).await?;
    let now = ctx.get(&path).await?;
    anyhow::ensure!(now["metadata"]["labels"]["testLabel"] == "testValue", "the label is missing: {now}");
    ctx.delete(&path).await.map(drop)
}

pub(crate) async fn update(ctx: Context) -> Outcome {
    let (name, path) = another(&ctx, "update").await?;
    let mut namespace = ctx.get(&path).await?;
    namespace["metadata"]["labels"][&name] = json!("updated");
    let now = ctx.update(&path, namespace).await?;
    anyhow::ensure!(now["metadata"]["labels"][&name] == "updated", "the label is missing: {now}");
    ctx.delete(&path).await.map(drop)
}

pub(crate) async fn finalizer(ctx: Context) -> Outcome {
    let (_, path) = another(&ctx, "finalize").await?;
    let mut namespace = ctx.get(&path).await?;
    namespace["spec"]["finalizers"] = json!(["kubernetes", "e2e.example.com/fakeFinalizer"]);
    let mut with = ctx.update(&format!("{path}/finalize"), namespace).await?;
    let finalizers = with["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
    anyhow::ensure!(finalizers.contains(&json!("e2e.example.com/fakeFinalizer")), "no such finalizer: {with}");
    with["spec"]["finalizers"] = json!(["kubernetes"]);
    let without = ctx.update(&format!("{path}/finalize"), with).await?;
    anyhow::ensure!(without["spec"]["finalizers"] == json!(["kubernetes"]), "still there: {without}");
    ctx.delete(&path).await?;
    ctx.gone(&path).await
}

pub(crate) async fn status(ctx: Context) -> Outcome {
    let (_, path) = another(&ctx, "status").await?;
    let status = format!("{path}/status");
    let now = ctx.get(&status).await?;
    anyhow::ensure!(now["status"]["phase"] == "Active", "not active: {now}");
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "set by a test"});
    let patch =
        json!({"metadata": {"annotations": {"e2e-patched": "yes"}}, "status": {"conditions": [condition("Patched")]}});
    let patched = ctx.merge(&status, patch).await?;
    anyhow::ensure!(patched["status"]["conditions"][0]["type"] == "Patched", "not patched: {patched}");
    let mut wanted = patched.clone();
    wanted["status"]["conditions"] = json!([condition("Patched"), condition("Updated")]);
    let updated = ctx.update(&status, wanted).await?;
    anyhow::ensure!(updated["status"]["conditions"][1]["type"] == "Updated", "not updated: {updated}");
    anyhow::ensure!(updated["status"]["phase"] == "Active", "the phase was lost: {updated}");
    ctx.delete(&path).await.map(drop)
}

pub(crate) async fn pods_removed(ctx: Context) -> Outcome {
    let (name, path) = another(&ctx, "pods").await?;
    let pods = format!("/api/v1/namespaces/{name}/pods");
    ctx.until_object("the service account", &format!("/api/v1/namespaces/{name}/serviceaccounts/default"), |_| true)
        .await?;
    let pod = json!({"metadata": {"name": "test-pod"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "box", "image": IMAGE, "command": ["sleep", "1000"]}
    ]}});
    ctx.create(&pods, pod).await?;
    let running = |pod: &serde_json::Value| pod["status"]["phase"] == "Running";
    ctx.until_object("a running pod", &format!("{pods}/test-pod"), running).await?;
    recreated_empty(&ctx, &name, &path, "pods").await
}

pub(crate) async fn services_removed(ctx: Context) -> Outcome {
    let (name, path) = another(&ctx, "services").await?;
    let service = json!({"metadata": {"name": "test-service"}, "spec": {"selector": {"foo": "bar"}, "ports": [
        {"port": 80, "targetPort": 80}
    ]}});
    ctx.create(&format!("/api/v1/namespaces/{name}/services"), service).await?;
    recreated_empty(&ctx, &name, &path, "services").await
}

/// Deletes the namespace, makes it anew and finds none of `resource` in it.
async fn recreated_empty(ctx: &Context, name: &str, path: &str, resource: &str) -> Outcome {
    ctx.delete(path).await?;
    ctx.gone(path).await?;
    ctx.create("/api/v1/namespaces", json!({"metadata": {"name": name}})).await?;
    let left = ctx.get(&format!("{path}/{resource}")).await?;
    anyhow::ensure!(left["items"] == json!([]), "some {resource} outlived their namespace: {left}");
    ctx.delete(path).await.map(drop)
}

pub(crate) async fn pods_first(ctx: Context) -> Outcome {
    let (name, path) = another(&ctx, "ordered").await?;
    let finalizer = json!(["e2e.example.com/finalizer"]);
    ctx.until_object("the service account", &format!("{path}/serviceaccounts/default"), |_| true).await?;
    let pod = json!({"metadata": {"name": "held", "finalizers": finalizer}, "spec": {"containers": [
        {"name": "box", "image": IMAGE, "command": ["sleep", "1000"]}
    ], "terminationGracePeriodSeconds": 0}});
    ctx.create(&format!("{path}/pods"), pod).await?;
    ctx.create(&format!("{path}/configmaps"), json!({"metadata": {"name": "later"}})).await?;
    ctx.delete(&path).await?;
    let waits = |namespace: &serde_json::Value| {
        let conditions = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .iter()
            .any(|one| one["type"] == "NamespaceDeletionContentFailure" || one["type"] == "NamespaceContentRemaining")
    };
    ctx.until_object("a namespace that tells what remains", &path, waits).await?;
    let later = ctx.get(&format!("/api/v1/namespaces/{name}/configmaps/later")).await?;
    let deleted = later["metadata"]["deletionTimestamp"].is_string();
    anyhow::ensure!(!deleted, "deleted while a pod remained: {later}");
    ctx.merge(&format!("{path}/pods/held"), json!({"metadata": {"finalizers": null}})).await?;
    ctx.gone(&path).await
}
