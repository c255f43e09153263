//! ResourceQuotas: how much of each is used, for admission to refuse more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, ScopedResourceSelectorRequirement,
    Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use skiff_client::{
    Client, Informer, ListOptions, Next, ObjectKey, Reconcile, Resource, Result, WorkQueue, run_controller,
};
use skiff_object::quantity::{Format, Quantity};

use crate::Context;
use crate::shared::pods;

pub(crate) const NAME: &str = "resourcequota-controller";

/// What is counted without being watched is counted again this often.
const RECOUNT_EVERY: Duration = Duration::from_secs(30);

type Amounts = BTreeMap<String, Quantity>;

struct Driver {
    ctx: Context,
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let quotas = ctx.informers.of::<ResourceQuota>();
    let pods = pods::informer(&ctx.informers);
    let services = ctx.informers.of::<Service>();
    let added = queue.clone();
    quotas.subscribe(move |change| added.add(change.key()));
    let (of_pods, changed) = (quotas.clone(), queue.clone());
    pods.subscribe(move |change| {
        let counts = |pod: &Arc<Pod>| !pods::is_finished(pod);
        if change.old.as_ref().is_some_and(counts) != change.new.as_ref().is_some_and(counts) {
            enqueue(&of_pods, &changed, &change.key().namespace);
        }
    });
    let (of_services, changed) = (quotas.clone(), queue.clone());
    services.subscribe(move |change| enqueue(&of_services, &changed, &change.key().namespace));
    let ready = (quotas.clone(), pods.clone(), services.clone());
    let tasks = ctx.tasks.clone();
    let driver = Driver { ctx, quotas, pods, services };
    run_controller(&tasks, NAME, queue, 2, Arc::new(driver), async move {
        ready.0.synced().await;
        ready.1.synced().await;
        ready.2.synced().await;
    });
}

fn enqueue(quotas: &Informer<ResourceQuota>, queue: &WorkQueue, namespace: &str) {
    for quota in quotas.store().namespace(namespace) {
        queue.add(ObjectKey::of(&quota.metadata));
    }
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(quota) = self.quotas.get(&key.namespace, &key.name) else { return Ok(Next::Event) };
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
        let store = self.pods.store();
        let mut used = Amounts::new();
        for pod in store.namespace(&key.namespace).filter(|pod| !pods::is_finished(pod) && in_scope(&quota, pod)) {
            add(&mut used, pod_usage(&pod));
        }
        for service in self.services.store().namespace(&key.namespace) {
            add(&mut used, service_usage(&service));
        }
        let mut counted = false;
        for name in hard.keys().filter(|name| !is_watched(name)) {
            counted = true;
            if let Some(amount) = count(&self.ctx.client, &key.namespace, name).await? {
                used.insert(name.clone(), amount);
            }
        }
        let used = hard
            .keys()
            .map(|name| (name.clone(), Text(used.get(name).copied().unwrap_or_else(|| whole(0)).to_string())))
            .collect();
        let status = ResourceQuotaStatus { hard: Some(hard), used: Some(used) };
        if quota.status.as_ref() != Some(&status) {
            let mut changed = ResourceQuota::clone(&quota);
            changed.status = Some(status);
            match self.ctx.client.replace_status(&changed).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(if counted { Next::After(RECOUNT_EVERY) } else { Next::Event })
    }
}

/// Whether the amount called `name` follows from pods and Services.
fn is_watched(name: &str) -> bool {
    let compute = ["cpu", "memory", "ephemeral-storage"];
    let resource = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    (compute.contains(&resource) || resource.starts_with("hugepages-") || resource.contains('/') && resource != name)
        || matches!(name, "pods" | "services" | "services.nodeports" | "services.loadbalancers")
}

/// Counts what no watch tells; `None` for names that mean nothing to us.
async fn count(client: &Client, namespace: &str, name: &str) -> Result<Option<Quantity>> {
    if name == "requests.storage" || name.contains(".storageclass.storage.k8s.io/") {
        return storage(client, namespace, name).await.map(Some);
    }
    let resource = name.strip_prefix("count/").unwrap_or(name);
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let version = match (group, plural) {
        (
            "",
            "configmaps"
            | "secrets"
            | "services"
            | "pods"
            | "replicationcontrollers"
            | "resourcequotas"
            | "endpoints"
            | "persistentvolumeclaims"
            | "serviceaccounts"
            | "podtemplates"
            | "limitranges"
            | "events",
        ) => "v1".to_owned(),
        ("", _) => return Ok(None),
        _ => match client
            .discover()
            .await?
            .resources
            .into_iter()
            .find(|found| found.resource.group == group && found.resource.plural == plural)
        {
            Some(found) => found.resource.version.into_owned(),
            None => return Ok(None),
        },
    };
    let resource = Resource {
        group: group.to_owned().into(),
        version: version.into(),
        kind: "".into(),
        plural: plural.to_owned().into(),
        namespaced: true,
    };
    let one = ListOptions { limit: 1, ..ListOptions::default() };
    let page = client.list_metadata(&resource, namespace, &one).await?;
    let rest = page.metadata.remaining_item_count.unwrap_or(0);
    Ok(Some(whole(i64::try_from(page.items.len()).unwrap_or(0) + rest)))
}

async fn storage(client: &Client, namespace: &str, name: &str) -> Result<Quantity> {
    let class = name.split_once(".storageclass.storage.k8s.io/");
    let claims = client.list_all::<PersistentVolumeClaim>(namespace, &ListOptions::default()).await?;
    let mut sum = whole(0);
    for claim in &claims {
        let spec = claim.spec.clone().unwrap_or_default();
        if class.is_some_and(|(class, _)| spec.storage_class_name.as_deref() != Some(class)) {
            continue;
        }
        if class.is_some_and(|(_, what)| what == "persistentvolumeclaims") {
            sum = sum + whole(1);
            continue;
        }
        let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
        sum = sum + requests.get("storage").and_then(parse).unwrap_or_else(|| whole(0));
    }
    Ok(sum)
}

fn whole(number: i64) -> Quantity {
    Quantity::from_units(number, Format::DecimalSi)
}

fn parse(text: &Text) -> Option<Quantity> {
    text.0.parse().ok()
}

fn add(sum: &mut Amounts, more: Amounts) {
    for (name, amount) in more {
        let present = sum.get(&name).copied().unwrap_or_else(|| whole(0));
        sum.insert(name, present + amount);
    }
}

fn service_usage(service: &Service) -> Amounts {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = i64::try_from(spec.ports.as_ref().map_or(0, Vec::len)).unwrap_or(0);
    let mut used = Amounts::from([("services".to_owned(), whole(1))]);
    match spec.type_.as_deref() {
        Some("NodePort") => {
            used.insert("services.nodeports".into(), whole(ports));
        }
        Some("LoadBalancer") => {
            used.insert("services.loadbalancers".into(), whole(1));
            if spec.allocate_load_balancer_node_ports != Some(false) {
                used.insert("services.nodeports".into(), whole(ports));
            }
        }
        _ => {}
    }
    used
}

/// What a pod needs: the sum of what runs together, or what a single initialisation step needs if
/// that is more.
fn pod_usage(pod: &Pod) -> Amounts {
    let mut used = Amounts::from([("pods".to_owned(), whole(1))]);
    let Some(spec) = &pod.spec else { return used };
    let mut running = Amounts::new();
    let mut peak = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let own = container_usage(container);
        let mut together = running.clone();
        add(&mut together, own.clone());
        if container.restart_policy.as_deref() == Some("Always") {
            running = together;
        } else {
            raise(&mut peak, together);
        }
    }
    for container in &spec.containers {
        add(&mut running, container_usage(container));
    }
    raise(&mut running, peak);
    for (name, amount) in spec.overhead.iter().flatten() {
        let Some(amount) = parse(amount) else { continue };
        add(&mut running, Amounts::from([(format!("requests.{name}"), amount), (format!("limits.{name}"), amount)]));
    }
    // The short names are those of requests.
    let short: Vec<_> = running
        .iter()
        .filter_map(|(name, amount)| Some((name.strip_prefix("requests.")?.to_owned(), *amount)))
        .collect();
    used.extend(running);
    used.extend(short);
    used
}

fn raise(amounts: &mut Amounts, other: Amounts) {
    for (name, amount) in other {
        let present = amounts.entry(name).or_insert(amount);
        if *present < amount {
            *present = amount;
        }
    }
}

fn container_usage(container: &Container) -> Amounts {
    let mut used = Amounts::new();
    let resources = container.resources.clone().unwrap_or_default();
    for (prefix, amounts) in [("requests", resources.requests), ("limits", resources.limits)] {
        for (name, amount) in amounts.iter().flatten() {
            used.extend(parse(amount).map(|amount| (format!("{prefix}.{name}"), amount)));
        }
    }
    used
}

/// Whether `pod` is among those that the quota is about.
fn in_scope(quota: &ResourceQuota, pod: &Pod) -> bool {
    let Some(spec) = &quota.spec else { return true };
    let simple = spec.scopes.iter().flatten().map(|scope| ScopedResourceSelectorRequirement {
        operator: "Exists".into(),
        scope_name: scope.clone(),
        values: None,
    });
    let selected = spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten().cloned());
    simple.chain(selected).all(|requirement| in_one_scope(&requirement, pod))
}

fn in_one_scope(requirement: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    let spec = pod.spec.clone().unwrap_or_default();
    let terminating = spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
    let is_best_effort = || {
        let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        !containers.any(|container| {
            container_usage(container).keys().any(|name| name.ends_with("cpu") || name.ends_with("memory"))
        })
    };
    match requirement.scope_name.as_str() {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => is_best_effort(),
        "NotBestEffort" => !is_best_effort(),
        "CrossNamespacePodAffinity" => false,
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref().filter(|class| !class.is_empty());
            let values = requirement.values.as_deref().unwrap_or_default();
            match requirement.operator.as_str() {
                "In" => class.is_some_and(|class| values.iter().any(|value| value == class)),
                "NotIn" => class.is_none_or(|class| values.iter().all(|value| value != class)),
                "DoesNotExist" => class.is_none(),
                _ => class.is_some(),
            }
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use skiff_client::View;

    use super::*;

    #[track_caller]
    fn check(pod: &str, expected: &[(&str, &str)]) {
        let used = pod_usage(&Pod::decode(pod.as_bytes()).unwrap());
        for (name, amount) in expected {
            assert_eq!(used.get(*name).map(ToString::to_string).as_deref(), Some(*amount), "{name}");
        }
    }

    #[test]
    fn a_pod_needs_what_runs_together_or_its_largest_step() {
        check(
            r#"{"spec": {
                "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "1"}}}],
                "containers": [
                    {"name": "a", "resources": {"requests": {"cpu": "300m", "memory": "1Gi"}}},
                    {"name": "b", "resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "2"}}}
                ]}}"#,
            &[("pods", "1"), ("cpu", "1"), ("requests.memory", "1Gi"), ("limits.cpu", "2")],
        );
    }
}
