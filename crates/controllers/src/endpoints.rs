//! Endpoints: where the pods of each Service are, in the older, single-object form.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skiff_client::{DeleteOptions, Informer, Next, ObjectKey, Reconcile, Result, WorkQueue, run_controller};

use crate::Context;
use crate::endpoint_slice::HEADLESS;
use crate::shared::services::{self, PodPort};
use crate::shared::{Meta, pods, selector};

pub(crate) const NAME: &str = "endpoint-controller";

const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// Addresses in one object; upstream's bound. Slices have all of them.
const ADDRESSES_MAX: usize = 1_000;

struct Driver {
    ctx: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let services = ctx.informers.of::<Service>();
    let pods = pods::informer(&ctx.informers);
    let endpoints = ctx.informers.of::<Endpoints>();
    let added = queue.clone();
    services.subscribe(move |change| added.add(change.key()));
    let changed = queue.clone();
    endpoints.subscribe(move |change| changed.add(change.key()));
    services::enqueue_for_pods(&services, &pods, &queue);
    let ready = (services.clone(), pods.clone(), endpoints.clone());
    let (tasks, workers) = (ctx.tasks.clone(), ctx.config.workers);
    let driver = Driver { ctx, services, pods, endpoints };
    run_controller(&tasks, NAME, queue, workers, Arc::new(driver), async move {
        ready.0.synced().await;
        ready.1.synced().await;
        ready.2.synced().await;
    });
}

/// The object that `service` should have over these pods.
fn plan(service: &Service, pods: &[Arc<Pod>]) -> Endpoints {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    if services::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    let mut groups: BTreeMap<Vec<PodPort>, EndpointSubset> = BTreeMap::new();
    let mut count = 0_usize;
    let publish = services::publishes_unready(service);
    let has_ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).is_some_and(|p| !p.is_empty());
    for pod in pods.iter().filter(|pod| !pods::is_finished(pod) && (publish || !pod.metadata.is_deleting())) {
        let mut ports = services::ports(service, pod);
        ports.sort();
        let Some(ip) = services::addresses(pod).first().map(|ip| (*ip).to_owned()) else { continue };
        if ports.is_empty() && has_ports {
            continue;
        }
        count += 1;
        if count > ADDRESSES_MAX {
            continue;
        }
        let address = EndpointAddress {
            ip,
            hostname: services::hostname(service, pod),
            node_name: pods::node_name(pod).map(str::to_owned),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".into()),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                ..ObjectReference::default()
            }),
        };
        let subset = groups.entry(ports).or_default();
        let ready = publish || pods::is_ready(pod);
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let annotations = (count > ADDRESSES_MAX).then(|| BTreeMap::from([(OVER_CAPACITY.into(), "truncated".into())]));
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations,
            ..ObjectMeta::default()
        },
        subsets: Some(groups.into_iter().map(|(ports, subset)| finish(ports, subset)).collect()),
    }
}

fn finish(ports: Vec<PodPort>, mut subset: EndpointSubset) -> EndpointSubset {
    for list in [&mut subset.addresses, &mut subset.not_ready_addresses] {
        list.iter_mut().for_each(|list| list.sort_by(|one, other| one.ip.cmp(&other.ip)));
    }
    let ports = ports.into_iter().map(|port| EndpointPort {
        name: Some(port.name).filter(|name| !name.is_empty()),
        port: port.port,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    });
    subset.ports = Some(ports.collect::<Vec<_>>()).filter(|ports| !ports.is_empty());
    subset
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let current = self.endpoints.get(&key.namespace, &key.name);
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            return self.delete_ours(key, current).await;
        };
        let Some(wanted) = services::selects(&service).filter(|_| !service.metadata.is_deleting()) else {
            return Ok(Next::Event);
        };
        let store = self.pods.store();
        let pods: Vec<Arc<Pod>> = store
            .namespace(&key.namespace)
            .filter(|pod| selector::subset(wanted, pod.metadata.labels.as_ref()))
            .collect();
        let mut planned = plan(&service, &pods);
        let outcome = match current {
            None => self.ctx.client.create(&planned).await,
            Some(current) => {
                let same = current.subsets.as_deref().unwrap_or_default()
                    == planned.subsets.as_deref().unwrap_or_default()
                    && current.metadata.labels == planned.metadata.labels
                    && current.metadata.annotation(OVER_CAPACITY) == planned.metadata.annotation(OVER_CAPACITY);
                if same {
                    return Ok(Next::Event);
                }
                let mut annotations = current.metadata.annotations.clone().unwrap_or_default();
                annotations.remove(OVER_CAPACITY);
                annotations.extend(planned.metadata.annotations.take().unwrap_or_default());
                planned.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
                planned.metadata.resource_version = current.metadata.resource_version.clone();
                self.ctx.client.replace(&planned).await
            }
        };
        match outcome {
            Err(error) if !error.is_namespace_terminating() => Err(error),
            _ => Ok(Next::Event),
        }
    }
}

impl Driver {
    /// The Service is gone. Endpoints without our label were made by somebody (for a Service
    /// without selector) and stay, as upstream leaves them.
    async fn delete_ours(&self, key: &ObjectKey, current: Option<Arc<Endpoints>>) -> Result<Next> {
        let Some(current) = current.filter(|found| found.metadata.label(MANAGED_BY.0) == Some(MANAGED_BY.1)) else {
            return Ok(Next::Event);
        };
        let options = DeleteOptions::uid(current.metadata.uid());
        match self.ctx.client.delete::<Endpoints>(&key.namespace, &key.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Next::Event),
        }
    }
}
