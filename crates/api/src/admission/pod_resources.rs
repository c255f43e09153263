//! Sums of what the containers of a pod ask for.

use std::collections::BTreeMap;

use skiff_object::quantity::Quantity;
use skiff_object::{Map, Tree};

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// A map of quantities; what is no quantity is left out.
pub fn amounts(tree: Option<&Tree>) -> Amounts {
    let entries = tree.and_then(Tree::as_map).into_iter().flat_map(Map::iter);
    entries.filter_map(|(key, value)| Some((key.as_str().to_owned(), quantity(value)?))).collect()
}

/// A quantity, as text or number.
pub fn quantity(tree: &Tree) -> Option<Quantity> {
    match tree {
        Tree::Str(text) => text.parse().ok(),
        Tree::Int(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// Adds one set of amounts to another.
pub fn add(into: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let sum = into.get(name).map_or(*amount, |before| *before + *amount);
        into.insert(name.clone(), sum);
    }
}

fn raise(into: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if into.get(name).is_none_or(|before| before < amount) {
            into.insert(name.clone(), *amount);
        }
    }
}

/// What a pod asks for as a whole; `part` is `requests` or `limits`. Containers and sidecars add
/// up, other init containers run one after the other beside the sidecars before them.
pub fn of_pod(pod: &Tree, part: &str) -> Amounts {
    let mut sum = Amounts::new();
    for container in pod.list_at(&["spec", "containers"]) {
        add(&mut sum, &amounts(container.at(&["resources", part])));
    }
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in pod.list_at(&["spec", "initContainers"]) {
        let own = amounts(container.at(&["resources", part]));
        if container.str_at(&["restartPolicy"]) == "Always" {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut together = sidecars.clone();
            add(&mut together, &own);
            raise(&mut peak, &together);
        }
    }
    raise(&mut sum, &peak);
    add(&mut sum, &amounts(pod.at(&["spec", "overhead"])));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_containers_count_by_their_peak() {
        let pod = skiff_object::json::decode_untyped(
            br#"{"spec":{"initContainers":[{"resources":{"requests":{"cpu":"3"}}}],
                "containers":[{"resources":{"requests":{"cpu":"1"}}},{"resources":{"requests":{"cpu":"500m"}}}]}}"#,
        )
        .unwrap();
        assert_eq!(of_pod(&pod, "requests")["cpu"].to_string(), "3");
    }
}
