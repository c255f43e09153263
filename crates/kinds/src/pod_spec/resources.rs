//! What a pod asks for: requests of all its containers together, and the class that follows.

use std::collections::BTreeMap;

use skiff_object::Tree;
use skiff_object::quantity::Quantity;

use crate::fill::{put, within};

/// A resource list, parsed.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// The resources that can be given for the pod as a whole.
fn is_pod_level(name: &str) -> bool {
    name == "cpu" || name == "memory" || name.starts_with("hugepages-")
}

/// Reads a resource list; what is no quantity is left out.
pub(crate) fn amounts(list: Option<&Tree>) -> Amounts {
    let entries = list.and_then(Tree::as_map).into_iter().flat_map(skiff_object::Map::iter);
    entries.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.as_str()?.parse().ok()?))).collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let slot = total.entry(name.clone()).or_default();
        *slot = *slot + *amount;
    }
}

fn max(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let slot = total.entry(name.clone()).or_insert(*amount);
        *slot = (*slot).max(*amount);
    }
}

/// What the containers of a pod spec ask for together: the sum of containers and sidecars, or what
/// an init container needs beside the sidecars started before it, if that is more.
pub(crate) fn aggregate(spec: &Tree, which: &str) -> Amounts {
    let of = |container: &Tree| amounts(container.at(&["resources", which]));
    let mut total = Amounts::new();
    for container in spec.list_at(&["containers"]) {
        add(&mut total, &of(container));
    }
    let mut sidecars = Amounts::new();
    let mut init = Amounts::new();
    for container in spec.list_at(&["initContainers"]) {
        let mut wanted = of(container);
        if container.str_at(&["restartPolicy"]) == "Always" {
            add(&mut total, &wanted);
            add(&mut sidecars, &wanted);
            wanted = sidecars.clone();
        } else {
            add(&mut wanted, &sidecars);
        }
        max(&mut init, &wanted);
    }
    max(&mut total, &init);
    total
}

/// Requests for the pod as a whole that follow from its limits and its containers (KEP-2837).
pub(crate) fn default_pod_level(spec: &mut Tree) {
    let limits = amounts(spec.at(&["resources", "limits"]));
    if limits.is_empty() {
        return;
    }
    let mut requests = amounts(spec.at(&["resources", "requests"]));
    for (name, amount) in aggregate(spec, "requests") {
        if is_pod_level(&name) && !name.starts_with("hugepages-") {
            requests.entry(name).or_insert(amount);
        }
    }
    for (name, amount) in limits {
        if is_pod_level(&name) {
            requests.entry(name).or_insert(amount);
        }
    }
    if !requests.is_empty() {
        let list = requests.into_iter().map(|(name, amount)| (name.into(), amount.to_string().into()));
        put(within(spec, "resources"), "requests", Tree::Map(list.collect()));
    }
}

/// `status.qosClass`: `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(spec: &Tree) -> &'static str {
    let counts = |name: &str| name == "cpu" || name == "memory";
    let nonzero = |list: Option<&Tree>| -> Amounts {
        amounts(list).into_iter().filter(|(name, amount)| counts(name) && *amount > Quantity::ZERO).collect()
    };
    if spec.get("resources").is_some_and(|resources| !resources.is_null()) {
        let (requests, limits) =
            (nonzero(spec.at(&["resources", "requests"])), nonzero(spec.at(&["resources", "limits"])));
        return class(&requests, &limits, limits.len() == 2);
    }
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut all_limited = true;
    for container in spec.list_at(&["containers"]).iter().chain(spec.list_at(&["initContainers"])) {
        add(&mut requests, &nonzero(container.at(&["resources", "requests"])));
        let own = nonzero(container.at(&["resources", "limits"]));
        all_limited &= own.len() == 2;
        add(&mut limits, &own);
    }
    class(&requests, &limits, all_limited)
}

fn class(requests: &Amounts, limits: &Amounts, all_limited: bool) -> &'static str {
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if all_limited && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Tree {
        skiff_object::json::decode_untyped(json.as_bytes()).unwrap()
    }

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        for (containers, want) in [
            (r#"[{}]"#, "BestEffort"),
            (r#"[{"resources":{"requests":{"cpu":"1"}}}]"#, "Burstable"),
            (
                r#"[{"resources":{"requests":{"cpu":"1","memory":"1Gi"},"limits":{"cpu":"1000m","memory":"1Gi"}}}]"#,
                "Guaranteed",
            ),
            (
                r#"[{},{"resources":{"requests":{"cpu":"1","memory":"1Gi"},"limits":{"cpu":"1","memory":"1Gi"}}}]"#,
                "Burstable",
            ),
        ] {
            assert_eq!(qos_class(&spec(&format!(r#"{{"containers":{containers}}}"#))), want, "{containers}");
        }
    }

    #[test]
    fn init_containers_count_where_they_need_more() {
        let spec = spec(
            r#"{"containers":[{"resources":{"requests":{"cpu":"1"}}}],"initContainers":[
                {"restartPolicy":"Always","resources":{"requests":{"cpu":"500m"}}},
                {"resources":{"requests":{"cpu":"2"}}}]}"#,
        );
        assert_eq!(aggregate(&spec, "requests")["cpu"].to_string(), "2500m");
    }
}
