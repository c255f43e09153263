//! Discovery: the documents of groups and versions, and the aggregated one.

use serde_json::Value;

use crate::Outcome;
use crate::context::Context;
use crate::lifecycle::find;

/// What clients accept to be given the aggregated form.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Some of every kind of resource there must be: path of the document, group, version, resource.
const EXPECTED: &[(&str, &str, &str, &str)] = &[
    ("/api", "", "v1", "namespaces"),
    ("/api", "", "v1", "pods"),
    ("/apis", "apps", "v1", "deployments"),
    ("/apis", "batch", "v1", "jobs"),
    ("/apis", "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations"),
    ("/apis", "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
    ("/apis", "apiextensions.k8s.io", "v1", "customresourcedefinitions"),
    ("/apis", "apiregistration.k8s.io", "v1", "apiservices"),
    ("/apis", "events.k8s.io", "v1", "events"),
];

pub(crate) async fn locate(ctx: Context) -> Outcome {
    let groups = ctx.get("/apis").await?;
    for group in groups["groups"].as_array().into_iter().flatten() {
        let name = group["name"].as_str().unwrap_or_default();
        if name.ends_with(".example.com") {
            continue; // another test's: it may be gone by now
        }
        let preferred = group["preferredVersion"]["groupVersion"].as_str().unwrap_or_default();
        let same = ctx.get(&format!("/apis/{name}")).await?;
        anyhow::ensure!(same["preferredVersion"] == group["preferredVersion"], "two opinions of {name}: {same}");
        let resources = ctx.get(&format!("/apis/{preferred}")).await?;
        anyhow::ensure!(resources["groupVersion"] == preferred, "another version: {resources}");
        let named = resources["resources"].as_array().is_some_and(|list| {
            !list.is_empty() && list.iter().all(|one| !one["name"].as_str().unwrap_or_default().is_empty())
        });
        anyhow::ensure!(named, "no resources in {preferred}: {resources}");
    }
    Ok(())
}

pub(crate) async fn preferred(ctx: Context) -> Outcome {
    let groups = ctx.get("/apis").await?;
    for group in groups["groups"].as_array().into_iter().flatten() {
        let wanted = group["preferredVersion"]["groupVersion"].as_str().unwrap_or_default();
        find(&group["versions"], "groupVersion", wanted)?;
    }
    Ok(())
}

async fn aggregated(ctx: &Context, path: &str) -> anyhow::Result<Value> {
    let answer = ctx.send_with("GET", path, &[("accept", AGGREGATED)], Vec::new()).await?;
    let kind = answer.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    anyhow::ensure!(answer.code == 200 && kind == AGGREGATED, "{path}: {} {kind}", answer.code);
    Ok(answer.body)
}

/// Whether the aggregated document has the resource.
fn has(document: &Value, group: &str, version: &str, resource: &str) -> bool {
    let items = document["items"].as_array().into_iter().flatten();
    let group = items.filter(|item| item["metadata"]["name"].as_str().unwrap_or_default() == group);
    let versions = group.flat_map(|group| group["versions"].as_array().into_iter().flatten());
    let versions = versions.filter(|one| one["version"] == version && one["freshness"] == "Current");
    versions.flat_map(|one| one["resources"].as_array().into_iter().flatten()).any(|one| one["resource"] == resource)
}

pub(crate) async fn raw(ctx: Context) -> Outcome {
    for (path, group, version, resource) in EXPECTED {
        let document = aggregated(&ctx, path).await?;
        anyhow::ensure!(has(&document, group, version, resource), "{group}/{version} {resource} is missing");
    }
    Ok(())
}

pub(crate) async fn by_kubectl(ctx: Context) -> Outcome {
    if !ctx.cluster().kubectl {
        println!("     kubectl is missing: its discovery was not tested");
        return raw(ctx).await;
    }
    let listed = ctx.kubectl(&["api-resources", "--no-headers", "-o", "name"]).await?;
    for (_, group, _, resource) in EXPECTED {
        let name = if group.is_empty() { (*resource).to_owned() } else { format!("{resource}.{group}") };
        anyhow::ensure!(listed.lines().any(|line| line == name), "{name} is missing in {listed}");
    }
    Ok(())
}

pub(crate) async fn custom_raw(ctx: Context) -> Outcome {
    let group = format!("{}.example.com", ctx.namespace);
    let crd = crate::custom::define(&ctx, &group, "widgets", "Widget").await?;
    ctx.until("the custom resource in the aggregated document", || async {
        Ok(has(&aggregated(&ctx, "/apis").await?, &group, "v1", "widgets").then_some(()))
    })
    .await?;
    ctx.delete(&crd).await.map(drop)
}

pub(crate) async fn custom_by_kubectl(ctx: Context) -> Outcome {
    if !ctx.cluster().kubectl {
        println!("     kubectl is missing: its discovery was not tested");
        return custom_raw(ctx).await;
    }
    let group = format!("{}.example.com", ctx.namespace);
    let crd = crate::custom::define(&ctx, &group, "gadgets", "Gadget").await?;
    ctx.until("the custom resource in kubectl's discovery", || async {
        let listed = ctx.kubectl(&["api-resources", "--no-headers", "-o", "name", "--api-group", &group]).await?;
        Ok((listed.trim() == format!("gadgets.{group}")).then_some(()))
    })
    .await?;
    ctx.delete(&crd).await.map(drop)
}
