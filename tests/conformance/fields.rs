//! Field validation: unknown and duplicate fields are refused when the client asks for it.

use serde_json::{Value, json};

use crate::Outcome;
use crate::context::Context;
use crate::custom::{self, definition};

const STRICT: &str = "fieldValidation=Strict";

/// Sends YAML or JSON text that must be refused, with all of these parts in the message.
async fn strict(ctx: &Context, method: &str, path: &str, body: &str, wanted: &[&str]) -> Outcome {
    let (content_type, query) = match method {
        "PATCH" => ("application/apply-patch+yaml", format!("{STRICT}&fieldManager=strict")),
        _ => ("application/yaml", STRICT.to_owned()),
    };
    let answer = ctx.send(method, &format!("{path}?{query}"), content_type, body.as_bytes().to_vec()).await?;
    let message = answer.body["message"].as_str().unwrap_or_default();
    anyhow::ensure!(answer.code == 400 || answer.code == 422 || answer.code == 500, "accepted: {}", answer.text);
    for part in wanted {
        anyhow::ensure!(message.contains(part), "{part:?} is missing in {message:?}");
    }
    Ok(())
}

/// Sends text that must be accepted.
async fn accepted(ctx: &Context, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
    let (content_type, query) = match method {
        "PATCH" => ("application/apply-patch+yaml", format!("{STRICT}&fieldManager=strict&force=true")),
        _ => ("application/yaml", STRICT.to_owned()),
    };
    let answer = ctx.send(method, &format!("{path}?{query}"), content_type, body.as_bytes().to_vec()).await?;
    anyhow::ensure!(matches!(answer.code, 200 | 201), "{method} {path}: {} {}", answer.code, answer.text);
    Ok(answer.body)
}

fn deployment(extra: &str, metadata: &str) -> String {
    format!(
        "{{\"apiVersion\": \"apps/v1\", \"kind\": \"Deployment\", \"metadata\": {{\"name\": \"strict\"{metadata}}}, \"spec\": {{{extra}\
         \"replicas\": 1, \"selector\": {{\"matchLabels\": {{\"app\": \"strict\"}}}}, \"template\": {{\"metadata\": \
         {{\"labels\": {{\"app\": \"strict\"}}}}, \"spec\": {{\"containers\": [{{\"name\": \"a\", \"image\": \"a\"}}]}}}}}}}}"
    )
}

pub(crate) async fn typed(ctx: Context) -> Outcome {
    let path = ctx.path("apps/v1/deployments");
    let bad = deployment(
        "\"unknown1\": \"val1\", \"unknownDupe\": \"a\", \"unknownDupe\": \"b\", \"paused\": true, \"paused\": false, ",
        "",
    );
    let wanted = ["strict decoding error", "unknown field \"spec.unknown1\"", "unknown field \"spec.unknownDupe\""];
    let json = [("content-type", "application/json")];
    let answer = ctx.send_with("POST", &format!("{path}?{STRICT}"), &json, bad.clone().into_bytes()).await?;
    let message = answer.body["message"].as_str().unwrap_or_default();
    anyhow::ensure!(answer.code == 400, "{} {message}", answer.code);
    for part in wanted.iter().chain(&["duplicate field \"spec.paused\""]) {
        anyhow::ensure!(message.contains(part), "{part:?} is missing in {message:?}");
    }
    // YAML finds the duplicate while it parses.
    strict(&ctx, "POST", &path, "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: strict\nspec:\n  paused: true\n  paused: false\n  unknown1: val1\n", &["paused"]).await?;
    strict(
        &ctx,
        "PATCH",
        &format!("{path}/strict"),
        &deployment("\"unknown1\": \"val1\", ", ""),
        &[".spec.unknown1: field not declared in schema"],
    )
    .await?;
    accepted(&ctx, "PATCH", &format!("{path}/strict"), &deployment("", "")).await.map(drop)
}

pub(crate) async fn typed_metadata(ctx: Context) -> Outcome {
    let path = ctx.path("apps/v1/deployments");
    let bad = deployment("", ", \"unknownMeta\": \"foo\"");
    strict(&ctx, "POST", &path, &bad, &["strict decoding error", "unknown field \"metadata.unknownMeta\""]).await?;
    let path = format!("{path}/strict");
    strict(&ctx, "PATCH", &path, &bad, &[".metadata.unknownMeta: field not declared in schema"]).await
}

/// A definition with a schema of `spec.foo`, `spec.ports` and an embedded object.
fn with_schema(group: &str, preserve: bool) -> Value {
    let mut schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "foo": {"type": "string"},
        "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
            "items": {"type": "object", "required": ["containerPort", "protocol"], "properties": {
                "containerPort": {"type": "integer", "format": "int32"}, "hostIP": {"type": "string"},
                "name": {"type": "string"}, "protocol": {"type": "string"}}}},
        "embeddedObj": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}},
    }}}});
    if preserve {
        schema["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] = json!(true);
    }
    definition(group, "noxus", "Noxu", schema)
}

async fn noxus(ctx: &Context, preserve: bool) -> anyhow::Result<(String, String, String)> {
    let group = format!("{}.example.com", ctx.namespace);
    let crd = custom::establish(ctx, with_schema(&group, preserve)).await?;
    let path = ctx.path(&format!("{group}/v1/noxus"));
    ctx.until("the custom resource is served", || async {
        Ok((ctx.send("GET", &path, "", Vec::new()).await?.code == 200).then_some(()))
    })
    .await?;
    Ok((group, crd, path))
}

fn noxu(group: &str, spec: &str, metadata: &str) -> String {
    format!(
        "{{\"apiVersion\": \"{group}/v1\", \"kind\": \"Noxu\", \"metadata\": {{\"name\": \"mytest\"{metadata}}}, \"spec\": {{{spec}}}}}"
    )
}

const VALID: &str = "\"cronSpec\": \"* * * * */5\", \"foo\": \"foo1\", \"ports\": [{\"name\": \"x\", \"containerPort\": 8080, \"protocol\": \"TCP\"}]";

pub(crate) async fn custom_valid(ctx: Context) -> Outcome {
    let (group, crd, path) = noxus(&ctx, false).await?;
    let made = accepted(
        &ctx,
        "PATCH",
        &format!("{path}/mytest"),
        &noxu(&group, VALID, ", \"finalizers\": [\"test-finalizer/finalizer\"]"),
    )
    .await?;
    anyhow::ensure!(made["spec"]["foo"] == "foo1", "not as applied: {made}");
    ctx.merge(&format!("{path}/mytest"), json!({"metadata": {"finalizers": null}})).await?;
    ctx.delete(&crd).await.map(drop)
}

pub(crate) async fn custom_extra(ctx: Context) -> Outcome {
    let (group, crd, path) = noxus(&ctx, false).await?;
    let bad = noxu(&group, &format!("\"extraProperty\": \"arbitrary-value\", {VALID}"), "");
    strict(&ctx, "PATCH", &format!("{path}/mytest"), &bad, &[".spec.extraProperty: field not declared in schema"])
        .await?;
    strict(&ctx, "POST", &path, &bad, &["strict decoding error", "unknown field \"spec.extraProperty\""]).await?;
    ctx.delete(&crd).await.map(drop)
}

pub(crate) async fn custom_no_schema(ctx: Context) -> Outcome {
    let group = format!("{}.example.com", ctx.namespace);
    let crd = custom::define(&ctx, &group, "noxus", "Noxu").await?;
    let path = ctx.path(&format!("{group}/v1/noxus"));
    ctx.until("the custom resource is served", || async {
        Ok((ctx.send("GET", &path, "", Vec::new()).await?.code == 200).then_some(()))
    })
    .await?;
    let made =
        accepted(&ctx, "PATCH", &format!("{path}/mytest"), &noxu(&group, "\"unknown\": \"uk1\", \"foo\": \"bar\"", ""))
            .await?;
    anyhow::ensure!(made["spec"]["unknown"] == "uk1", "an unknown field was lost: {made}");
    ctx.delete(&crd).await.map(drop)
}

pub(crate) async fn custom_duplicates(ctx: Context) -> Outcome {
    let (group, crd, path) = noxus(&ctx, true).await?;
    let bad = noxu(&group, "\"unknownField\": \"ok\", \"foo\": \"a\", \"foo\": \"b\"", "");
    let json = [("content-type", "application/json")];
    let answer = ctx.send_with("POST", &format!("{path}?{STRICT}"), &json, bad.into_bytes()).await?;
    let message = answer.body["message"].as_str().unwrap_or_default();
    anyhow::ensure!(
        answer.code == 400 && message.contains("duplicate field \"spec.foo\""),
        "{} {message}",
        answer.code
    );
    anyhow::ensure!(!message.contains("unknownField"), "a field that is kept was refused: {message}");
    ctx.delete(&crd).await.map(drop)
}

pub(crate) async fn custom_metadata(ctx: Context) -> Outcome {
    let (group, crd, path) = noxus(&ctx, true).await?;
    let embedded = "\"embeddedObj\": {\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"my-cm\", \"unknownSubMeta\": \"unknown\"}}";
    let bad = noxu(&group, embedded, ", \"unknownMeta\": \"unknown\"");
    strict(
        &ctx,
        "POST",
        &path,
        &bad,
        &["unknown field \"metadata.unknownMeta\"", "unknown field \"spec.embeddedObj.metadata.unknownSubMeta\""],
    )
    .await?;
    ctx.delete(&crd).await.map(drop)
}
