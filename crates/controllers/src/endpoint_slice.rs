//! EndpointSlices: where the pods of each Service are, in slices of bounded size.
//!
//! A change rewrites as few slices as possible: every node watches all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skiff_client::{DeleteOptions, Informer, Next, ObjectKey, Reconcile, Result, Snapshot, WorkQueue, run_controller};

use crate::Context;
use crate::shared::services::{self, PodPort};
use crate::shared::written::Written;
use crate::shared::{Meta, controller_reference, pods, selector};

pub(crate) const NAME: &str = "endpointslice-controller";

const MANAGER: &str = "endpointslice-controller.k8s.io";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Upstream's default: small enough to send often, large enough not to be many.
const ENDPOINTS_PER_SLICE: usize = 100;

/// Until our last write is seen, at most.
const CACHE_WAIT: Duration = Duration::from_secs(31);

struct Driver {
    ctx: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    written: Arc<Written>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let services = ctx.informers.of::<Service>();
    let pods = pods::informer(&ctx.informers);
    let nodes = ctx.informers.of::<Node>();
    let slices = informer(&ctx);
    let written = Arc::new(Written::default());

    let added = queue.clone();
    services.subscribe(move |change| added.add(change.key()));
    services::enqueue_for_pods(&services, &pods, &queue);
    let (changed, noted) = (queue.clone(), written.clone());
    slices.subscribe(move |change| {
        let Some(slice) = change.object().filter(|slice| is_ours(slice)) else { return };
        let Some(service) = slice.metadata.label(SERVICE_NAME) else { return };
        let key = ObjectKey::new(slice.metadata.ns(), service);
        match &change.new {
            Some(slice) => noted.seen(&key, &slice.metadata),
            None => noted.gone(&key, slice.metadata.id()),
        }
        changed.add(key);
    });

    let ready = (services.clone(), pods.clone(), nodes.clone(), slices.clone());
    let (tasks, workers) = (ctx.tasks.clone(), ctx.config.workers);
    let driver = Driver { ctx, services, pods, nodes, slices, written };
    run_controller(&tasks, NAME, queue, workers, Arc::new(driver), async move {
        ready.0.synced().await;
        ready.1.synced().await;
        ready.2.synced().await;
        ready.3.synced().await;
    });
}

/// The index of slices by `namespace/service`.
pub(crate) const INDEX_SERVICE: &str = "service";

/// All slices, indexed by Service.
pub(crate) fn informer(ctx: &Context) -> Informer<EndpointSlice> {
    ctx.informers.of::<EndpointSlice>().with_index(INDEX_SERVICE, |slice| {
        let service = slice.metadata.label(SERVICE_NAME);
        service.map(|service| format!("{}/{service}", slice.metadata.ns())).into_iter().collect()
    })
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.label(MANAGED_BY) == Some(MANAGER)
}

/// The requests that bring the slices of a Service up to date.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<EndpointSlice>,
    pub(crate) delete: Vec<Arc<EndpointSlice>>,
}

/// The endpoints that a Service should have, by address type and ports.
pub(crate) type Groups = BTreeMap<(String, Vec<PodPort>), Vec<Endpoint>>;

/// What makes a slice a slice of its owner.
pub(crate) struct SliceOwner {
    pub(crate) metadata: ObjectMeta,
    pub(crate) families: Vec<String>,
}

fn owner(service: &Service) -> SliceOwner {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if services::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.metadata.id().to_owned());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", service.metadata.id())),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![controller_reference(service)]),
        ..ObjectMeta::default()
    };
    SliceOwner { metadata, families: if families.is_empty() { vec!["IPv4".into()] } else { families } }
}

/// The endpoints of `service`; `zone` tells the zone of a node.
fn groups(service: &Service, pods: &[Arc<Pod>], zone: impl Fn(&str) -> Option<String>) -> Groups {
    let families = owner(service).families;
    let mut groups = Groups::new();
    for pod in pods.iter().filter(|pod| !pods::is_finished(pod)) {
        let ports = services::ports(service, pod);
        let has_ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).is_some_and(|p| !p.is_empty());
        if ports.is_empty() && has_ports {
            continue;
        }
        for family in &families {
            let of_family =
                |address: &&str| address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4() == (family == "IPv4"));
            let Some(address) = services::addresses(pod).into_iter().find(of_family) else { continue };
            let endpoint = endpoint(service, pod, address, &zone);
            groups.entry((family.clone(), ports.clone())).or_default().push(endpoint);
        }
    }
    groups
}

fn endpoint(service: &Service, pod: &Pod, address: &str, zone: impl Fn(&str) -> Option<String>) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.is_deleting();
    let ready = services::publishes_unready(service) || (serving && !terminating);
    let node = pods::node_name(pod);
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: services::hostname(service, pod),
        node_name: node.map(str::to_owned),
        zone: node.and_then(zone),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// Compares `wanted` with the `existing` slices.
pub(crate) fn plan(owner: &SliceOwner, mut wanted: Groups, existing: &[Arc<EndpointSlice>]) -> Plan {
    // A Service without endpoints keeps one empty slice per family: "known to be empty" differs
    // from "not yet known".
    for family in &owner.families {
        if !wanted.keys().any(|(found, _)| found == family) {
            wanted.insert((family.clone(), Vec::new()), Vec::new());
        }
    }
    let mut plan = Plan::default();
    let mut by_group: BTreeMap<(String, Vec<PodPort>), Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing.iter().filter(|slice| !slice.metadata.is_deleting()) {
        let group = (slice.address_type.clone(), ports_of(slice));
        if wanted.contains_key(&group) {
            by_group.entry(group).or_default().push(slice.clone());
        } else {
            plan.delete.push(slice.clone());
        }
    }
    for (group, endpoints) in wanted {
        let slices = by_group.remove(&group).unwrap_or_default();
        pack(owner, &group, endpoints, slices, &mut plan);
    }
    plan
}

/// Distributes the endpoints of one group over its slices, moving none that can stay.
fn pack(
    owner: &SliceOwner,
    (family, ports): &(String, Vec<PodPort>),
    endpoints: Vec<Endpoint>,
    slices: Vec<Arc<EndpointSlice>>,
    plan: &mut Plan,
) {
    let mut wanted: BTreeMap<String, Endpoint> =
        endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = slices
        .into_iter()
        .map(|slice| {
            let present = slice.endpoints.iter().flatten().map(identity).collect::<Vec<_>>();
            let endpoints = present.iter().filter_map(|identity| wanted.remove(identity)).collect();
            (slice, endpoints)
        })
        .collect();
    let mut fresh: Vec<Endpoint> = wanted.into_values().collect();
    // The fullest first: they come closest to being full, and others may become empty.
    kept.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    let changed = |(slice, endpoints): &(Arc<EndpointSlice>, Vec<Endpoint>)| {
        slice.endpoints.as_deref().unwrap_or_default() != endpoints.as_slice()
    };
    // Slices that must be written anyway take new endpoints before others do.
    for must_change in [true, false] {
        for slice in kept.iter_mut() {
            if changed(slice) == must_change {
                let room = ENDPOINTS_PER_SLICE.saturating_sub(slice.1.len()).min(fresh.len());
                slice.1.extend(fresh.drain(..room));
            }
        }
    }
    while !fresh.is_empty() {
        let rest = fresh.split_off(fresh.len().min(ENDPOINTS_PER_SLICE));
        plan.create.push(slice(owner, family, ports, std::mem::replace(&mut fresh, rest)));
    }
    let mut any = !plan.create.is_empty() || kept.iter().any(|(_, endpoints)| !endpoints.is_empty());
    for (before, endpoints) in kept {
        if endpoints.is_empty() && any {
            plan.delete.push(before);
            continue;
        }
        any = true;
        let mut after = EndpointSlice::clone(&before);
        after.endpoints = Some(endpoints).filter(|endpoints| !endpoints.is_empty());
        after.metadata.labels = owner.metadata.labels.clone();
        after.metadata.owner_references = owner.metadata.owner_references.clone();
        let same_endpoints =
            after.endpoints.as_deref().unwrap_or_default() == before.endpoints.as_deref().unwrap_or_default();
        if !same_endpoints || after.metadata.labels != before.metadata.labels {
            plan.update.push(after);
        }
    }
    if !any {
        plan.create.push(slice(owner, family, ports, Vec::new()));
    }
}

fn slice(owner: &SliceOwner, family: &str, ports: &[PodPort], endpoints: Vec<Endpoint>) -> EndpointSlice {
    let ports = ports.iter().map(|port| EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    });
    EndpointSlice {
        metadata: owner.metadata.clone(),
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.collect()),
    }
}

fn ports_of(slice: &EndpointSlice) -> Vec<PodPort> {
    let ports = slice.ports.iter().flatten().map(|port| PodPort {
        name: port.name.clone().unwrap_or_default(),
        port: port.port.unwrap_or(0),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        app_protocol: port.app_protocol.clone(),
    });
    ports.collect()
}

fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or("");
    format!("{uid} {}", endpoint.addresses.join(","))
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(service) = self.services.get(&key.namespace, &key.name) else { return Ok(Next::Event) };
        let Some(wanted) = services::selects(&service) else { return Ok(Next::Event) };
        if service.metadata.is_deleting() {
            return Ok(Next::Event);
        }
        if self.written.is_awaited(key) {
            return Ok(Next::After(CACHE_WAIT));
        }
        let store = self.pods.store();
        let pods: Vec<Arc<Pod>> = store
            .namespace(&key.namespace)
            .filter(|pod| selector::subset(wanted, pod.metadata.labels.as_ref()))
            .collect();
        let nodes = self.nodes.store();
        let groups = groups(&service, &pods, |node| zone_of(&nodes, node));
        let existing = existing(&self.slices, key, MANAGER);
        let plan = plan(&owner(&service), groups, &existing);
        perform(&self.ctx, &self.slices, &self.written, key, plan).await.map(|()| Next::Event)
    }
}

fn zone_of(nodes: &Snapshot<Node>, node: &str) -> Option<String> {
    nodes.get("", node)?.metadata.label(ZONE).map(str::to_owned)
}

/// The slices of the Service `key` that `manager` keeps.
pub(crate) fn existing(slices: &Informer<EndpointSlice>, key: &ObjectKey, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let store = slices.store();
    let service = key.to_string();
    let of_service = store.indexed(INDEX_SERVICE, &service);
    of_service.filter(|slice| slice.metadata.label(MANAGED_BY) == Some(manager)).collect()
}

/// Performs `plan`, noting what was written.
///
/// # Errors
/// The request that failed.
pub(crate) async fn perform(
    ctx: &Context,
    slices: &Informer<EndpointSlice>,
    written: &Written,
    key: &ObjectKey,
    plan: Plan,
) -> Result<()> {
    let note = |slice: &EndpointSlice| {
        written.note(key, &slice.metadata);
        // The event may have come before the answer: then nothing would ever say that it is seen.
        if let Some(shown) = slices.get(slice.metadata.ns(), slice.metadata.id()) {
            written.seen(key, &shown.metadata);
        }
    };
    for slice in plan.create {
        match ctx.client.create(&slice).await {
            Ok(slice) => note(&slice),
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    for slice in plan.update {
        note(&ctx.client.replace(&slice).await?);
    }
    for slice in plan.delete {
        let options = DeleteOptions::uid(slice.metadata.uid());
        match ctx.client.delete::<EndpointSlice>(slice.metadata.ns(), slice.metadata.id(), &options).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{
        Container, ContainerPort, PodCondition, PodIP, PodSpec, PodStatus, ServicePort, ServiceSpec,
    };
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use skiff_client::time::to_time;

    use std::collections::BTreeSet;

    use super::*;

    fn names(slices: &[EndpointSlice]) -> Vec<BTreeSet<String>> {
        let targets = |slice: &EndpointSlice| slice.endpoints.iter().flatten().map(describe).collect();
        slices.iter().map(targets).collect()
    }

    fn describe(endpoint: &Endpoint) -> String {
        let name = endpoint.target_ref.as_ref().and_then(|target| target.name.clone()).unwrap_or_default();
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let flag = |value: Option<bool>, letter| if value == Some(true) { letter } else { "-" };
        format!(
            "{name} {}{}{}",
            flag(conditions.ready, "r"),
            flag(conditions.serving, "s"),
            flag(conditions.terminating, "t")
        )
    }

    fn service(publish: bool) -> Service {
        Service {
            metadata: ObjectMeta { name: Some("s".into()), namespace: Some("n".into()), ..ObjectMeta::default() },
            spec: Some(ServiceSpec {
                publish_not_ready_addresses: Some(publish),
                ports: Some(vec![ServicePort {
                    name: Some("http".into()),
                    port: 80,
                    target_port: Some(IntOrString::String("web".into())),
                    ..ServicePort::default()
                }]),
                ..ServiceSpec::default()
            }),
            status: None,
        }
    }

    /// `name phase [ready] [deleting]`; the container port `web` is 8080.
    fn pod(text: &str) -> Arc<Pod> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let has = |word: &str| words.contains(&word);
        let status = if has("ready") { "True" } else { "False" };
        let number: u8 = words[0].bytes().fold(0, u8::wrapping_add);
        let web = ContainerPort { name: Some("web".into()), container_port: 8080, ..ContainerPort::default() };
        Arc::new(Pod {
            metadata: ObjectMeta {
                name: Some(words[0].into()),
                uid: Some(words[0].into()),
                deletion_timestamp: has("deleting").then(|| to_time(Default::default())),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                containers: vec![Container { ports: Some(vec![web]), ..Container::default() }],
                ..PodSpec::default()
            }),
            status: Some(PodStatus {
                phase: Some(words[1].into()),
                pod_ips: Some(vec![PodIP { ip: format!("10.0.0.{number}") }]),
                conditions: Some(vec![PodCondition {
                    type_: "Ready".into(),
                    status: status.into(),
                    ..PodCondition::default()
                }]),
                ..PodStatus::default()
            }),
        })
    }

    fn stored(number: usize, slice: EndpointSlice) -> Arc<EndpointSlice> {
        let mut slice = slice;
        slice.metadata.name = Some(format!("s-{number}"));
        Arc::new(slice)
    }

    fn planned(publish: bool, pods: &[&str], existing: &[Arc<EndpointSlice>]) -> Plan {
        let service = service(publish);
        let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
        plan(&owner(&service), groups(&service, &pods, |_| None), existing)
    }

    #[test]
    fn conditions_tell_ready_serving_and_terminating() {
        let pods = ["a Running ready", "b Running", "c Running ready deleting", "d Failed", "e Running deleting"];
        let plan = planned(false, &pods, &[]);
        let expected = BTreeSet::from(["a rs-", "b ---", "c -st", "e --t"].map(str::to_owned));
        assert_eq!(names(&plan.create), [expected]);
        let port = plan.create[0].ports.as_ref().unwrap()[0].clone();
        assert_eq!((port.name.as_deref(), port.port), (Some("http"), Some(8080)));
    }

    #[test]
    fn unready_addresses_are_published_on_request() {
        let plan = planned(true, &["b Running", "c Running ready deleting"], &[]);
        assert_eq!(names(&plan.create), [BTreeSet::from(["b r--", "c rst"].map(str::to_owned))]);
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let plan = planned(false, &[], &[]);
        assert_eq!(names(&plan.create), [BTreeSet::new()]);
        let again = planned(false, &[], &[stored(1, plan.create[0].clone())]);
        assert_eq!((again.create.len(), again.update.len(), again.delete.len()), (0, 0, 0));
    }

    #[test]
    fn a_change_rewrites_one_slice() {
        let texts: Vec<String> = (0..150).map(|index| format!("p{index} Running ready")).collect();
        let all: Vec<&str> = texts.iter().map(String::as_str).collect();
        let first = planned(false, &all, &[]);
        assert_eq!(first.create.iter().map(|s| s.endpoints.iter().flatten().count()).collect::<Vec<_>>(), [100, 50]);
        let existing: Vec<_> = first.create.into_iter().enumerate().map(|(n, s)| stored(n, s)).collect();
        let less = planned(false, &all[1..], &existing);
        assert_eq!((less.create.len(), less.update.len(), less.delete.len()), (0, 1, 0));
        let same = planned(false, &all, &existing);
        assert_eq!((same.create.len(), same.update.len(), same.delete.len()), (0, 0, 0));
    }
}
