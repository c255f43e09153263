//! Admission policies in CEL: what they refuse and what they change.

use serde_json::{Value, json};

use crate::Outcome;
use crate::cluster::IMAGE;
use crate::context::Context;
use crate::lifecycle::Resource;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

fn deployment(name: &str, replicas: u32) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [
            {"name": "box", "image": IMAGE, "command": ["sleep", "1000"]}]}}}})
}

fn constraints(ctx: &Context) -> Value {
    json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ctx.namespace}},
        "resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}],
    })
}

/// Registers a policy with its binding, waits until `at_work`, and takes both away in the end.
async fn bound<F: Future<Output = Outcome>>(ctx: &Context, kind: &str, spec: Value, test: F) -> Outcome {
    let (policies, bindings) = (format!("{GROUP}/{kind}policies"), format!("{GROUP}/{kind}policybindings"));
    ctx.create(&policies, json!({"metadata": {"name": ctx.namespace}, "spec": spec})).await?;
    let mut binding = json!({"policyName": ctx.namespace});
    if kind == "validatingadmission" {
        binding["validationActions"] = json!(["Deny"]);
    }
    ctx.create(&bindings, json!({"metadata": {"name": ctx.namespace}, "spec": binding})).await?;
    let outcome = test.await;
    ctx.delete(&format!("{bindings}/{}", ctx.namespace)).await?;
    ctx.delete(&format!("{policies}/{}", ctx.namespace)).await?;
    outcome
}

/// A dry run of a deployment is refused: the policy is at work.
async fn refused(ctx: &Context, name: &str, replicas: u32, text: &str) -> Outcome {
    let path = format!("{}?dryRun=All", ctx.path("apps/v1/deployments"));
    ctx.until(&format!("a refusal with {text:?}"), || async {
        let body = serde_json::to_vec(&deployment(name, replicas))?;
        let answer = ctx.send("POST", &path, "application/json", body).await?;
        let message = answer.body["message"].as_str().unwrap_or_default();
        Ok((answer.code == 422 && message.contains(text)).then_some(()))
    })
    .await
}

pub(crate) async fn validates(ctx: Context) -> Outcome {
    let spec = json!({
        "matchConstraints": constraints(&ctx),
        "validations": [
            {"expression": "object.spec.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"},
            {"expression": "namespaceObject.metadata.name == object.metadata.namespace", "message": "Internal error! Other namespace expected."},
        ],
    });
    bound(&ctx, "validatingadmission", spec, async {
        refused(&ctx, "marker", 1, "wants replicas > 1, got 1").await?;
        ctx.create(&ctx.path("apps/v1/deployments"), deployment("replicated", 2)).await?;
        refused(&ctx, "lone", 0, "wants replicas > 1, got 0").await
    })
    .await
}

pub(crate) async fn variables(ctx: Context) -> Outcome {
    let spec = json!({
        "matchConstraints": constraints(&ctx),
        "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"},
        ],
        "validations": [
            {"expression": "variables.replicas > 1", "message": "more than one wanted"},
            {"expression": "variables.oddReplicas", "message": "an odd number wanted"},
        ],
    });
    bound(&ctx, "validatingadmission", spec, async {
        refused(&ctx, "marker", 1, "more than one wanted").await?;
        refused(&ctx, "even", 2, "an odd number wanted").await?;
        ctx.create(&ctx.path("apps/v1/deployments"), deployment("replicated", 3)).await.map(drop)
    })
    .await
}

/// Waits until a dry run of a deployment comes back as wanted.
async fn mutated(ctx: &Context, wanted: impl Fn(&Value) -> bool) -> Outcome {
    let path = format!("{}?dryRun=All", ctx.path("apps/v1/deployments"));
    ctx.until("a mutated deployment", || async {
        let answer = ctx.send("POST", &path, "application/json", serde_json::to_vec(&deployment("marker", 1))?).await?;
        Ok((answer.code == 201 && wanted(&answer.body)).then_some(()))
    })
    .await
}

pub(crate) async fn mutates(ctx: Context) -> Outcome {
    let spec = json!({
        "matchConstraints": constraints(&ctx),
        "reinvocationPolicy": "IfNeeded",
        "failurePolicy": "Fail",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
            "expression": "Object{spec: Object.spec{replicas: 3}}"
        }}],
    });
    bound(&ctx, "mutatingadmission", spec, mutated(&ctx, |made| made["spec"]["replicas"] == 3)).await
}

pub(crate) async fn mutates_annotations(ctx: Context) -> Outcome {
    let expression = "[JSONPatch{op: \"add\", path: \"/metadata/annotations\", value: {\"my-foo-annotation\": \"myAnnotationValue\"}}]";
    let spec = json!({
        "matchConstraints": constraints(&ctx),
        "reinvocationPolicy": "IfNeeded",
        "failurePolicy": "Fail",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
    });
    let annotated = |made: &Value| made["metadata"]["annotations"]["my-foo-annotation"] == "myAnnotationValue";
    bound(&ctx, "mutatingadmission", spec, mutated(&ctx, annotated)).await
}

fn resource(plural: &'static str, subresources: &'static [&'static str]) -> Resource {
    Resource { group: "admissionregistration.k8s.io", version: "v1", plural, subresources }
}

pub(crate) async fn validating_life(ctx: Context) -> Outcome {
    let mut constraints = constraints(&ctx);
    constraints["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": "none-at-all"}});
    let object = json!({"spec": {
        "matchConstraints": constraints,
        "validations": [{"expression": "object.spec.replicas <= 100"}],
    }});
    let status = |object: &mut Value| {
        object["status"]["conditions"] = json!([{"type": "StatusUpdated", "status": "True", "reason": "E2E",
            "message": "set by a test", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    };
    resource("validatingadmissionpolicies", &["status"]).lives(&ctx, object, status).await
}

pub(crate) async fn validating_binding_life(ctx: Context) -> Outcome {
    let object = json!({"spec": {"policyName": "none-at-all", "validationActions": ["Deny"]}});
    resource("validatingadmissionpolicybindings", &[]).lives(&ctx, object, |_| {}).await
}

pub(crate) async fn mutating_life(ctx: Context) -> Outcome {
    let mut constraints = constraints(&ctx);
    constraints["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": "none-at-all"}});
    let object = json!({"spec": {
        "matchConstraints": constraints,
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
            "expression": "Object{metadata: Object.metadata{annotations: {'a': 'b'}}}"
        }}],
    }});
    resource("mutatingadmissionpolicies", &[]).lives(&ctx, object, |_| {}).await
}

pub(crate) async fn mutating_binding_life(ctx: Context) -> Outcome {
    let object = json!({"spec": {"policyName": "none-at-all"}});
    resource("mutatingadmissionpolicybindings", &[]).lives(&ctx, object, |_| {}).await
}
