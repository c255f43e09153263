//! Every active namespace has the API server's certificate authority in the ConfigMap
//! `kube-root-ca.crt`, from where pods trust the server.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skiff_client::{Informer, Next, ObjectKey, Reconcile, Result, Selection, WorkQueue, run_controller};

use crate::Context;
use crate::namespace::is_active;

pub(crate) const NAME: &str = "root-ca-cert-publisher";

const CONFIG_MAP: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

struct Driver {
    ctx: Context,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let namespaces = ctx.informers.of::<Namespace>();
    // Only the maps of this name: caching everybody's would cost memory for nothing.
    let maps = ctx.informers.selected::<ConfigMap>("", Selection::fields(format!("metadata.name={CONFIG_MAP}")));
    let added = queue.clone();
    namespaces.subscribe(move |change| {
        if change.new.is_some() {
            added.add(change.key());
        }
    });
    let changed = queue.clone();
    maps.subscribe(move |change| changed.add(ObjectKey::new("", change.key().namespace)));
    let ready = (namespaces.clone(), maps.clone());
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 1, Arc::new(Driver { ctx, namespaces, maps }), async move {
        ready.0.synced().await;
        ready.1.synced().await;
    });
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        if !self.namespaces.get("", &key.name).is_some_and(|namespace| is_active(&namespace)) {
            return Ok(Next::Event);
        }
        let data = BTreeMap::from([(KEY.to_owned(), self.ctx.config.root_ca_pem.clone())]);
        let outcome = match self.maps.get(&key.name, CONFIG_MAP) {
            Some(map) if map.data.as_ref() == Some(&data) => return Ok(Next::Event),
            Some(map) => {
                let mut map = ConfigMap::clone(&map);
                map.data = Some(data);
                self.ctx.client.replace(&map).await
            }
            None => {
                let annotations = BTreeMap::from([(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())]);
                let metadata = ObjectMeta {
                    name: Some(CONFIG_MAP.into()),
                    namespace: Some(key.name.clone()),
                    annotations: Some(annotations),
                    ..ObjectMeta::default()
                };
                self.ctx.client.create(&ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }).await
            }
        };
        match outcome {
            Err(error) if !error.is_namespace_terminating() && !error.is_not_found() => Err(error),
            _ => Ok(Next::Event),
        }
    }
}
