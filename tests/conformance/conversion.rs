//! Conversion between the versions of a custom resource by a webhook.

use serde_json::{Value, json};

use crate::Outcome;
use crate::context::Context;
use crate::custom::{definition, establish};
use crate::webhook::Server;

/// A definition of `hosts`: `v1` has `hostPort`, `v2` has `host` and `port`; the server converts.
pub(crate) fn two_versions(group: &str, hook: &Server, storage: &str, selectable: bool) -> Value {
    let string = || json!({"type": "string"});
    let one = json!({"type": "object", "properties": {"hostPort": string()}});
    let two = json!({"type": "object", "properties": {"host": string(), "port": string()}});
    let mut crd = definition(group, "hosts", "Host", Value::Null);
    let version = |name: &str, schema: Value, fields: &[&str]| {
        let mut version =
            json!({"name": name, "served": true, "storage": name == storage, "schema": {"openAPIV3Schema": schema}});
        if selectable {
            let fields: Vec<Value> = fields.iter().map(|field| json!({"jsonPath": format!(".{field}")})).collect();
            version["selectableFields"] = json!(fields);
        }
        version
    };
    crd["spec"]["versions"] = json!([version("v1", one, &["hostPort"]), version("v2", two, &["host", "port"])]);
    crd["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "clientConfig": hook.client_config("convert"), "conversionReviewVersions": ["v1"],
    }});
    crd
}

async fn served(ctx: &Context, path: &str) -> Outcome {
    ctx.until("the custom resource is served", || async {
        Ok((ctx.send("GET", path, "", Vec::new()).await?.code == 200).then_some(()))
    })
    .await
}

pub(crate) async fn one_to_two(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    let group = format!("{}.example.com", ctx.namespace);
    let crd = establish(&ctx, two_versions(&group, &hook, "v1", false)).await?;
    let (one, two) = (ctx.path(&format!("{group}/v1/hosts")), ctx.path(&format!("{group}/v2/hosts")));
    served(&ctx, &two).await?;
    let object = json!({"apiVersion": format!("{group}/v1"), "kind": "Host", "metadata": {"name": "a"}, "hostPort": "localhost:8080"});
    ctx.create(&one, object).await?;
    let read = ctx.get(&format!("{two}/a")).await?;
    anyhow::ensure!(read["host"] == "localhost" && read["port"] == "8080", "not converted: {read}");
    anyhow::ensure!(read["hostPort"].is_null() && read["apiVersion"] == format!("{group}/v2"), "not converted: {read}");
    ctx.delete(&crd).await.map(drop)
}

pub(crate) async fn mixed_list(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    let group = format!("{}.example.com", ctx.namespace);
    let crd = establish(&ctx, two_versions(&group, &hook, "v1", false)).await?;
    let (one, two) = (ctx.path(&format!("{group}/v1/hosts")), ctx.path(&format!("{group}/v2/hosts")));
    served(&ctx, &two).await?;
    let object = |name: &str| json!({"apiVersion": format!("{group}/v1"), "kind": "Host", "metadata": {"name": name}, "hostPort": "localhost:8080"});
    ctx.create(&one, object("a")).await?;
    let storage = json!({"spec": {"versions": two_versions(&group, &hook, "v2", false)["spec"]["versions"]}});
    ctx.merge(&crd, storage).await?;
    let both = |crd: &Value| crd["status"]["storedVersions"] == json!(["v1", "v2"]);
    ctx.until_object("both stored versions", &crd, both).await?;
    let object = json!({"apiVersion": format!("{group}/v2"), "kind": "Host", "metadata": {"name": "b"}, "host": "localhost", "port": "8080"});
    ctx.create(&two, object).await?;
    for (path, field, wanted) in [(&one, "hostPort", "localhost:8080"), (&two, "host", "localhost")] {
        let list = ctx.get(path).await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        anyhow::ensure!(items.len() == 2 && items.iter().all(|item| item[field] == wanted), "{field}: {list}");
    }
    ctx.delete(&crd).await.map(drop)
}
