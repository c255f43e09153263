//! Admission webhooks: what they change, what they refuse, and how they are configured.

use std::time::Duration;

use serde_json::{Value, json};

use crate::Outcome;
use crate::cluster::IMAGE;
use crate::context::Context;
use crate::custom::{self, definition};
use crate::lifecycle::find;
use crate::webhook::Server;

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

/// A configuration of one webhook over a resource of the test's namespace.
fn configuration(ctx: &Context, client: Value, groups: &str, resources: &[&str], operations: &[&str]) -> Value {
    json!({
        "metadata": {"name": ctx.namespace, "labels": {"e2e": ctx.namespace}},
        "webhooks": [{
            "name": "hook.k8s.io",
            "clientConfig": client,
            "rules": [{"operations": operations, "apiGroups": [groups], "apiVersions": ["*"], "resources": resources}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ctx.namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 10,
        }],
    })
}

/// Registers a configuration, runs the test and takes the configuration away.
async fn with<F: Future<Output = Outcome>>(ctx: &Context, path: &str, configuration: Value, test: F) -> Outcome {
    let name = configuration["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    ctx.create(path, configuration).await?;
    let outcome = test.await;
    ctx.delete(&format!("{path}/{name}")).await?;
    outcome
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

fn pod(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "box", "image": IMAGE, "command": ["sleep", "1000"]}
    ]}})
}

/// A write that a webhook must refuse, with a text.
async fn denied(ctx: &Context, method: &str, path: &str, object: Value, wanted: &str) -> Outcome {
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let bytes = if object.is_null() { Vec::new() } else { serde_json::to_vec(&object)? };
    let answer = ctx.send(method, path, content_type, bytes).await?;
    anyhow::ensure!(answer.code >= 400, "{method} {path} was allowed: {}", answer.text);
    let message = answer.body["message"].as_str().unwrap_or_default();
    anyhow::ensure!(message.contains(wanted), "{wanted:?} is missing in {message:?}");
    Ok(())
}

pub(crate) async fn in_discovery(ctx: Context) -> Outcome {
    let groups = ctx.get("/apis").await?;
    let group = find(&groups["groups"], "name", "admissionregistration.k8s.io")?;
    find(&group["versions"], "groupVersion", "admissionregistration.k8s.io/v1")?;
    let resources = ctx.get("/apis/admissionregistration.k8s.io/v1").await?;
    find(&resources["resources"], "name", "mutatingwebhookconfigurations")?;
    find(&resources["resources"], "name", "validatingwebhookconfigurations").map(drop)
}

pub(crate) async fn deny_pods_and_maps(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    let rules =
        configuration(&ctx, hook.client_config("deny-disallowed"), "", &["pods", "configmaps"], &["CREATE", "UPDATE"]);
    let (pods, maps) = (ctx.path("pods"), ctx.path("configmaps"));
    with(&ctx, VALIDATING, rules, async {
        let text = "the object contains unwanted key";
        denied(&ctx, "POST", &pods, pod("bad", json!({"webhook-e2e-test": "webhook-disallow"})), text).await?;
        let bad = json!({"webhook-e2e-test": "webhook-disallow"});
        denied(
            &ctx,
            "POST",
            &maps,
            map("bad", bad.clone()),
            "admission webhook \"hook.k8s.io\" denied the request: the object",
        )
        .await?;
        ctx.create(&maps, map("good", json!({"admit": "this"}))).await?;
        denied(&ctx, "PATCH", &format!("{maps}/good"), json!({"data": bad}), text).await?;
        let mut now = ctx.get(&format!("{maps}/good")).await?;
        now["data"] = bad.clone();
        denied(&ctx, "PUT", &format!("{maps}/good"), now, text).await?;
        // Another namespace is none of its business.
        let other = json!({"metadata": {"name": format!("{}-exempt", ctx.namespace)}});
        ctx.create("/api/v1/namespaces", other).await?;
        let path = format!("/api/v1/namespaces/{}-exempt", ctx.namespace);
        ctx.create(&format!("{path}/configmaps"), map("bad", bad)).await?;
        ctx.delete(&path).await.map(drop)
    })
    .await
}

pub(crate) async fn deny_attach(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    ctx.create(&ctx.path("pods"), pod("to-be-attached-pod", json!({}))).await?;
    let path = format!("{}/to-be-attached-pod", ctx.path("pods"));
    ctx.until_object("a running pod", &path, |pod| pod["status"]["phase"] == "Running").await?;
    let rules = configuration(&ctx, hook.client_config("deny"), "", &["pods/attach"], &["CONNECT"]);
    with(&ctx, VALIDATING, rules, async {
        let attach = format!("{path}/attach?stdin=true&stdout=true&container=box");
        denied(&ctx, "POST", &attach, Value::Null, "this webhook denies all requests").await
    })
    .await
}

pub(crate) async fn deny_custom(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    let group = format!("{}.example.com", ctx.namespace);
    let crd = custom::define(&ctx, &group, "tests", "Test").await?;
    let path = ctx.path(&format!("{group}/v1/tests"));
    let made = |name: &str, data: Value| json!({"apiVersion": format!("{group}/v1"), "kind": "Test", "metadata": {"name": name}, "data": data});
    let bad = json!({"webhook-e2e-test": "webhook-disallow"});
    let rules =
        configuration(&ctx, hook.client_config("deny-disallowed"), &group, &["tests"], &["CREATE", "UPDATE", "DELETE"]);
    let text = "the object contains unwanted key";
    ctx.until("the custom resource is served", || async {
        Ok((ctx.send("GET", &path, "", Vec::new()).await?.code == 200).then_some(()))
    })
    .await?;
    ctx.create(&path, made("old", bad.clone())).await?;
    with(&ctx, VALIDATING, rules, async {
        denied(&ctx, "POST", &path, made("bad", bad.clone()), text).await?;
        ctx.create(&path, made("good", json!({"a": "b"}))).await?;
        denied(&ctx, "PATCH", &format!("{path}/good"), json!({"data": bad}), text).await?;
        denied(&ctx, "DELETE", &format!("{path}/old"), Value::Null, text).await?;
        ctx.merge(&format!("{path}/old"), json!({"data": {"webhook-e2e-test": "webhook-allow"}})).await?;
        ctx.delete(&format!("{path}/old")).await.map(drop)
    })
    .await?;
    ctx.delete(&crd).await.map(drop)
}

pub(crate) async fn deny_definitions(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    let mut rules = configuration(
        &ctx,
        hook.client_config("deny-disallowed"),
        "apiextensions.k8s.io",
        &["customresourcedefinitions"],
        &["CREATE"],
    );
    rules["webhooks"][0]["objectSelector"] = json!({"matchLabels": {"e2e": ctx.namespace}});
    rules["webhooks"][0]["namespaceSelector"] = json!({});
    with(&ctx, VALIDATING, rules, async {
        let group = format!("{}.example.com", ctx.namespace);
        let mut crd = definition(&group, "tests", "Test", json!({"type": "object"}));
        crd["metadata"]["labels"] = json!({"webhook-e2e-test": "webhook-disallow", "e2e": ctx.namespace});
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        denied(&ctx, "POST", path, crd, "the object contains unwanted key").await
    })
    .await
}

pub(crate) async fn fail_closed(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    let mut rules = configuration(&ctx, hook.untrusted("allow"), "", &["configmaps"], &["CREATE"]);
    rules["webhooks"][0]["failurePolicy"] = json!("Fail");
    with(&ctx, VALIDATING, rules, async {
        let text = "failed calling webhook \"hook.k8s.io\"";
        denied(&ctx, "POST", &ctx.path("configmaps"), map("foo", json!({})), text).await
    })
    .await
}

pub(crate) async fn timeout(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    // The server takes five seconds.
    for (seconds, policy, allowed) in [(1, "Fail", false), (1, "Ignore", true), (10, "Fail", true), (0, "Fail", true)] {
        let mut rules = configuration(&ctx, hook.client_config("slow"), "", &["configmaps"], &["CREATE"]);
        rules["webhooks"][0]["failurePolicy"] = json!(policy);
        match seconds {
            // What is not said is ten seconds.
            0 => drop(rules["webhooks"][0].as_object_mut().map(|hook| hook.remove("timeoutSeconds"))),
            seconds => rules["webhooks"][0]["timeoutSeconds"] = json!(seconds),
        }
        with(&ctx, VALIDATING, rules, async {
            let (path, object) =
                (ctx.path("configmaps"), map(&format!("slow-{seconds}-{}", policy.to_lowercase()), json!({})));
            if allowed {
                return ctx.create(&path, object).await.map(drop);
            }
            denied(&ctx, "POST", &path, object, "deadline exceeded").await
        })
        .await?;
    }
    Ok(())
}

pub(crate) async fn mutate_map(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    let mut rules = configuration(&ctx, hook.client_config("first-stage"), "", &["configmaps"], &["CREATE"]);
    let mut second = rules["webhooks"][0].clone();
    second["name"] = json!("second.k8s.io");
    second["clientConfig"] = hook.client_config("second-stage");
    rules["webhooks"] = json!([rules["webhooks"][0], second]);
    with(&ctx, MUTATING, rules, async {
        let made = ctx.create(&ctx.path("configmaps"), map("to-be-mutated", json!({"mutation-start": "yes"}))).await?;
        let wanted = json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
        anyhow::ensure!(made["data"] == wanted, "another map: {made}");
        Ok(())
    })
    .await
}

pub(crate) async fn mutate_pod(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    let rules = configuration(&ctx, hook.client_config("init-container"), "", &["pods"], &["CREATE"]);
    with(&ctx, MUTATING, rules, async {
        let made = ctx.create(&ctx.path("pods"), pod("webhook-to-be-mutated", json!({}))).await?;
        let added = &made["spec"]["initContainers"][0];
        anyhow::ensure!(added["name"] == "webhook-added-init-container", "not added: {made}");
        anyhow::ensure!(added["terminationMessagePolicy"] == "File", "no defaults after mutation: {added}");
        Ok(())
    })
    .await
}

/// The two stages on custom resources; gives what a create gives.
async fn mutated_custom(ctx: &Context, schema: Value) -> anyhow::Result<Value> {
    let hook = Server::start().await?;
    let group = format!("{}.example.com", ctx.namespace);
    let crd = custom::establish(ctx, definition(&group, "tests", "Test", schema)).await?;
    let path = ctx.path(&format!("{group}/v1/tests"));
    let mut rules = configuration(ctx, hook.client_config("first-stage"), &group, &["tests"], &["CREATE", "UPDATE"]);
    let mut second = rules["webhooks"][0].clone();
    second["name"] = json!("second.k8s.io");
    second["clientConfig"] = hook.client_config("second-stage");
    rules["webhooks"] = json!([rules["webhooks"][0], second]);
    ctx.create(MUTATING, rules).await?;
    let object = json!({"apiVersion": format!("{group}/v1"), "kind": "Test", "metadata": {"name": "a"}, "data": {"mutation-start": "yes"}});
    let made = ctx
        .until("the custom resource is served", || async {
            let answer = ctx.send("POST", &path, "application/json", serde_json::to_vec(&object)?).await?;
            Ok((answer.code == 201).then_some(answer.body))
        })
        .await?;
    ctx.delete(&format!("{MUTATING}/{}", ctx.namespace)).await?;
    ctx.delete(&crd).await?;
    Ok(made)
}

pub(crate) async fn mutate_custom(ctx: Context) -> Outcome {
    let made = mutated_custom(&ctx, json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).await?;
    let wanted = json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    anyhow::ensure!(made["data"] == wanted, "another object: {made}");
    Ok(())
}

pub(crate) async fn mutate_pruned(ctx: Context) -> Outcome {
    let string = || json!({"type": "string"});
    let schema = json!({"type": "object", "properties": {"data": {"type": "object", "properties": {
        "mutation-start": string(), "mutation-stage-1": string(),
    }}}});
    let made = mutated_custom(&ctx, schema).await?;
    let wanted = json!({"mutation-start": "yes", "mutation-stage-1": "yes"});
    anyhow::ensure!(made["data"] == wanted, "another object: {made}");
    Ok(())
}

pub(crate) async fn mutate_other_version(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    let group = format!("{}.example.com", ctx.namespace);
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let versions = |storage: &str| {
        let version = |name: &str| json!({"name": name, "served": true, "storage": name == storage, "schema": {"openAPIV3Schema": schema}});
        json!([version("v1"), version("v2")])
    };
    let mut crd = definition(&group, "tests", "Test", schema.clone());
    crd["spec"]["versions"] = versions("v1");
    let crd = custom::establish(&ctx, crd).await?;
    let path = ctx.path(&format!("{group}/v1/tests"));
    let rules = configuration(&ctx, hook.client_config("data"), &group, &["tests"], &["CREATE", "UPDATE"]);
    with(&ctx, MUTATING, rules, async {
        let object =
            json!({"apiVersion": format!("{group}/v1"), "kind": "Test", "metadata": {"name": "a"}, "data": {"a": "b"}});
        ctx.until("the custom resource is served", || async {
            let answer = ctx.send("POST", &path, "application/json", serde_json::to_vec(&object)?).await?;
            Ok((answer.code == 201).then_some(()))
        })
        .await?;
        ctx.merge(&crd, json!({"spec": {"versions": versions("v2")}})).await?;
        let both = |crd: &Value| crd["status"]["storedVersions"] == json!(["v1", "v2"]);
        ctx.until_object("both stored versions", &crd, both).await?;
        let patched = ctx.merge(&format!("{path}/a"), json!({"dummy": "test", "data": {"mutated": "no"}})).await?;
        anyhow::ensure!(patched["data"]["mutated"] == "yes", "not mutated: {patched}");
        Ok(())
    })
    .await?;
    ctx.delete(&crd).await.map(drop)
}

pub(crate) async fn configurations_are_safe(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    let kinds = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"];
    let group = "admissionregistration.k8s.io";
    let make = |path: &str, operations: &[&str]| {
        let mut rules = configuration(&ctx, hook.client_config(path), group, &kinds, operations);
        rules["webhooks"][0]["namespaceSelector"] = json!({});
        rules["webhooks"][0]["objectSelector"] = json!({"matchLabels": {"safe": ctx.namespace}});
        rules
    };
    ctx.create(VALIDATING, make("deny", &["DELETE"])).await?;
    ctx.create(MUTATING, make("label", &["CREATE"])).await?;
    for path in [VALIDATING, MUTATING] {
        let mut dummy = configuration(&ctx, hook.client_config("allow"), "", &["invalid"], &["CREATE"]);
        dummy["metadata"] = json!({"name": format!("{}-dummy", ctx.namespace), "labels": {"safe": ctx.namespace}});
        let made = ctx.create(path, dummy).await?;
        anyhow::ensure!(made["metadata"]["labels"]["added-label"].is_null(), "a configuration was mutated: {made}");
        ctx.delete(&format!("{path}/{}-dummy", ctx.namespace)).await?;
    }
    ctx.delete(&format!("{VALIDATING}/{}", ctx.namespace)).await?;
    ctx.delete(&format!("{MUTATING}/{}", ctx.namespace)).await.map(drop)
}

/// Waits until creates of a map are as wanted: the effect of a change of configurations.
async fn until_creates(ctx: &Context, what: &str, wanted: impl Fn(u16, &Value) -> bool) -> Outcome {
    let path = ctx.path("configmaps");
    ctx.until(what, || async {
        let object = json!({"metadata": {"generateName": "probe-"}, "data": {"webhook-e2e-test": "webhook-disallow"}});
        let answer = ctx.send("POST", &path, "application/json", serde_json::to_vec(&object)?).await?;
        Ok(wanted(answer.code, &answer.body).then_some(()))
    })
    .await
}

fn is_mutated(code: u16, object: &Value) -> bool {
    code == 201 && object["data"]["mutated"] == "yes"
}

fn is_plain(code: u16, object: &Value) -> bool {
    code == 201 && object["data"]["mutated"].is_null()
}

fn is_denied(code: u16, object: &Value) -> bool {
    code >= 400 && object["message"].as_str().unwrap_or_default().contains("denied")
}

async fn listed(ctx: &Context, path: &str, behaviour: &str, works: fn(u16, &Value) -> bool) -> Outcome {
    let hook = Server::start().await?;
    for index in 0..10 {
        let mut one = configuration(ctx, hook.client_config(behaviour), "", &["configmaps"], &["CREATE"]);
        one["metadata"]["name"] = json!(format!("{}-{index}", ctx.namespace));
        ctx.create(path, one).await?;
    }
    let selected = format!("{path}?labelSelector=e2e%3D{}", ctx.namespace);
    let all = ctx.get(&selected).await?;
    anyhow::ensure!(all["items"].as_array().map(Vec::len) == Some(10), "ten expected: {all}");
    until_creates(ctx, "the webhooks at work", works).await?;
    ctx.delete(&selected).await?;
    until_creates(ctx, "the webhooks gone", is_plain).await
}

pub(crate) async fn list_mutating(ctx: Context) -> Outcome {
    listed(&ctx, MUTATING, "data", is_mutated).await
}

pub(crate) async fn list_validating(ctx: Context) -> Outcome {
    listed(&ctx, VALIDATING, "deny-disallowed", is_denied).await
}

async fn changed(ctx: &Context, path: &str, behaviour: &str, works: fn(u16, &Value) -> bool) -> Outcome {
    let hook = Server::start().await?;
    let one = format!("{path}/{}", ctx.namespace);
    ctx.create(path, configuration(ctx, hook.client_config(behaviour), "", &["configmaps"], &["CREATE"])).await?;
    until_creates(ctx, "the webhook at work", works).await?;
    let mut now = ctx.get(&one).await?;
    now["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
    ctx.update(&one, now).await?;
    until_creates(ctx, "creates left alone", is_plain).await?;
    let mut rules = ctx.get(&one).await?["webhooks"].clone();
    rules[0]["rules"][0]["operations"] = json!(["CREATE"]);
    ctx.strategic(&one, json!({"webhooks": rules})).await?;
    until_creates(ctx, "the webhook at work again", works).await?;
    ctx.delete(&one).await.map(drop)
}

pub(crate) async fn change_mutating(ctx: Context) -> Outcome {
    changed(&ctx, MUTATING, "data", is_mutated).await
}

pub(crate) async fn change_validating(ctx: Context) -> Outcome {
    changed(&ctx, VALIDATING, "deny-disallowed", is_denied).await
}

async fn conditions(ctx: &Context, path: &str) -> Outcome {
    let hook = Server::start().await?;
    let mut made = configuration(ctx, hook.client_config("allow"), "", &["configmaps"], &["CREATE"]);
    made["webhooks"][0]["matchConditions"] =
        json!([{"name": "expression-1", "expression": "object.metadata.namespace == 'production'"}]);
    let first = made["webhooks"][0]["matchConditions"].clone();
    ctx.create(path, made).await?;
    let one = format!("{path}/{}", ctx.namespace);
    let mut now = ctx.get(&one).await?;
    anyhow::ensure!(now["webhooks"][0]["matchConditions"] == first, "not stored: {now}");
    let second = json!([
        {"name": "expression-1", "expression": "object.metadata.namespace == 'production'"},
        {"name": "expression-2", "expression": "object.metadata.namespace == 'staging'"},
    ]);
    now["webhooks"][0]["matchConditions"] = second.clone();
    ctx.update(&one, now).await?;
    let now = ctx.get(&one).await?;
    anyhow::ensure!(now["webhooks"][0]["matchConditions"] == second, "not updated: {now}");
    ctx.delete(&one).await.map(drop)
}

pub(crate) async fn conditions_mutating(ctx: Context) -> Outcome {
    conditions(&ctx, MUTATING).await
}

pub(crate) async fn conditions_validating(ctx: Context) -> Outcome {
    conditions(&ctx, VALIDATING).await
}

async fn bad_conditions(ctx: &Context, path: &str) -> Outcome {
    let hook = Server::start().await?;
    let mut made = configuration(ctx, hook.client_config("allow"), "", &["configmaps"], &["CREATE"]);
    made["webhooks"][0]["matchConditions"] =
        json!([{"name": "invalid-expression-1", "expression": "... [] bad expression"}]);
    let status = ctx.refused(422, "POST", path, "application/json", made).await?;
    let message = status["message"].as_str().unwrap_or_default();
    anyhow::ensure!(message.contains("compilation failed"), "another reason: {message}");
    Ok(())
}

pub(crate) async fn bad_conditions_mutating(ctx: Context) -> Outcome {
    bad_conditions(&ctx, MUTATING).await
}

pub(crate) async fn bad_conditions_validating(ctx: Context) -> Outcome {
    bad_conditions(&ctx, VALIDATING).await
}

pub(crate) async fn skip_me(ctx: Context) -> Outcome {
    let hook = Server::start().await?;
    let mut rules = configuration(&ctx, hook.client_config("data"), "", &["configmaps"], &["CREATE"]);
    rules["webhooks"][0]["matchConditions"] =
        json!([{"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"}]);
    with(&ctx, MUTATING, rules, async {
        let skipped = ctx.create(&ctx.path("configmaps"), map("skip-me", json!({"a": "b"}))).await?;
        anyhow::ensure!(skipped["data"]["mutated"].is_null(), "not skipped: {skipped}");
        let other = ctx.create(&ctx.path("configmaps"), map("other", json!({"a": "b"}))).await?;
        anyhow::ensure!(other["data"]["mutated"] == "yes", "not mutated: {other}");
        tokio::time::timeout(Duration::from_secs(30), ctx.delete(&format!("{}/other", ctx.path("configmaps"))))
            .await?
            .map(drop)
    })
    .await
}
