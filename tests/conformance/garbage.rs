//! What goes with its owner, what stays, and who waits for whom.

use serde_json::{Value, json};

use crate::Outcome;
use crate::cluster::IMAGE;
use crate::context::Context;

fn pod_template(label: &str) -> Value {
    json!({"metadata": {"labels": {"name": label}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "box", "image": IMAGE, "command": ["sleep", "1000"]}
    ]}})
}

fn controller(name: &str, replicas: u32) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"name": name}, "template": pod_template(name)
    }})
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"name": name}}, "template": pod_template(name)
    }})
}

fn count(list: &Value) -> usize {
    list["items"].as_array().map_or(0, Vec::len)
}

/// A replication controller with all its pods there.
async fn with_pods(ctx: &Context, name: &str, replicas: u32) -> anyhow::Result<(String, String)> {
    ctx.create(&ctx.path("replicationcontrollers"), controller(name, replicas)).await?;
    let path = format!("{}/{name}", ctx.path("replicationcontrollers"));
    ctx.until_object("all replicas", &path, |rc| rc["status"]["replicas"] == replicas).await?;
    Ok((path, format!("{}?labelSelector=name%3D{name}", ctx.path("pods"))))
}

/// A deployment whose replica set is there; gives both paths.
async fn with_replica_set(ctx: &Context, name: &str) -> anyhow::Result<(String, String)> {
    ctx.create(&ctx.path("apps/v1/deployments"), deployment(name)).await?;
    let sets = ctx.path("apps/v1/replicasets");
    let sets = format!("{sets}?labelSelector=name%3D{name}");
    ctx.until_object("its replica set", &sets, |list| count(list) == 1).await?;
    Ok((format!("{}/{name}", ctx.path("apps/v1/deployments")), sets))
}

pub(crate) async fn controller_background(ctx: Context) -> Outcome {
    let (path, pods) = with_pods(&ctx, "background", 2).await?;
    ctx.delete_with(&path, json!({"propagationPolicy": "Background"})).await?;
    ctx.gone(&path).await?;
    ctx.until_object("no pods", &pods, |list| count(list) == 0).await.map(drop)
}

pub(crate) async fn controller_orphan(ctx: Context) -> Outcome {
    let (path, pods) = with_pods(&ctx, "orphan", 4).await?;
    ctx.delete_with(&path, json!({"propagationPolicy": "Orphan"})).await?;
    ctx.gone(&path).await?;
    let left = ctx.get(&pods).await?;
    anyhow::ensure!(count(&left) == 4, "four orphans expected: {left}");
    let owned = left["items"].as_array().into_iter().flatten().any(|pod| !pod["metadata"]["ownerReferences"].is_null());
    anyhow::ensure!(!owned, "an orphan has an owner: {left}");
    Ok(())
}

pub(crate) async fn deployment_background(ctx: Context) -> Outcome {
    let (path, sets) = with_replica_set(&ctx, "background").await?;
    ctx.delete_with(&path, json!({"propagationPolicy": "Background"})).await?;
    ctx.until_object("no replica sets", &sets, |list| count(list) == 0).await?;
    let pods = format!("{}?labelSelector=name%3Dbackground", ctx.path("pods"));
    ctx.until_object("no pods", &pods, |list| count(list) == 0).await.map(drop)
}

pub(crate) async fn deployment_orphan(ctx: Context) -> Outcome {
    let (path, sets) = with_replica_set(&ctx, "orphan").await?;
    ctx.delete_with(&path, json!({"propagationPolicy": "Orphan"})).await?;
    ctx.gone(&path).await?;
    let left = ctx.get(&sets).await?;
    anyhow::ensure!(count(&left) == 1, "one orphan expected: {left}");
    anyhow::ensure!(left["items"][0]["metadata"]["ownerReferences"].is_null(), "it has an owner: {left}");
    Ok(())
}

pub(crate) async fn foreground(ctx: Context) -> Outcome {
    let (path, pods) = with_pods(&ctx, "foreground", 10).await?;
    // Held by a finalizer, one pod makes the order visible.
    let first = ctx.get(&pods).await?["items"][0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let held = format!("{}/{first}", ctx.path("pods"));
    ctx.merge(&held, json!({"metadata": {"finalizers": ["e2e.example.com/held"]}})).await?;
    ctx.delete_with(&path, json!({"propagationPolicy": "Foreground"})).await?;
    ctx.until_object("all pods but one gone", &pods, |list| count(list) == 1).await?;
    let waits = ctx.get(&path).await?;
    let finalizers = waits["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    anyhow::ensure!(finalizers.contains(&json!("foregroundDeletion")), "it waits for nothing: {waits}");
    ctx.merge(&held, json!({"metadata": {"finalizers": null}})).await?;
    ctx.gone(&path).await?;
    let left = ctx.get(&pods).await?;
    anyhow::ensure!(count(&left) == 0, "gone before its pods: {left}");
    Ok(())
}

pub(crate) async fn two_owners(ctx: Context) -> Outcome {
    let (waiting, pods) = with_pods(&ctx, "deleted", 10).await?;
    let (_, _) = with_pods(&ctx, "stays", 0).await?;
    let owner = ctx.get(&format!("{}/stays", ctx.path("replicationcontrollers"))).await?;
    let reference =
        json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "stays", "uid": owner["metadata"]["uid"]});
    let listed = ctx.get(&pods).await?;
    for pod in listed["items"].as_array().into_iter().flatten().take(5) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let patch = json!({"metadata": {"ownerReferences": [reference]}});
        ctx.strategic(&format!("{}/{name}", ctx.path("pods")), patch).await?;
    }
    ctx.delete_with(&waiting, json!({"propagationPolicy": "Foreground"})).await?;
    ctx.gone(&waiting).await?;
    let left = ctx.get(&pods).await?;
    anyhow::ensure!(count(&left) == 5, "the five with another owner expected: {left}");
    for pod in left["items"].as_array().into_iter().flatten() {
        anyhow::ensure!(pod["metadata"]["deletionTimestamp"].is_null(), "deleted all the same: {pod}");
        let owners = pod["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        anyhow::ensure!(owners.len() == 1 && owners[0]["name"] == "stays", "owners of {pod}");
    }
    Ok(())
}

pub(crate) async fn circle(ctx: Context) -> Outcome {
    let pods = ctx.path("pods");
    let mut uids = Vec::new();
    for name in ["pod1", "pod2", "pod3"] {
        let mut pod = pod_template("circle");
        pod["metadata"]["name"] = json!(name);
        uids.push(ctx.create(&pods, pod).await?["metadata"]["uid"].clone());
    }
    for (name, owner) in [("pod1", 2), ("pod2", 0), ("pod3", 1)] {
        let reference = json!({
            "apiVersion": "v1", "kind": "Pod", "name": format!("pod{}", owner + 1), "uid": uids[owner],
            "controller": true, "blockOwnerDeletion": true,
        });
        ctx.strategic(&format!("{pods}/{name}"), json!({"metadata": {"ownerReferences": [reference]}})).await?;
    }
    ctx.delete_with(&format!("{pods}/pod1"), json!({"propagationPolicy": "Foreground"})).await?;
    ctx.until_object("no pods", &pods, |list| count(list) == 0).await.map(drop)
}
