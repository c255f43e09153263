//! Small plugins that run only where they are asked for.

use async_trait::async_trait;
use skiff_object::{Map, Tree};

use super::runtime_class::add_toleration;
use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult, Cause, Qualified};
use crate::meta;
use crate::registry;
use crate::server::ApiServer;

/// Images of pods are pulled each time, so that nobody runs an image on the strength of another
/// one's credentials.
pub struct AlwaysPullImages;

/// Pods tolerate the taints of the extended resources that they ask for.
pub struct ExtendedResourceToleration;

/// Required anti-affinity of pods is about single nodes only: a pod must not keep others off a whole zone.
pub struct LimitPodHardAntiAffinityTopology;

/// Services get no new external addresses.
pub struct DenyServiceExternalIps;

/// Refuses everything; for tests of clients.
pub struct AlwaysDeny;

/// Refuses nothing.
pub struct AlwaysAdmit;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn is_pod(attributes: &Attributes<'_>) -> bool {
    registry::is(attributes.subject.kind.as_ref(), "", "pods")
        && matches!(attributes.subject.subresource.as_str(), "" | "ephemeralcontainers")
}

#[async_trait]
impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update) && is_pod(attributes)
    }

    async fn mutate(
        &self,
        _server: &ApiServer,
        attributes: &Attributes<'_>,
        pod: &mut Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        // An update that brings no new image changes nothing: most of a pod cannot be changed.
        if attributes.operation == Operation::Update && old.is_some_and(|old| images(old) == images(pod)) {
            return Ok(());
        }
        for list in CONTAINER_LISTS {
            let Some(containers) = pod.at_mut(&["spec", list]).and_then(Tree::as_list_mut) else { continue };
            containers.iter_mut().for_each(|container| container.set(&["imagePullPolicy"], "Always"));
        }
        Ok(())
    }

    async fn validate(
        &self,
        _server: &ApiServer,
        attributes: &Attributes<'_>,
        pod: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        if attributes.operation == Operation::Update && old.is_some_and(|old| images(old) == images(pod)) {
            return Ok(());
        }
        let mut causes = Vec::new();
        for list in CONTAINER_LISTS {
            for (index, container) in pod.list_at(&["spec", list]).iter().enumerate() {
                let policy = container.str_at(&["imagePullPolicy"]);
                if policy != "Always" {
                    causes.push(Cause {
                        reason: "FieldValueNotSupported".into(),
                        message: format!("Unsupported value: {policy:?}: supported values: \"Always\""),
                        field: format!("spec.{list}[{index}].imagePullPolicy"),
                    });
                }
            }
        }
        if causes.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(Qualified { group: "", name: "Pod" }, attributes.name, causes))
    }
}

fn images(pod: &Tree) -> Vec<&str> {
    let containers = CONTAINER_LISTS.iter().flat_map(|list| pod.list_at(&["spec", list]));
    containers.map(|container| container.str_at(&["image"])).collect()
}

#[async_trait]
impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update) && attributes.is("", "pods")
    }

    async fn mutate(
        &self,
        _server: &ApiServer,
        _attributes: &Attributes<'_>,
        pod: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let containers = ["initContainers", "containers"].into_iter().flat_map(|list| pod.list_at(&["spec", list]));
        let mut names: Vec<String> = containers
            .filter_map(|container| container.at(&["resources", "requests"]).and_then(Tree::as_map))
            .flat_map(Map::keys)
            .map(|name| name.as_str().to_owned())
            .filter(|name| is_extended(name))
            .collect();
        names.sort();
        names.dedup();
        for name in names {
            let has = pod.list_at(&["spec", "tolerations"]).iter().any(|one| {
                one.str_at(&["key"]) == name && one.str_at(&["operator"]) == "Exists" && one.get("effect").is_none()
            });
            if !has {
                let mut toleration = Map::new();
                toleration.insert("key", name);
                toleration.insert("operator", "Exists");
                add_toleration(pod, Tree::Map(toleration));
            }
        }
        Ok(())
    }
}

/// Resources of somebody's domain, which is not Kubernetes's own.
fn is_extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
        && !name.starts_with("requests.")
}

/// The label of a node's own name.
const HOSTNAME: &str = "kubernetes.io/hostname";

#[async_trait]
impl Plugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update) && attributes.is("", "pods")
    }

    async fn validate(
        &self,
        _server: &ApiServer,
        attributes: &Attributes<'_>,
        pod: &Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let path = ["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
        let keys = pod.list_at(&path).iter().map(|term| term.str_at(&["topologyKey"]));
        match keys.into_iter().find(|key| *key != HOSTNAME) {
            None => Ok(()),
            Some(key) => {
                let why = format!(
                    "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOSTNAME} is allowed"
                );
                Err(attributes.forbidden(pod, &why))
            }
        }
    }
}

#[async_trait]
impl Plugin for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update) && attributes.is("", "services")
    }

    async fn validate(
        &self,
        _server: &ApiServer,
        attributes: &Attributes<'_>,
        service: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let before = old.map_or(&[][..], |old| old.list_at(&["spec", "externalIPs"]));
        if service.list_at(&["spec", "externalIPs"]).iter().all(|address| before.contains(address)) {
            return Ok(());
        }
        Err(attributes.forbidden(service, "Use of external IPs is denied by admission control."))
    }
}

#[async_trait]
impl Plugin for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn handles(&self, _attributes: &Attributes<'_>) -> bool {
        true
    }

    async fn validate(
        &self,
        _server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let named = if meta::name(object).is_empty() { old.unwrap_or(object) } else { object };
        Err(attributes.forbidden(named, "admission control is denying all modifications"))
    }
}

#[async_trait]
impl Plugin for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }

    fn handles(&self, _attributes: &Attributes<'_>) -> bool {
        false
    }
}
