//! Validating webhooks: all at once, each sees the object as it will be stored.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use skiff_object::Tree;

use super::call;
use super::configuration::Hook;
use super::matching::{self, Invocation};
use super::review::{Half, Objects};
use crate::admission::Attributes;
use crate::errors::ApiResult;
use crate::server::ApiServer;

/// Asks every hook that the write is for, and waits for all of them.
///
/// # Errors
/// The refusal that came first.
pub(super) async fn dispatch(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    hooks: &[Arc<Hook>],
    object: &Tree,
    old: Option<&Tree>,
) -> ApiResult<()> {
    let mut calls = FuturesUnordered::new();
    for hook in hooks {
        if let Some(invocation) = matching::invocation(server, attributes, hook, object, old).await? {
            calls.push(one(server, attributes, invocation, calls.len(), object, old));
        }
    }
    let mut first = Ok(());
    while let Some(outcome) = calls.next().await {
        if first.is_ok() {
            first = outcome;
        }
    }
    first
}

async fn one(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    invocation: Invocation,
    index: usize,
    object: &Tree,
    old: Option<&Tree>,
) -> ApiResult<()> {
    let hook = invocation.hook.as_ref();
    let seen = matching::seen(server, attributes, &invocation, object).await?;
    let seen_old = match old {
        Some(old) => matching::seen(server, attributes, &invocation, old).await?,
        None => Tree::Null,
    };
    let began = server.clock().instant();
    let objects = Objects { object: &seen, old: &seen_old };
    let outcome = call::call(server, attributes, &invocation, Half::Validating, &objects).await;
    let took = server.clock().instant() - began;
    call::settle(server, attributes, hook, Half::Validating, took, outcome, || {
        let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
        attributes.annotate(&key, hook.name.as_str());
    })
    .map(|_| ())
}
