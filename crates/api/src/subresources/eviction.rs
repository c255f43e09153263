//! `pods/eviction`: a delete that asks the disruption budgets first.

use http::{Response, StatusCode};
use skiff_object::selector::label;
use skiff_object::{Tree, json};

use crate::admission::exchanged;
use crate::body::Body;
use crate::chain::Call;
use crate::errors::{self, ApiError, ApiResult};
use crate::negotiate::{self, Offer};
use crate::request::options::{DeleteOptions, FieldValidation, WriteOptions};
use crate::server::ApiServer;
use crate::storage::Stored;
use crate::verbs::{Subject, delete};
use crate::write::{self, Expected, encode_stored};
use crate::{meta, respond};

const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
/// The budget's controller is behind: it will have caught up by then.
const RETRY_SECONDS: i64 = 10;
/// A budget that many evict against at once is tried so often.
const RETRIES_MAX: usize = 20;
/// A budget notes so many pods on their way out, as upstream bounds it.
const DISRUPTED_PODS_MAX: usize = 2_000;

/// Evicts a pod.
///
/// # Errors
/// 429 when a budget says no.
pub async fn evict(server: &ApiServer, call: &mut Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let form = negotiate::accept(&call.headers, &call.query, Offer::PLAIN)?;
    let api_version = "policy/v1";
    let ty = respond::type_named(api_version, "Eviction")
        .ok_or_else(|| ApiError::internal("Eviction is not in the schema"))?;
    let expected = Expected { api_version, kind: "Eviction", schema: skiff_kinds::schema(), ty };
    let mut eviction = write::decode_body(call, Offer::PLAIN, expected, FieldValidation::Ignore).await?;
    if !meta::name(&eviction).is_empty() && meta::name(&eviction) != subject.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = options(&eviction, &call.query)?;
    let written = WriteOptions { dry_run: options.dry_run, ..WriteOptions::default() };
    exchanged::create(server, call, subject, &subject.name, &written, &mut eviction).await?;
    let target = Subject { subresource: String::new(), ..subject.clone() };
    let stored = target.collection.get(&target.namespace, &target.name).await?.ok_or_else(|| target.not_found())?;
    let pod = respond::decode_stored(target.kind.as_ref(), &stored.value)?;
    let mut options = options;
    if !ignores_budgets(&pod) {
        ask_budgets(server, &target, &pod, options.dry_run).await?;
        // The pod that was judged is the pod that goes.
        options.uid.get_or_insert_with(|| meta::uid(&pod).to_owned());
    }
    if !options.dry_run && options.resource_version.is_none() {
        note(server, &target).await?;
    }
    // Admitted as an eviction, not as a delete.
    delete::remove(server, &target, &options, None).await?;
    Ok(respond::status(StatusCode::CREATED, &errors::success_status(), form))
}

fn options(eviction: &Tree, query: &str) -> ApiResult<DeleteOptions> {
    let text = |path: &[&str]| Some(eviction.str_at(path).to_owned()).filter(|text| !text.is_empty());
    let mut options = DeleteOptions::parse(query)?;
    if eviction.get("deleteOptions").is_some_and(|given| !given.is_null()) {
        options.grace_period_seconds = eviction.int_at(&["deleteOptions", "gracePeriodSeconds"]);
        options.propagation_policy = text(&["deleteOptions", "propagationPolicy"]);
        options.uid = text(&["deleteOptions", "preconditions", "uid"]);
        options.resource_version = text(&["deleteOptions", "preconditions", "resourceVersion"]);
        options.dry_run |= eviction.list_at(&["deleteOptions", "dryRun"]).iter().any(|one| one.as_str() == Some("All"));
    }
    options.validate()?;
    Ok(options)
}

/// Pods that do not run count for no budget.
fn ignores_budgets(pod: &Tree) -> bool {
    meta::is_deleting(pod) || matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed" | "Pending")
}

fn is_ready(pod: &Tree) -> bool {
    let conditions = pod.list_at(&["status", "conditions"]);
    conditions.iter().any(|one| one.str_at(&["type"]) == "Ready" && one.str_at(&["status"]) == "True")
}

/// The budgets that cover a pod.
async fn budgets_of(server: &ApiServer, namespace: &str, pod: &Tree) -> ApiResult<Vec<String>> {
    let items = server.collection("policy", "poddisruptionbudgets").list(namespace).await?;
    let labels = pod.at(&["metadata", "labels"]);
    let mut found = Vec::new();
    for item in items {
        let budget = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
        let selector = label::Selector::from_object(budget.at(&["spec", "selector"]));
        if selector.is_ok_and(|selector| selector.matches_labels(labels)) {
            found.push(meta::name(&budget).to_owned());
        }
    }
    Ok(found)
}

async fn ask_budgets(server: &ApiServer, subject: &Subject, pod: &Tree, dry_run: bool) -> ApiResult<()> {
    let found = budgets_of(server, &subject.namespace, pod).await?;
    let name = match found.as_slice() {
        [] => return Ok(()),
        [one] => one,
        _ => {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let registry = server.registry();
    let kind = registry
        .resource("policy", "v1", "poddisruptionbudgets")
        .ok_or_else(|| ApiError::internal("budgets are not served"))?;
    let budgets = Subject::internal(server, kind, &subject.namespace, name);
    for _ in 0..RETRIES_MAX {
        let Some(current) = budgets.collection.get(&subject.namespace, name).await? else { return Ok(()) };
        let mut budget = respond::decode_stored(kind.as_ref(), &current.value)?;
        if !is_ready(pod) && allows_unready(&budget) {
            return Ok(());
        }
        take(&mut budget, &subject.name, &meta::time(server.clock().now()))?;
        if dry_run || store(&budgets, &budget, &current).await? {
            return Ok(());
        }
    }
    Err(ApiError::too_many_requests("couldn't update PodDisruptionBudget due to conflicts", RETRY_SECONDS))
}

async fn store(budgets: &Subject, budget: &Tree, current: &Stored) -> ApiResult<bool> {
    let value = encode_stored(budgets.kind.as_ref(), budget)?;
    let stored = budgets.collection.replace(&budgets.namespace, &budgets.name, value, current.revision, None).await?;
    Ok(stored.is_some())
}

/// Whether a pod that is not ready may go whatever the count.
fn allows_unready(budget: &Tree) -> bool {
    if budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow" {
        return true;
    }
    let healthy = budget.int_at(&["status", "currentHealthy"]).unwrap_or(0);
    let desired = budget.int_at(&["status", "desiredHealthy"]).unwrap_or(0);
    healthy >= desired && desired > 0
}

/// Takes one disruption from the budget.
fn take(budget: &mut Tree, pod: &str, now: &str) -> ApiResult<()> {
    let refuse = |message: String, seconds: i64| {
        Err(ApiError::too_many_requests(VIOLATES, seconds).with_cause("DisruptionBudget", message, ""))
    };
    let name = meta::name(budget).to_owned();
    let observed = budget.int_at(&["status", "observedGeneration"]).unwrap_or(0);
    if observed < budget.int_at(&["metadata", "generation"]).unwrap_or(0) {
        return refuse(format!("The disruption budget {name} is still being processed by the server."), RETRY_SECONDS);
    }
    let disrupted = budget.at(&["status", "disruptedPods"]).and_then(Tree::as_map).map_or(0, skiff_object::Map::len);
    if disrupted > DISRUPTED_PODS_MAX {
        return refuse("DisruptedPods map too big - too many evictions not confirmed by PDB controller".into(), 0);
    }
    let allowed = budget.int_at(&["status", "disruptionsAllowed"]).unwrap_or(0);
    if allowed < 0 {
        return refuse("pdb disruptions allowed is negative".into(), 0);
    }
    if allowed == 0 {
        let desired = budget.int_at(&["status", "desiredHealthy"]).unwrap_or(0);
        let healthy = budget.int_at(&["status", "currentHealthy"]).unwrap_or(0);
        return refuse(
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"),
            0,
        );
    }
    budget.set(&["status", "disruptionsAllowed"], allowed - 1);
    let status = budget.ensure_map().entry_or("status", Tree::map).ensure_map();
    status.entry_or("disruptedPods", Tree::map).ensure_map().insert(pod.to_owned(), now);
    Ok(())
}

/// Says in the pod's conditions why it goes. A pod that changes meanwhile goes without.
async fn note(server: &ApiServer, subject: &Subject) -> ApiResult<()> {
    let Some(current) = subject.collection.get(&subject.namespace, &subject.name).await? else { return Ok(()) };
    let mut pod = respond::decode_stored(subject.kind.as_ref(), &current.value)?;
    let now = meta::time(server.clock().now());
    super::binding::set_condition(
        &mut pod,
        "DisruptionTarget",
        &now,
        "EvictionByEvictionAPI",
        "Eviction API: evicting",
    );
    store(subject, &pod, &current).await.map(|_| ())
}
