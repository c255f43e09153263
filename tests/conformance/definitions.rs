//! Custom resource definitions: their own life, defaults, field selectors.

use serde_json::{Value, json};

use crate::Outcome;
use crate::context::{Context, version};
use crate::custom::{define, definition, establish};
use crate::lifecycle::find;

const ALL: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn anything(group: &str, plural: &str, kind: &str) -> Value {
    definition(group, plural, kind, json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))
}

pub(crate) async fn create_delete(ctx: Context) -> Outcome {
    let group = format!("{}.example.com", ctx.namespace);
    let crd = define(&ctx, &group, "tests", "Test").await?;
    ctx.delete(&crd).await?;
    ctx.gone(&crd).await
}

pub(crate) async fn list(ctx: Context) -> Outcome {
    let group = format!("{}.example.com", ctx.namespace);
    let selected = format!("{ALL}?labelSelector=e2e-list%3D{}", ctx.namespace);
    for index in 0..10 {
        let mut crd = anything(&group, &format!("tests{index}"), &format!("Test{index}"));
        crd["metadata"]["labels"] = json!({"e2e-list": ctx.namespace});
        ctx.create(ALL, crd).await?;
    }
    let other = define(&ctx, &group, "others", "Other").await?;
    let listed = ctx.get(&selected).await?;
    anyhow::ensure!(listed["items"].as_array().map(Vec::len) == Some(10), "ten expected: {listed}");
    ctx.delete(&selected).await?;
    ctx.until_object("an empty list", &selected, |list| list["items"] == json!([])).await?;
    ctx.get(&other).await?;
    ctx.delete(&other).await.map(drop)
}

pub(crate) async fn status(ctx: Context) -> Outcome {
    let group = format!("{}.example.com", ctx.namespace);
    let crd = define(&ctx, &group, "tests", "Test").await?;
    let path = format!("{crd}/status");
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "set by a test", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let mut now = ctx.get(&path).await?;
    let conditions = now["status"]["conditions"].as_array_mut().ok_or_else(|| anyhow::anyhow!("no conditions"))?;
    conditions.push(condition("StatusUpdate"));
    let updated = ctx.update(&path, now).await?;
    find(&updated["status"]["conditions"], "type", "StatusUpdate")?;
    let patch = json!([{"op": "add", "path": "/status/conditions/-", "value": condition("StatusPatched")}]);
    let answer = ctx.send("PATCH", &path, "application/json-patch+json", serde_json::to_vec(&patch)?).await?;
    anyhow::ensure!(answer.code == 200, "{}: {}", answer.code, answer.text);
    let read = ctx.get(&path).await?;
    find(&read["status"]["conditions"], "type", "StatusUpdate")?;
    find(&read["status"]["conditions"], "type", "StatusPatched")?;
    ctx.delete(&crd).await.map(drop)
}

pub(crate) async fn in_discovery(ctx: Context) -> Outcome {
    let groups = ctx.get("/apis").await?;
    let group = find(&groups["groups"], "name", "apiextensions.k8s.io")?;
    find(&group["versions"], "groupVersion", "apiextensions.k8s.io/v1")?;
    let group = ctx.get("/apis/apiextensions.k8s.io").await?;
    find(&group["versions"], "version", "v1")?;
    let resources = ctx.get("/apis/apiextensions.k8s.io/v1").await?;
    find(&resources["resources"], "name", "customresourcedefinitions").map(drop)
}

pub(crate) async fn watched(ctx: Context) -> Outcome {
    let group = format!("{}.example.com", ctx.namespace);
    let crd = define(&ctx, &group, "noxus", "Noxu").await?;
    let path = ctx.path(&format!("{group}/v1/noxus"));
    let from = ctx
        .until("the custom resource is served", || async {
            let answer = ctx.send("GET", &path, "", Vec::new()).await?;
            Ok((answer.code == 200).then(|| version(&answer.body).to_owned()))
        })
        .await?;
    let mut watch = ctx.watch(&path, &format!("&resourceVersion={from}")).await?;
    for name in ["name1", "name2"] {
        let object = json!({"apiVersion": format!("{group}/v1"), "kind": "Noxu", "metadata": {"name": name}, "num": {"num1": 1}});
        ctx.create(&path, object).await?;
        watch.expect("ADDED", name).await?;
    }
    for name in ["name1", "name2"] {
        ctx.merge(&format!("{path}/{name}"), json!({"dummy": "test"})).await?;
        watch.expect("MODIFIED", name).await?;
    }
    for name in ["name1", "name2"] {
        ctx.delete(&format!("{path}/{name}")).await?;
        watch.expect("DELETED", name).await?;
    }
    ctx.delete(&crd).await.map(drop)
}

fn two_defaults(group: &str, a: Option<&str>, b: Option<&str>) -> Value {
    let field = |default: Option<&str>| match default {
        Some(default) => json!({"type": "string", "default": default}),
        None => json!({"type": "string"}),
    };
    definition(group, "noxus", "Noxu", json!({"type": "object", "properties": {"a": field(a), "b": field(b)}}))
}

pub(crate) async fn defaults(ctx: Context) -> Outcome {
    let group = format!("{}.example.com", ctx.namespace);
    let crd = establish(&ctx, two_defaults(&group, None, None)).await?;
    let path = ctx.path(&format!("{group}/v1/noxus"));
    let make = |name: &str| json!({"apiVersion": format!("{group}/v1"), "kind": "Noxu", "metadata": {"name": name}});
    ctx.until("the custom resource is served", || async {
        Ok((ctx.send("GET", &path, "", Vec::new()).await?.code == 200).then_some(()))
    })
    .await?;
    let first = ctx.create(&path, make("first")).await?;
    anyhow::ensure!(first["a"].is_null() && first["b"].is_null(), "a default out of nowhere: {first}");

    ctx.merge(&crd, json!({"spec": two_defaults(&group, Some("A"), None)["spec"]})).await?;
    let a = |object: &Value| object["a"] == "A";
    ctx.until_object("the default of a on what is stored", &format!("{path}/first"), a).await?;
    let second = ctx.create(&path, make("second")).await?;
    anyhow::ensure!(second["a"] == "A", "no default in a request: {second}");

    ctx.merge(&crd, json!({"spec": two_defaults(&group, None, Some("B"))["spec"]})).await?;
    let b = |object: &Value| object["b"] == "B";
    let second = ctx.until_object("the default of b on what is stored", &format!("{path}/second"), b).await?;
    anyhow::ensure!(second["a"] == "A", "a default that was stored is gone: {second}");
    let first = ctx.get(&format!("{path}/first")).await?;
    anyhow::ensure!(first["a"].is_null() && first["b"] == "B", "a default that is gone was kept: {first}");
    ctx.delete(&crd).await.map(drop)
}

pub(crate) async fn field_selectors(ctx: Context) -> Outcome {
    let hook = crate::webhook::Server::start().await?;
    let group = format!("{}.example.com", ctx.namespace);
    let crd = establish(&ctx, crate::conversion::two_versions(&group, &hook, "v1", true)).await?;
    let (one, two) = (ctx.path(&format!("{group}/v1/hosts")), ctx.path(&format!("{group}/v2/hosts")));
    ctx.until("both versions are served", || async {
        Ok((ctx.send("GET", &two, "", Vec::new()).await?.code == 200).then_some(()))
    })
    .await?;
    for (name, host) in [("a", "host1:80"), ("b", "host2:8080"), ("c", "host1:8080")] {
        let object =
            json!({"apiVersion": format!("{group}/v1"), "kind": "Host", "metadata": {"name": name}, "hostPort": host});
        ctx.create(&one, object).await?;
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let listed = ctx.get(&format!("{two}?fieldSelector=host%3Dhost1")).await?;
    anyhow::ensure!(names(&listed) == ["a", "c"], "by host: {listed}");
    let listed = ctx.get(&format!("{two}?fieldSelector=host%3Dhost1,port%3D80")).await?;
    anyhow::ensure!(names(&listed) == ["a"], "by host and port: {listed}");
    let listed = ctx.get(&format!("{one}?fieldSelector=hostPort%3Dhost2:8080")).await?;
    anyhow::ensure!(names(&listed) == ["b"], "by hostPort: {listed}");
    let mut watch =
        ctx.watch(&two, &format!("&fieldSelector=host%3Dhost2&resourceVersion={}", version(&listed))).await?;
    ctx.merge(&format!("{two}/a"), json!({"host": "host2"})).await?;
    watch.expect("ADDED", "a").await?;
    ctx.merge(&format!("{two}/b"), json!({"host": "host3"})).await?;
    watch.expect("DELETED", "b").await?;
    ctx.delete(&format!("{two}?fieldSelector=host%3Dhost2")).await?;
    watch.expect("DELETED", "a").await?;
    let left = ctx.get(&two).await?;
    anyhow::ensure!(names(&left) == ["b", "c"], "deleted by selector: {left}");
    ctx.delete(&crd).await.map(drop)
}
