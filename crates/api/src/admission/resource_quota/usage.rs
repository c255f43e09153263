//! What objects count for in a quota.

use skiff_object::quantity::{Format, Quantity};
use skiff_object::{Map, Tree, json};

use crate::admission::pod_resources::{Amounts, add, amounts, of_pod};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::server::ApiServer;

/// Core resources that are counted under their plain name, too.
const PLAIN: [&str; 7] =
    ["pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims"];

const fn count(number: i64) -> Quantity {
    Quantity::from_units(number, Format::DecimalSi)
}

/// What one object counts for.
pub fn of(group: &str, plural: &str, object: &Tree) -> Amounts {
    let mut used = Amounts::new();
    let qualified = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    used.insert(format!("count/{qualified}"), count(1));
    if !group.is_empty() {
        return used;
    }
    if PLAIN.contains(&plural) && (plural != "pods" || !is_done(object)) {
        used.insert(plural.to_owned(), count(1));
    }
    match plural {
        "pods" if !is_done(object) => pod(object, &mut used),
        "services" => service(object, &mut used),
        "persistentvolumeclaims" => claim(object, &mut used),
        _ => {}
    }
    used
}

fn is_done(pod: &Tree) -> bool {
    matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed")
}

fn pod(pod: &Tree, used: &mut Amounts) {
    for (name, amount) in of_pod(pod, "requests") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in of_pod(pod, "limits") {
        used.insert(format!("limits.{name}"), amount);
    }
}

fn service(service: &Tree, used: &mut Amounts) {
    let ports = service.list_at(&["spec", "ports"]).len() as i64;
    match service.str_at(&["spec", "type"]) {
        "NodePort" => {
            used.insert("services.nodeports".into(), count(ports));
        }
        "LoadBalancer" => {
            used.insert("services.loadbalancers".into(), count(1));
            if service.bool_at(&["spec", "allocateLoadBalancerNodePorts"]) != Some(false) {
                used.insert("services.nodeports".into(), count(ports));
            }
        }
        _ => {}
    }
}

fn claim(claim: &Tree, used: &mut Amounts) {
    let requests = amounts(claim.at(&["spec", "resources", "requests"]));
    let class = claim.str_at(&["spec", "storageClassName"]);
    if let Some(storage) = requests.get("storage") {
        used.insert("requests.storage".into(), *storage);
        if !class.is_empty() {
            used.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), *storage);
        }
    }
    if !class.is_empty() {
        used.insert(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), count(1));
    }
}

/// Compute resources in `hard` that some container does not say, each with those containers.
pub fn unsaid(hard: &Amounts, pod: &Tree) -> Vec<(String, Vec<String>)> {
    let mut missing = Vec::new();
    for key in hard.keys() {
        let (part, resource) = match key.as_str() {
            "cpu" | "memory" => ("requests", key.as_str()),
            "requests.cpu" | "requests.memory" | "limits.cpu" | "limits.memory" => match key.split_once('.') {
                Some(split) => split,
                None => continue,
            },
            _ => continue,
        };
        let mut containers: Vec<String> = ["containers", "initContainers"]
            .iter()
            .flat_map(|list| pod.list_at(&["spec", list]))
            .filter(|container| container.at(&["resources", part, resource]).is_none())
            .map(|container| container.str_at(&["name"]).to_owned())
            .collect();
        if !containers.is_empty() {
            containers.sort();
            missing.push((key.clone(), containers));
        }
    }
    missing
}

fn is_best_effort(pod: &Tree) -> bool {
    let says = |amounts: &Amounts| {
        ["cpu", "memory"].iter().any(|name| amounts.get(*name).is_some_and(|amount| !amount.is_zero()))
    };
    !["containers", "initContainers"].iter().flat_map(|list| pod.list_at(&["spec", list])).any(|container| {
        says(&amounts(container.at(&["resources", "requests"])))
            || says(&amounts(container.at(&["resources", "limits"])))
    })
}

/// What is asked beyond what was there.
pub fn growth(new: &Amounts, old: &Amounts) -> Amounts {
    let grown = |(name, amount): (&String, &Quantity)| {
        let before = old.get(name).copied().unwrap_or(Quantity::ZERO);
        (*amount > before).then(|| (name.clone(), *amount - before))
    };
    new.iter().filter_map(grown).collect()
}

/// Whether a core object counts for less than it did, of anything.
pub fn is_less(plural: &str, new: &Tree, old: &Tree) -> bool {
    !growth(&of("", plural, old), &of("", plural, new)).is_empty()
}

/// Whether a quota counts an object: one with scopes counts only what has scopes.
pub fn is_in_scope(quota: &Tree, plural: &str, object: &Tree) -> bool {
    let is_scoped = !quota.list_at(&["spec", "scopes"]).is_empty()
        || !quota.list_at(&["spec", "scopeSelector", "matchExpressions"]).is_empty();
    !is_scoped || (matches!(plural, "pods" | "persistentvolumeclaims") && in_scope(quota, object))
}

/// Whether a quota's scopes cover a pod or a claim.
pub fn in_scope(quota: &Tree, pod: &Tree) -> bool {
    let plain = quota.list_at(&["spec", "scopes"]).iter().filter_map(Tree::as_str);
    let expressions = quota.list_at(&["spec", "scopeSelector", "matchExpressions"]);
    plain.into_iter().all(|scope| matches_scope(scope, "Exists", &[], pod))
        && expressions.iter().all(|expression| {
            let values: Vec<&str> = expression.list_at(&["values"]).iter().filter_map(Tree::as_str).collect();
            matches_scope(expression.str_at(&["scopeName"]), expression.str_at(&["operator"]), &values, pod)
        })
}

fn matches_scope(scope: &str, operator: &str, values: &[&str], pod: &Tree) -> bool {
    let terminating = pod.int_at(&["spec", "activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = pod.str_at(&["spec", "priorityClassName"]);
            match operator {
                "In" => values.contains(&class),
                "NotIn" => !values.contains(&class),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        "VolumeAttributesClass" => {
            let class = pod.str_at(&["spec", "volumeAttributesClassName"]);
            match operator {
                "In" => values.contains(&class),
                "NotIn" => !values.contains(&class),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        "CrossNamespacePodAffinity" => ["podAffinity", "podAntiAffinity"].iter().any(|affinity| {
            let terms = |path: &str| pod.list_at(&["spec", "affinity", affinity, path]);
            let crosses = |term: &Tree| {
                !term.list_at(&["namespaces"]).is_empty() || term.get("namespaceSelector").is_some_and(|s| !s.is_null())
            };
            terms("requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
                || terms("preferredDuringSchedulingIgnoredDuringExecution")
                    .iter()
                    .any(|term| term.get("podAffinityTerm").is_some_and(crosses))
        }),
        _ => false,
    }
}

/// What is there now, for every resource that a quota limits.
///
/// # Errors
/// When the store fails.
pub async fn live(server: &ApiServer, namespace: &str, quota: &Tree) -> ApiResult<Amounts> {
    let hard = amounts(quota.at(&["spec", "hard"]));
    let mut used: Amounts = hard.keys().map(|key| (key.clone(), count(0))).collect();
    for (group, plural) in counted(&hard) {
        for item in server.collection(&group, &plural).list(namespace).await? {
            let object = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
            let is_going = group.is_empty() && plural == "pods" && is_done(&object) && meta::is_deleting(&object);
            if is_going || !is_in_scope(quota, &plural, &object) {
                continue;
            }
            let mut own = of(&group, &plural, &object);
            own.retain(|key, _| hard.contains_key(key));
            add(&mut used, &own);
        }
    }
    Ok(used)
}

/// The resources that a quota has to look at.
fn counted(hard: &Amounts) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for key in hard.keys() {
        let resource = match key.as_str() {
            key if key.starts_with("count/") => {
                let qualified = &key["count/".len()..];
                let (plural, group) = qualified.split_once('.').unwrap_or((qualified, ""));
                (group.to_owned(), plural.to_owned())
            }
            key if PLAIN.contains(&key) => (String::new(), key.to_owned()),
            key if key.starts_with("services.") => (String::new(), "services".to_owned()),
            key if key.contains("storage.k8s.io/") || key == "requests.storage" => {
                (String::new(), "persistentvolumeclaims".to_owned())
            }
            _ => (String::new(), "pods".to_owned()),
        };
        if !found.contains(&resource) {
            found.push(resource);
        }
    }
    found
}

/// Writes the status of a quota.
pub fn write(quota: &mut Tree, hard: &Amounts, used: &Amounts) {
    let tree = |amounts: &Amounts| {
        Tree::Map(
            amounts
                .iter()
                .filter(|(key, _)| hard.contains_key(*key))
                .map(|(key, amount)| (key.clone().into(), Tree::from(amount.to_string())))
                .collect::<Map>(),
        )
    };
    quota.set(&["status", "hard"], tree(hard));
    quota.set(&["status", "used"], tree(used));
}
