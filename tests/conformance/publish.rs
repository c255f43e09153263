//! OpenAPI of custom resources: published, changed, taken back; and what kubectl makes of it.

use serde_json::{Value, json};

use crate::Outcome;
use crate::context::Context;
use crate::custom::{definition, establish};

/// The name of a definition in OpenAPI v2: the group backwards, version, kind.
fn defined_as(group: &str, version: &str, kind: &str) -> String {
    let backwards: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", backwards.join("."))
}

/// Waits until OpenAPI v2 has (or lacks) a definition as wanted.
async fn published(ctx: &Context, name: &str, wanted: impl Fn(&Value) -> bool) -> Outcome {
    ctx.until(&format!("{name} in OpenAPI"), || async {
        let document = ctx.get("/openapi/v2").await?;
        Ok(wanted(&document["definitions"][name]).then_some(()))
    })
    .await
}

fn schema() -> Value {
    json!({"type": "object", "description": "Foo CRD for Testing", "properties": {
        "spec": {"type": "object", "description": "Specification of Foo", "properties": {
            "bars": {"type": "array", "description": "List of Bars and their specs.", "items": {
                "type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string", "description": "Name of Bar."},
                    "age": {"type": "string", "description": "Age of Bar."},
                    "feeling": {"type": "string", "description": "Whether Bar is feeling great.", "enum": ["Great", "Down"]},
                    "bazs": {"type": "array", "description": "List of Bazs.", "items": {"type": "string"}},
                }}},
        }},
        "status": {"type": "object", "description": "Status of Foo", "properties": {
            "available": {"type": "boolean", "description": "Whether it is there."},
        }},
    }})
}

fn object(group: &str, spec: Value) -> String {
    json!({"apiVersion": format!("{group}/v1"), "kind": "Foo", "metadata": {"name": "test-cr"}, "spec": spec})
        .to_string()
}

/// `kubectl` must refuse the manifest with this text.
async fn refuses(ctx: &Context, verb: &str, manifest: &str, wanted: &str) -> Outcome {
    match ctx.kubectl_with(&[verb, "--validate=true", "-f", "-"], manifest).await {
        Ok(text) => anyhow::bail!("{verb} was accepted: {text}"),
        Err(error) => {
            let text = error.to_string();
            anyhow::ensure!(text.contains(wanted), "{wanted:?} is missing in {text}");
            Ok(())
        }
    }
}

async fn accepts(ctx: &Context, manifest: &str) -> Outcome {
    ctx.kubectl_with(&["create", "--validate=true", "-f", "-"], manifest).await?;
    ctx.kubectl_with(&["delete", "-f", "-"], manifest).await?;
    ctx.kubectl_with(&["apply", "--validate=true", "-f", "-"], manifest).await?;
    ctx.kubectl_with(&["delete", "-f", "-"], manifest).await.map(drop)
}

async fn foos(ctx: &Context, schema: Value) -> anyhow::Result<(String, String)> {
    let group = format!("{}.example.com", ctx.namespace);
    let crd = establish(ctx, definition(&group, "foos", "Foo", schema)).await?;
    published(ctx, &defined_as(&group, "v1", "Foo"), Value::is_object).await?;
    Ok((group, crd))
}

pub(crate) async fn with_schema(ctx: Context) -> Outcome {
    let (group, crd) = foos(&ctx, schema()).await?;
    if ctx.cluster().kubectl {
        let good = json!({"bars": [{"name": "test-bar", "age": "10", "feeling": "Great"}]});
        accepts(&ctx, &object(&group, good)).await?;
        let unknown = object(&group, json!({"foo": true}));
        refuses(&ctx, "create", &unknown, "unknown field").await?;
        refuses(&ctx, "apply", &unknown, "unknown field").await?;
        let missing = object(&group, json!({"bars": [{"age": "10"}]}));
        refuses(&ctx, "create", &missing, "spec.bars[0].name: Required value").await?;
        refuses(
            &ctx,
            "create",
            &object(&group, json!({"bars": [{"name": "a", "feeling": "Blue"}]})),
            "Unsupported value: \"Blue\"",
        )
        .await?;
        let explained = ctx.kubectl(&["explain", &format!("foos.{group}")]).await?;
        anyhow::ensure!(explained.contains("Foo CRD for Testing"), "not explained: {explained}");
        let explained = ctx.kubectl(&["explain", &format!("foos.{group}.spec.bars")]).await?;
        anyhow::ensure!(explained.contains("List of Bars and their specs."), "not explained: {explained}");
        let nothing = ctx.kubectl(&["explain", &format!("foos.{group}.spec.bars2")]).await;
        anyhow::ensure!(nothing.is_err(), "a field that is not there was explained");
    }
    ctx.delete(&crd).await?;
    published(&ctx, &defined_as(&group, "v1", "Foo"), Value::is_null).await
}

pub(crate) async fn without_schema(ctx: Context) -> Outcome {
    preserving(
        &ctx,
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        json!({"a": null, "b": [{"c": "d"}]}),
    )
    .await
}

pub(crate) async fn preserving_root(ctx: Context) -> Outcome {
    let mut schema = schema();
    schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    schema["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] = json!(true);
    preserving(&ctx, schema, json!({"b": [{"c": "d"}]})).await
}

pub(crate) async fn preserving_embedded(ctx: Context) -> Outcome {
    let schema = json!({"type": "object", "description": "preserve-unknown-properties in nested field for Testing", "properties": {
        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": "Specification of Waldo"},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": "Status of Waldo"},
    }});
    preserving(&ctx, schema, json!({"a": {"b": [{"c": "d"}]}})).await
}

/// Unknown fields pass kubectl's validation, and there is something to explain.
async fn preserving(ctx: &Context, schema: Value, spec: Value) -> Outcome {
    let (group, crd) = foos(ctx, schema).await?;
    if ctx.cluster().kubectl {
        accepts(ctx, &object(&group, spec)).await?;
        let explained = ctx.kubectl(&["explain", &format!("foos.{group}")]).await?;
        anyhow::ensure!(explained.contains("KIND:") && explained.contains("Foo"), "not explained: {explained}");
    }
    ctx.delete(&crd).await.map(drop)
}

/// A definition of one kind in several versions.
fn versions(group: &str, plural: &str, kind: &str, names: &[(&str, bool)]) -> Value {
    let mut crd = definition(group, plural, kind, Value::Null);
    let versions = names.iter().enumerate().map(|(index, (name, served))| {
        json!({"name": name, "served": served, "storage": index == 0, "schema": {"openAPIV3Schema": schema()}})
    });
    crd["spec"]["versions"] = versions.collect();
    crd
}

pub(crate) async fn groups(ctx: Context) -> Outcome {
    let mut made = Vec::new();
    for part in ["one", "two"] {
        let group = format!("{part}.{}.example.com", ctx.namespace);
        made.push(establish(&ctx, versions(&group, "foos", "Foo", &[("v1", true)])).await?);
        published(&ctx, &defined_as(&group, "v1", "Foo"), Value::is_object).await?;
    }
    for crd in made {
        ctx.delete(&crd).await?;
    }
    Ok(())
}

pub(crate) async fn several_versions(ctx: Context) -> Outcome {
    let group = format!("{}.example.com", ctx.namespace);
    let crd = establish(&ctx, versions(&group, "foos", "Foo", &[("v2", true), ("v3", true)])).await?;
    published(&ctx, &defined_as(&group, "v2", "Foo"), Value::is_object).await?;
    published(&ctx, &defined_as(&group, "v3", "Foo"), Value::is_object).await?;
    ctx.delete(&crd).await.map(drop)
}

pub(crate) async fn kinds(ctx: Context) -> Outcome {
    let group = format!("{}.example.com", ctx.namespace);
    let foos = establish(&ctx, versions(&group, "foos", "Foo", &[("v1", true)])).await?;
    let bars = establish(&ctx, versions(&group, "bars", "Bar", &[("v1", true)])).await?;
    published(&ctx, &defined_as(&group, "v1", "Foo"), Value::is_object).await?;
    published(&ctx, &defined_as(&group, "v1", "Bar"), Value::is_object).await?;
    ctx.delete(&foos).await?;
    ctx.delete(&bars).await.map(drop)
}

pub(crate) async fn renamed(ctx: Context) -> Outcome {
    let group = format!("{}.example.com", ctx.namespace);
    let crd = establish(&ctx, versions(&group, "foos", "Foo", &[("v2", true), ("v3", true)])).await?;
    published(&ctx, &defined_as(&group, "v3", "Foo"), Value::is_object).await?;
    let patch = json!({"spec": {"versions": versions(&group, "foos", "Foo", &[("v2", true), ("v4", true)])["spec"]["versions"]}});
    ctx.merge(&crd, patch).await?;
    published(&ctx, &defined_as(&group, "v4", "Foo"), Value::is_object).await?;
    published(&ctx, &defined_as(&group, "v3", "Foo"), Value::is_null).await?;
    published(&ctx, &defined_as(&group, "v2", "Foo"), Value::is_object).await?;
    ctx.delete(&crd).await.map(drop)
}

pub(crate) async fn unserved(ctx: Context) -> Outcome {
    let group = format!("{}.example.com", ctx.namespace);
    let crd = establish(&ctx, versions(&group, "foos", "Foo", &[("v5", true), ("v6alpha1", true)])).await?;
    published(&ctx, &defined_as(&group, "v6alpha1", "Foo"), Value::is_object).await?;
    let patch = json!({"spec": {"versions": versions(&group, "foos", "Foo", &[("v5", true), ("v6alpha1", false)])["spec"]["versions"]}});
    ctx.merge(&crd, patch).await?;
    published(&ctx, &defined_as(&group, "v6alpha1", "Foo"), Value::is_null).await?;
    published(&ctx, &defined_as(&group, "v5", "Foo"), Value::is_object).await?;
    ctx.delete(&crd).await.map(drop)
}
