//! The life of an object through every operation its API offers, the same for every kind.

use serde_json::{Value, json};

use crate::Outcome;
use crate::context::{Context, version};

/// One kind of a cluster-wide resource.
pub(crate) struct Resource {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    /// Subresources that exchange the object itself.
    pub(crate) subresources: &'static [&'static str],
}

impl Resource {
    fn path(&self) -> String {
        format!("/apis/{}/{}/{}", self.group, self.version, self.plural)
    }

    /// The group, its version and the resource are in the discovery documents.
    async fn discovered(&self, ctx: &Context) -> Outcome {
        let groups = ctx.get("/apis").await?;
        let group = find(&groups["groups"], "name", self.group)?;
        find(&group["versions"], "version", self.version)?;
        let group = ctx.get(&format!("/apis/{}", self.group)).await?;
        find(&group["versions"], "version", self.version)?;
        let resources = ctx.get(&format!("/apis/{}/{}", self.group, self.version)).await?;
        find(&resources["resources"], "name", self.plural)?;
        for subresource in self.subresources {
            find(&resources["resources"], "name", &format!("{}/{subresource}", self.plural))?;
        }
        Ok(())
    }

    /// Create, get, list, watch, patch, update, each subresource, delete, delete by selector.
    /// `object` is complete but for its metadata; `subresource` makes the change that a write to one
    /// of them must keep.
    pub(crate) async fn lives(&self, ctx: &Context, object: Value, subresource: impl Fn(&mut Value)) -> Outcome {
        self.discovered(ctx).await?;
        let path = self.path();
        let label = format!("special-label={}", ctx.namespace);
        let selected = format!("{path}?labelSelector={label}");
        let make = |suffix: &str| {
            let mut object = object.clone();
            let name = format!("{}-{suffix}", ctx.namespace);
            object["metadata"] = json!({"name": name, "labels": {"special-label": ctx.namespace}});
            object
        };
        let created = ctx.create(&path, make("a")).await?;
        ctx.create(&path, make("b")).await?;
        ctx.create(&path, make("c")).await?;
        let name = created["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let one = format!("{path}/{name}");
        let got = ctx.get(&one).await?;
        anyhow::ensure!(got["metadata"]["uid"] == created["metadata"]["uid"], "another object: {got}");
        let listed = ctx.get(&selected).await?;
        anyhow::ensure!(listed["items"].as_array().map(Vec::len) == Some(3), "three expected: {listed}");
        let query = format!("&labelSelector={label}&resourceVersion={}", version(&listed));
        let mut watch = ctx.watch(&path, &query).await?;

        let patched = ctx.merge(&one, json!({"metadata": {"annotations": {"patched": "true"}}})).await?;
        anyhow::ensure!(patched["metadata"]["annotations"]["patched"] == "true", "not patched: {patched}");
        let annotated = |annotation: &'static str| {
            let name = name.clone();
            move |object: &Value| {
                object["metadata"]["name"] == *name && object["metadata"]["annotations"][annotation] == "true"
            }
        };
        watch.until("MODIFIED", annotated("patched")).await?;
        let updated = ctx.change(&one, |object| object["metadata"]["annotations"]["updated"] = json!("true")).await?;
        anyhow::ensure!(updated["metadata"]["annotations"]["updated"] == "true", "not updated: {updated}");
        watch.until("MODIFIED", annotated("updated")).await?;

        for name in self.subresources {
            let path = format!("{one}/{name}");
            let written = ctx.change(&path, &subresource).await?;
            let mut again = written.clone();
            subresource(&mut again);
            anyhow::ensure!(again == written, "the write to {name} was lost: {written}");
            let patch = json!({"metadata": {"annotations": {format!("patched-{name}"): "true"}}});
            ctx.merge(&path, patch).await?;
        }

        ctx.delete(&one).await?;
        ctx.gone(&one).await?;
        watch.until("DELETED", |object| object["metadata"]["name"] == *name).await?;
        ctx.delete(&selected).await?;
        ctx.until_object("an empty list", &selected, |list| list["items"] == json!([])).await.map(drop)
    }
}

/// The element of a list whose `field` is `wanted`.
pub(crate) fn find<'a>(list: &'a Value, field: &str, wanted: &str) -> anyhow::Result<&'a Value> {
    let found = list.as_array().into_iter().flatten().find(|one| one[field] == wanted);
    found.ok_or_else(|| anyhow::anyhow!("nothing with {field} {wanted} in {list}"))
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": "E2E", "message": "set by a test", "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

pub(crate) async fn flow_schema(ctx: Context) -> Outcome {
    let resource = Resource {
        group: "flowcontrol.apiserver.k8s.io",
        version: "v1",
        plural: "flowschemas",
        subresources: &["status"],
    };
    let object = json!({"spec": {
        "matchingPrecedence": 10_000,
        "priorityLevelConfiguration": {"name": "global-default"},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }],
    }});
    resource.lives(&ctx, object, |object| object["status"]["conditions"] = json!([condition("Dangling")])).await
}

pub(crate) async fn priority_level(ctx: Context) -> Outcome {
    let resource = Resource {
        group: "flowcontrol.apiserver.k8s.io",
        version: "v1",
        plural: "prioritylevelconfigurations",
        subresources: &["status"],
    };
    let object = json!({"spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}
    }}});
    resource.lives(&ctx, object, |object| object["status"]["conditions"] = json!([condition("Tested")])).await
}

pub(crate) async fn certificate_request(ctx: Context) -> Outcome {
    let resource = Resource {
        group: "certificates.k8s.io",
        version: "v1",
        plural: "certificatesigningrequests",
        subresources: &["status"],
    };
    let key = rcgen::KeyPair::generate()?;
    let request = rcgen::CertificateParams::new(vec!["example.com".to_owned()])?.serialize_request(&key)?.pem()?;
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, request);
    let object = json!({"spec": {
        "request": encoded,
        "signerName": "example.com/e2e-test",
        "usages": ["digital signature", "key encipherment", "server auth"],
        "expirationSeconds": 3_600,
    }});
    resource.discovered(&ctx).await?;
    approves(&ctx, &resource, object.clone()).await?;
    // The server adds the time of the update; an old one would have the request cleaned away.
    let fail = |object: &mut Value| {
        if object["status"]["conditions"][0]["type"] != "Failed" {
            object["status"]["conditions"] = json!([condition("Failed")]);
        }
    };
    resource.lives(&ctx, object, fail).await
}

/// The `approval` subresource takes conditions, `update` and `status` do not touch them.
async fn approves(ctx: &Context, resource: &Resource, mut object: Value) -> Outcome {
    object["metadata"] = json!({"generateName": "conformance-approval-"});
    let created = ctx.create(&resource.path(), object).await?;
    let path = format!("{}/{}", resource.path(), created["metadata"]["name"].as_str().unwrap_or_default());
    let approval = format!("{path}/approval");
    ctx.get(&approval).await?;
    let conditions = json!({"status": {"conditions": [condition("ApprovalPatch")]}});
    ctx.merge(&approval, conditions).await?;
    let mut now = ctx.get(&approval).await?;
    let mut approved = condition("Approved");
    approved.as_object_mut().map(|fields| fields.remove("lastTransitionTime"));
    now["status"]["conditions"] = json!([approved]);
    let now = ctx.update(&approval, now).await?;
    let told = find(&now["status"]["conditions"], "type", "Approved")?;
    anyhow::ensure!(told["lastTransitionTime"].is_string(), "no time: {told}");
    ctx.delete(&path).await.map(drop)
}
