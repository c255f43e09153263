//! Deploys the demo application as a user would: apply its manifest, wait, ask it over HTTP.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use skiff_base::{Shutdown, Tasks};
use skiff_client::{Client, Patch, Selection, View, WatchEvent, WatchOptions};
use skiff_object::{Tree, json, yaml};

use crate::commands::{Session, step};
use crate::connect;
use crate::demo::{MANIFEST, NODE_PORT, fetch};
use crate::profile::Profile;
use crate::progress::{Printer, Step};

/// Between the Deployment being available and the node port being in the kernel lies a moment that
/// no object tells of; so often the URL is asked in it.
const URL_RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// A packet lost in that moment is sent again by the kernel after 1, 3, 7, 15 and 31 seconds, on
/// the same way; a new connection takes the way that there is by then.
const URL_TIMEOUT: Duration = Duration::from_millis(200);

/// Deploys the demo and gives its URL once it answers there.
pub async fn demo(profile: &Profile, printer: &Printer, session: &Session, timeout: Duration) -> Result<String> {
    let tasks = Tasks::new("deploy", Shutdown::new());
    let client = connect::client(session, profile, &tasks)?;
    let url = format!("http://{}:{NODE_PORT}/", profile.node_address());
    let work = async {
        apply_all(&client).await?;
        available(&client).await?;
        answers(&url, session).await?;
        Ok((url.clone(), Some(url.clone())))
    };
    let outcome = step(printer, session, Step::Demo, async {
        match tokio::time::timeout(timeout, work).await {
            Ok(outcome) => outcome,
            Err(_) => bail!(
                "the demo did not answer within {} seconds; see: kubectl get pods, kubectl describe pods",
                timeout.as_secs()
            ),
        }
    })
    .await;
    tasks.stop().await;
    outcome
}

async fn apply_all(client: &Client) -> Result<()> {
    for document in MANIFEST.split("\n---\n") {
        let tree = yaml::decode_untyped(document.as_bytes())
            .map_err(|error| anyhow::anyhow!("read the demo's manifest: {error}"))?;
        match tree.str_at(&["kind"]) {
            "ConfigMap" => apply::<ConfigMap>(client, &tree).await?,
            "Secret" => apply::<Secret>(client, &tree).await?,
            "Deployment" => apply::<Deployment>(client, &tree).await?,
            "Service" => apply::<Service>(client, &tree).await?,
            kind => bail!("the demo's manifest holds a {kind}, which is not expected there"),
        }
    }
    Ok(())
}

async fn apply<K: View>(client: &Client, tree: &Tree) -> Result<()> {
    let object = serde_json::from_slice(&json::encode_untyped(tree)).context("read the demo's manifest")?;
    let patch = Patch::Apply { object, manager: "skiff".to_owned(), force: true };
    let (namespace, name) = (tree.str_at(&["metadata", "namespace"]), tree.str_at(&["metadata", "name"]));
    client
        .patch::<K>(namespace, name, &patch)
        .await
        .with_context(|| format!("apply {} {namespace}/{name}", K::RESOURCE.kind))
        .map(drop)
}

/// Waits until the Deployment has all its replicas available.
async fn available(client: &Client) -> Result<()> {
    let options = WatchOptions {
        selection: Selection::fields("metadata.name=demo"),
        initial_events: true,
        ..WatchOptions::default()
    };
    let mut watch = client.watch::<Deployment>("default", &options).await.context("watch the demo")?;
    while let Some(event) = watch.next().await.context("watch the demo")? {
        if let WatchEvent::Added(deployment) | WatchEvent::Modified(deployment) = event
            && is_available(&deployment)
        {
            return Ok(());
        }
    }
    bail!("the watch of the demo ended")
}

fn is_available(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    deployment.status.as_ref().is_some_and(|status| {
        status.observed_generation >= deployment.metadata.generation
            && status.updated_replicas == Some(wanted)
            && status.available_replicas == Some(wanted)
    })
}

async fn answers(url: &str, session: &Session) -> Result<()> {
    loop {
        match tokio::time::timeout(URL_TIMEOUT, fetch(url)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => tracing::debug!(url, error = format!("{error:#}"), "not yet"),
            Err(_) => tracing::debug!(url, "no answer yet"),
        }
        session.clock.sleep(URL_RETRY_INTERVAL).await;
    }
}
