//! `status.typeChecking` of validating policies: what the types of the resources a policy names say about its
//! expressions. It warns and never changes what the policy does.
//!
//! One task follows the policies. A policy is judged once for each of its generations, which
//! `status.observedGeneration` records; several servers on one store come to the same verdict.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skiff_cel::DeclType;
use skiff_kinds::Kind;
use skiff_object::{Tree, json};
use skiff_store::cache::{Scope, Snapshot};

use super::compiled;
use super::environment::{self, Options, Returns};
use crate::admission::webhook::configuration::GROUP;
use crate::errors::ApiResult;
use crate::meta;
use crate::respond;
use crate::server::ApiServer;
use crate::storage::Item;
use crate::write::encode_stored;

const PLURAL: &str = "validatingadmissionpolicies";

/// Between two attempts after the store failed.
const RETRY: Duration = Duration::from_millis(500);

/// A policy that names more types is checked against the first of them. The number of upstream.
const TYPES_MAX: usize = 10;

/// Follows the policies until the server stops.
pub fn start(server: &Arc<ApiServer>) {
    let follower = Arc::clone(server);
    server.config.tasks.spawn("policy-types", async move {
        loop {
            if let Err(error) = follow(&follower).await {
                tracing::debug!(%error, "following the policies anew");
            }
            follower.clock().sleep(RETRY).await;
        }
    });
}

async fn follow(server: &Arc<ApiServer>) -> ApiResult<()> {
    let policies = server.collection(GROUP, PLURAL);
    let failure = |error| policies.failure(error);
    let mut snapshot = policies.cache().current().await.map_err(failure)?;
    let scope = Scope::prefix(&policies.prefix());
    let mut changes = policies.cache().watch(scope, snapshot.revision()).await.map_err(failure)?;
    loop {
        judge_all(server, &snapshot).await?;
        changes.next().await.map_err(failure)?;
        // A burst of changes is one change.
        while changes.try_next().is_some() {}
        snapshot = policies.cache().current().await.map_err(failure)?;
    }
}

async fn judge_all(server: &ApiServer, snapshot: &Snapshot<Item>) -> ApiResult<()> {
    for (_, item) in snapshot.range(b"", None) {
        let Ok(policy) = json::decode_untyped(&item.stored.value) else { continue };
        if is_judged(&policy) {
            continue;
        }
        // Written only over what was read: a newer generation comes with a change of its own.
        let Some(kind) = server.registry().resource(GROUP, "v1", PLURAL).cloned() else { return Ok(()) };
        let mut judged = respond::decode_stored(kind.as_ref(), &item.stored.value)?;
        judged.set(&["status"], status(server, &policy));
        let value = encode_stored(kind.as_ref(), &judged)?;
        server.collection(GROUP, PLURAL).replace("", meta::name(&policy), value, item.stored.revision, None).await?;
    }
    Ok(())
}

fn is_judged(policy: &Tree) -> bool {
    policy.int_at(&["status", "observedGeneration"]) == policy.int_at(&["metadata", "generation"])
}

fn status(server: &ApiServer, policy: &Tree) -> Tree {
    let mut status = policy.get("status").cloned().filter(|status| status.as_map().is_some()).unwrap_or(Tree::map());
    status.set(&["observedGeneration"], policy.int_at(&["metadata", "generation"]).unwrap_or_default());
    let mut checking = Tree::map();
    let warnings = warnings(server, policy);
    if !warnings.is_empty() {
        checking.set(&["expressionWarnings"], warnings);
    }
    status.set(&["typeChecking"], checking);
    status
}

/// A type to check against, and what it is called.
struct Checked {
    name: String,
    decl: Arc<DeclType>,
}

fn warnings(server: &ApiServer, policy: &Tree) -> Vec<Tree> {
    let spec = policy.get("spec").unwrap_or(&Tree::Null);
    let types = types(server, spec);
    let param_kind = spec.get("paramKind").filter(|kind| !kind.is_null());
    let params = param_kind.and_then(|kind| {
        let registry = server.registry();
        let found = registry.kind(kind.str_at(&["apiVersion"]), kind.str_at(&["kind"]))?;
        Some(Arc::new(decl(found.as_ref())))
    });
    let options = Options { params: param_kind.is_some(), authorizer: true, patches: false };
    let mut warnings = Vec::new();
    for (index, validation) in spec.list_at(&["validations"]).iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = validation.str_at(&[field]);
            if text.is_empty() {
                continue;
            }
            let said: Vec<String> = types
                .iter()
                .filter_map(|ty| {
                    let (env, _) =
                        compiled::variables(environment::typed_env(options, &ty.decl, params.as_ref()), spec);
                    let error = environment::compile(&env, text, Returns::Anything).err()?;
                    Some(format!("{}: {error}\n", ty.name))
                })
                .collect();
            if !said.is_empty() {
                let mut warning = Tree::map();
                warning.set(&["fieldRef"], format!("spec.validations[{index}].{field}"));
                warning.set(&["warning"], said.join("\n"));
                warnings.push(warning);
            }
        }
    }
    warnings
}

fn decl(kind: &dyn Kind) -> DeclType {
    let facts = kind.facts();
    DeclType::of_type(kind.schema(), facts.ty, facts.kind.as_str())
}

/// The types a policy names without wildcards, by group, version and kind.
fn types(server: &ApiServer, spec: &Tree) -> Vec<Checked> {
    let registry = server.registry();
    let mut seen = BTreeSet::new();
    for rule in spec.list_at(&["matchConstraints", "resourceRules"]) {
        let texts = |key: &str| -> Vec<String> {
            rule.list_at(&[key]).iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
        };
        let (groups, versions) = (texts("apiGroups"), texts("apiVersions"));
        if groups.iter().chain(&versions).any(|text| text.contains('*')) {
            continue;
        }
        let resources = texts("resources");
        for kind in registry.iter().filter(|kind| {
            let facts = kind.facts();
            groups.iter().any(|group| facts.group == **group)
                && versions.iter().any(|version| facts.version == **version)
                && resources.iter().any(|resource| facts.plural == **resource)
        }) {
            let facts = kind.facts();
            let [group, version, kind] = [&facts.group, &facts.version, &facts.kind].map(|key| key.as_str().to_owned());
            seen.insert((group, version, kind));
        }
    }
    let found = seen.into_iter().take(TYPES_MAX).filter_map(|(group, version, kind)| {
        let api_version = if group.is_empty() { version } else { format!("{group}/{version}") };
        let found = registry.kind(&api_version, &kind)?;
        Some(Checked { name: format!("{api_version}, Kind={kind}"), decl: Arc::new(decl(found.as_ref())) })
    });
    found.collect()
}
