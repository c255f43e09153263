//! Resource quotas: what they count, what they refuse, and their own life.

use serde_json::{Value, json};

use crate::Outcome;
use crate::cluster::IMAGE;
use crate::context::Context;

const QUOTA: &str = "test-quota";

fn quota_path(ctx: &Context, name: &str) -> String {
    format!("{}/{name}", ctx.path("resourcequotas"))
}

/// Makes a quota over everything that these tests count.
async fn general(ctx: &Context) -> Outcome {
    let hard = json!({
        "pods": "5", "cpu": "1", "memory": "500Mi", "requests.ephemeral-storage": "50Gi",
        "services": "10", "services.nodeports": "1", "services.loadbalancers": "1",
        "replicationcontrollers": "10", "resourcequotas": "1", "configmaps": "10", "secrets": "10",
        "persistentvolumeclaims": "10", "count/replicasets.apps": "5",
    });
    ctx.create(&ctx.path("resourcequotas"), json!({"metadata": {"name": QUOTA}, "spec": {"hard": hard}})).await?;
    used(ctx, QUOTA, json!({"resourcequotas": "1", "pods": "0", "services": "0"})).await
}

/// Waits until the quota's status has these used amounts, among others.
async fn used(ctx: &Context, name: &str, wanted: Value) -> Outcome {
    let same = |quota: &Value| {
        let amounts = wanted.as_object().into_iter().flatten();
        amounts.into_iter().all(|(resource, amount)| quota["status"]["used"][resource] == *amount)
    };
    ctx.until_object(&format!("quota {name} with {wanted} used"), &quota_path(ctx, name), same).await.map(drop)
}

/// A create that the quota refuses.
async fn exceeds(ctx: &Context, resource: &str, object: Value) -> Outcome {
    let status = ctx.refused(403, "POST", &ctx.path(resource), "application/json", object).await?;
    let message = status["message"].as_str().unwrap_or_default();
    anyhow::ensure!(message.contains("exceeded quota"), "refused for another reason: {status}");
    Ok(())
}

fn pod(name: &str, requests: Value, limits: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "box", "image": IMAGE, "command": ["sleep", "1000"], "resources": {"requests": requests, "limits": limits}}
    ]}})
}

pub(crate) async fn status_calculated(ctx: Context) -> Outcome {
    general(&ctx).await
}

pub(crate) async fn config_map(ctx: Context) -> Outcome {
    counted(&ctx, "configmaps", json!({"metadata": {"name": "counted"}, "data": {"a": "b"}})).await
}

pub(crate) async fn secret(ctx: Context) -> Outcome {
    counted(&ctx, "secrets", json!({"metadata": {"name": "counted"}, "stringData": {"a": "b"}})).await
}

/// One more is counted, and no more counted once it is gone.
async fn counted(ctx: &Context, resource: &str, object: Value) -> Outcome {
    // `kube-root-ca.crt` comes by itself; the quota must have seen what was there before.
    let root = format!("{}/kube-root-ca.crt", ctx.path("configmaps"));
    ctx.until_object("the root certificate", &root, |_| true).await?;
    let before = ctx.get(&ctx.path(resource)).await?["items"].as_array().map_or(0, Vec::len);
    general(ctx).await?;
    used(ctx, QUOTA, json!({resource: before.to_string()})).await?;
    ctx.create(&ctx.path(resource), object).await?;
    used(ctx, QUOTA, json!({resource: (before + 1).to_string()})).await?;
    ctx.delete(&format!("{}/counted", ctx.path(resource))).await?;
    used(ctx, QUOTA, json!({resource: before.to_string()})).await
}

pub(crate) async fn replica_set(ctx: Context) -> Outcome {
    general(&ctx).await?;
    let object = json!({"metadata": {"name": "counted"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "box", "image": IMAGE}]}}}});
    ctx.create(&ctx.path("apps/v1/replicasets"), object).await?;
    used(&ctx, QUOTA, json!({"count/replicasets.apps": "1"})).await?;
    ctx.delete(&format!("{}/counted", ctx.path("apps/v1/replicasets"))).await?;
    used(&ctx, QUOTA, json!({"count/replicasets.apps": "0"})).await
}

pub(crate) async fn replication_controller(ctx: Context) -> Outcome {
    general(&ctx).await?;
    let object = json!({"metadata": {"name": "counted"}, "spec": {"replicas": 0, "selector": {"a": "b"},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "box", "image": IMAGE}]}}}});
    ctx.create(&ctx.path("replicationcontrollers"), object).await?;
    used(&ctx, QUOTA, json!({"replicationcontrollers": "1"})).await?;
    ctx.delete(&format!("{}/counted", ctx.path("replicationcontrollers"))).await?;
    used(&ctx, QUOTA, json!({"replicationcontrollers": "0"})).await
}

pub(crate) async fn service(ctx: Context) -> Outcome {
    general(&ctx).await?;
    let services = ctx.path("services");
    let make =
        |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    ctx.create(&services, make("inside", "ClusterIP")).await?;
    used(&ctx, QUOTA, json!({"services": "1", "services.nodeports": "0", "services.loadbalancers": "0"})).await?;
    ctx.create(&services, make("on-nodes", "NodePort")).await?;
    used(&ctx, QUOTA, json!({"services": "2", "services.nodeports": "1", "services.loadbalancers": "0"})).await?;
    // A load balancer has a node port of its own: one too many.
    exceeds(&ctx, "services", make("balanced", "LoadBalancer")).await?;
    ctx.delete(&format!("{services}/on-nodes")).await?;
    used(&ctx, QUOTA, json!({"services": "1", "services.nodeports": "0"})).await?;
    ctx.delete(&format!("{services}/inside")).await?;
    used(&ctx, QUOTA, json!({"services": "0"})).await
}

pub(crate) async fn pod_life(ctx: Context) -> Outcome {
    general(&ctx).await?;
    let small = json!({"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi"});
    ctx.create(&ctx.path("pods"), pod("first", small, json!(null))).await?;
    let with = json!({"pods": "1", "cpu": "500m", "memory": "252Mi", "requests.ephemeral-storage": "30Gi"});
    used(&ctx, QUOTA, with.clone()).await?;
    exceeds(&ctx, "pods", pod("second", json!({"cpu": "600m", "memory": "100Mi"}), json!(null))).await?;
    let big = json!({"cpu": "100m", "memory": "100Mi", "ephemeral-storage": "30Gi"});
    exceeds(&ctx, "pods", pod("third", big, json!(null))).await?;
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    ctx.merge(&format!("{}/first", ctx.path("pods")), labels).await?;
    used(&ctx, QUOTA, with).await?;
    ctx.delete_with(&format!("{}/first", ctx.path("pods")), json!({"gracePeriodSeconds": 0})).await?;
    used(&ctx, QUOTA, json!({"pods": "0", "cpu": "0", "memory": "0", "requests.ephemeral-storage": "0"})).await
}

/// Two quotas by opposite scopes; of each pod one of them knows.
async fn scoped(ctx: &Context, scopes: [&str; 2], hard: Value, pods: [Value; 2], counted: Value) -> Outcome {
    for scope in scopes {
        let quota = json!({"metadata": {"name": scope.to_lowercase()}, "spec": {"hard": hard, "scopes": [scope]}});
        ctx.create(&ctx.path("resourcequotas"), quota).await?;
        used(ctx, &scope.to_lowercase(), json!({"pods": "0"})).await?;
    }
    for (index, pod) in pods.into_iter().enumerate() {
        let (mine, other) = (scopes[index].to_lowercase(), scopes[1 - index].to_lowercase());
        let path = format!("{}/{}", ctx.path("pods"), pod["metadata"]["name"].as_str().unwrap_or_default());
        ctx.create(&ctx.path("pods"), pod).await?;
        used(ctx, &mine, counted.clone()).await?;
        used(ctx, &other, json!({"pods": "0"})).await?;
        ctx.delete_with(&path, json!({"gracePeriodSeconds": 0})).await?;
        used(ctx, &mine, json!({"pods": "0"})).await?;
    }
    Ok(())
}

pub(crate) async fn best_effort(ctx: Context) -> Outcome {
    let some = json!({"cpu": "100m", "memory": "20Mi"});
    let pods = [pod("none", json!(null), json!(null)), pod("some", some.clone(), some)];
    scoped(&ctx, ["BestEffort", "NotBestEffort"], json!({"pods": "5"}), pods, json!({"pods": "1"})).await
}

pub(crate) async fn terminating(ctx: Context) -> Outcome {
    let hard = json!({"pods": "5", "requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2", "limits.memory": "1Gi"});
    let (requests, limits) = (json!({"cpu": "100m", "memory": "50Mi"}), json!({"cpu": "200m", "memory": "100Mi"}));
    let mut ends = pod("ends", requests.clone(), limits.clone());
    ends["spec"]["activeDeadlineSeconds"] = json!(3_600);
    let pods = [ends, pod("stays", requests, limits)];
    let counted = json!({
        "pods": "1", "requests.cpu": "100m", "requests.memory": "50Mi", "limits.cpu": "200m", "limits.memory": "100Mi"
    });
    scoped(&ctx, ["Terminating", "NotTerminating"], hard, pods, counted).await
}

pub(crate) async fn update_delete(ctx: Context) -> Outcome {
    let path = quota_path(&ctx, QUOTA);
    let quota = json!({"metadata": {"name": QUOTA}, "spec": {"hard": {"cpu": "1", "memory": "500Mi"}}});
    ctx.create(&ctx.path("resourcequotas"), quota).await?;
    let mut now = ctx.get(&path).await?;
    anyhow::ensure!(now["spec"]["hard"] == json!({"cpu": "1", "memory": "500Mi"}), "another quota: {now}");
    now["spec"]["hard"] = json!({"cpu": "2", "memory": "1Gi"});
    ctx.update(&path, now).await?;
    let now = ctx.get(&path).await?;
    anyhow::ensure!(now["spec"]["hard"] == json!({"cpu": "2", "memory": "1Gi"}), "not updated: {now}");
    ctx.delete(&path).await?;
    ctx.gone(&path).await
}

pub(crate) async fn lifecycle(ctx: Context) -> Outcome {
    let path = quota_path(&ctx, QUOTA);
    let labels = json!({QUOTA: ctx.namespace});
    let quota =
        json!({"metadata": {"name": QUOTA, "labels": labels}, "spec": {"hard": {"cpu": "1", "memory": "500Mi"}}});
    ctx.create(&ctx.path("resourcequotas"), quota).await?;
    let everywhere = format!("/api/v1/resourcequotas?labelSelector={QUOTA}%3D{}", ctx.namespace);
    let all = ctx.get(&everywhere).await?;
    anyhow::ensure!(all["items"].as_array().map(Vec::len) == Some(1), "one expected: {all}");
    let patch = json!({"metadata": {"labels": {"patched": "yes"}}, "spec": {"hard": {"memory": "750Mi"}}});
    let patched = ctx.strategic(&path, patch).await?;
    anyhow::ensure!(patched["spec"]["hard"]["memory"] == "750Mi", "not patched: {patched}");
    anyhow::ensure!(patched["metadata"]["labels"]["patched"] == "yes", "not patched: {patched}");
    ctx.delete(&format!("{}?labelSelector={QUOTA}%3D{}", ctx.path("resourcequotas"), ctx.namespace)).await?;
    ctx.until_object("an empty list", &everywhere, |list| list["items"] == json!([])).await.map(drop)
}

pub(crate) async fn status_changes(ctx: Context) -> Outcome {
    let (path, hard) = (quota_path(&ctx, QUOTA), json!({"cpu": "500m", "memory": "500Mi"}));
    let quota = json!({"metadata": {"name": QUOTA}, "spec": {"hard": hard}});
    ctx.create(&ctx.path("resourcequotas"), quota).await?;
    let calculated = |quota: &Value| quota["status"]["hard"] == hard;
    ctx.until_object("a calculated status", &path, calculated).await?;
    let mut now = ctx.get(&path).await?;
    now["spec"]["hard"] = json!({"cpu": "1", "memory": "1Gi"});
    ctx.update(&path, now).await?;
    let grown = |quota: &Value| quota["status"]["hard"] == json!({"cpu": "1", "memory": "1Gi"});
    ctx.until_object("the grown status", &path, grown).await?;
    // What the status says is replaced by what is true, by and by.
    let status = format!("{path}/status");
    let mut wrong = ctx.get(&status).await?;
    wrong["status"]["hard"] = json!({"cpu": "200m", "memory": "1Gi"});
    let written = ctx.update(&status, wrong).await?;
    anyhow::ensure!(written["status"]["hard"]["cpu"] == "200m", "not written: {written}");
    ctx.until_object("the true status", &path, grown).await.map(drop)
}
