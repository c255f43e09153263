//! Custom resource definitions for tests.

use serde_json::{Value, json};

use crate::context::Context;

/// A definition of a namespaced kind with the schema, one version `v1`.
pub(crate) fn definition(group: &str, plural: &str, kind: &str, schema: Value) -> Value {
    json!({
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// Makes a definition that keeps everything and waits until it is established; gives its path.
pub(crate) async fn define(ctx: &Context, group: &str, plural: &str, kind: &str) -> anyhow::Result<String> {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    establish(ctx, definition(group, plural, kind, schema)).await
}

/// Creates a definition and waits until it is established; gives its path.
pub(crate) async fn establish(ctx: &Context, definition: Value) -> anyhow::Result<String> {
    const ALL: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let created = ctx.create(ALL, definition).await?;
    let path = format!("{ALL}/{}", created["metadata"]["name"].as_str().unwrap_or_default());
    let established = |crd: &Value| {
        let conditions = crd["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|one| one["type"] == "Established" && one["status"] == "True")
    };
    ctx.until_object("an established definition", &path, established).await?;
    Ok(path)
}
