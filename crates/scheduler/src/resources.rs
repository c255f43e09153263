//! Amounts of resources: what a pod asks for, what a node has.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Upstream scores pods without requests as if they asked for this much, so that they spread
/// (`k8s.io/kubernetes/pkg/scheduler/util`).
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// As [`DEFAULT_MILLI_CPU`], in bytes: 200 MB.
pub const DEFAULT_MEMORY: i64 = 200 * 1_024 * 1_024;

/// Amounts by resource name: `cpu` in thousandths of a processor, everything else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<Box<str>, i64>);

impl Resources {
    /// From a `ResourceList` of the API. A quantity that cannot be read counts as nothing: the
    /// API server has refused it already.
    pub fn of(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let amount = |name: &str, quantity: &Quantity| {
            let quantity: skiff_object::quantity::Quantity = quantity.0.parse().unwrap_or_default();
            if name == "cpu" { quantity.milli() } else { quantity.units() }
        };
        Self(
            list.into_iter().flatten().map(|(name, quantity)| (name.as_str().into(), amount(name, quantity))).collect(),
        )
    }

    /// The amount of `name`; nothing when it is not listed.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Names and amounts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (&**name, *amount))
    }

    /// Adds `other`, saturating.
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let slot = self.0.entry(name.clone()).or_default();
            *slot = slot.saturating_add(*amount);
        }
    }

    /// Takes `other` away, saturating.
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let slot = self.0.entry(name.clone()).or_default();
            *slot = slot.saturating_sub(*amount);
        }
    }

    /// Raises each amount to that of `other`.
    pub fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let slot = self.0.entry(name.clone()).or_default();
            *slot = (*slot).max(*amount);
        }
    }
}

/// What `pod` needs on a node: the larger of what its running containers ask for together and
/// what each init container asks for at its turn, sidecars that then run already included, plus
/// overhead. Requests of the pod as a whole take the place of the containers' where given
/// (KEP-753, KEP-2837).
pub fn requests(pod: &Pod) -> Resources {
    pod_requests(pod, |container| asked(container.resources.as_ref()))
}

/// As [`requests`], with the defaults by which scores count containers that ask for nothing.
pub fn requests_for_scoring(pod: &Pod) -> Resources {
    pod_requests(pod, |container| {
        let mut resources = asked(container.resources.as_ref());
        for (name, default) in [("cpu", DEFAULT_MILLI_CPU), ("memory", DEFAULT_MEMORY)] {
            resources.0.entry(name.into()).or_insert(default);
        }
        resources
    })
}

fn asked(resources: Option<&ResourceRequirements>) -> Resources {
    Resources::of(resources.and_then(|resources| resources.requests.as_ref()))
}

fn pod_requests(pod: &Pod, of: impl Fn(&Container) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut initial = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut at_its_turn = of(container);
        at_its_turn.add(&sidecars);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = at_its_turn.clone();
        }
        initial.raise_to(&at_its_turn);
    }
    running.add(&sidecars);
    running.raise_to(&initial);
    for (name, amount) in asked(spec.resources.as_ref()).0 {
        running.0.insert(name, amount);
    }
    running.add(&Resources::of(spec.overhead.as_ref()));
    running
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A pod from YAML-less shorthand: its spec as JSON.
    pub(crate) fn pod(name: &str, spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": name, "namespace": "default", "uid": name }, "spec": spec
        }))
        .unwrap()
    }

    fn container(cpu: &str) -> serde_json::Value {
        serde_json::json!({ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": "1Mi" } } })
    }

    #[test]
    fn init_containers_count_by_the_largest_and_sidecars_by_the_sum() {
        let mut sidecar = container("100m");
        sidecar["restartPolicy"] = "Always".into();
        let spec = serde_json::json!({
            "initContainers": [sidecar, container("450m"), container("10m")],
            "containers": [container("200m"), container("200m")],
            "overhead": { "cpu": "5m" }
        });
        assert_eq!(requests(&pod("p", spec)).get("cpu"), 555);
    }

    #[test]
    fn containers_that_ask_for_nothing_count_only_in_scores() {
        let pod = pod("p", serde_json::json!({ "containers": [{ "name": "c" }] }));
        assert_eq!(requests(&pod).get("cpu"), 0);
        assert_eq!(requests_for_scoring(&pod).get("cpu"), 100);
        assert_eq!(requests_for_scoring(&pod).get("memory"), 209_715_200);
    }
}
