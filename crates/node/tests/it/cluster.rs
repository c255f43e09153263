//! One API server and one node, and what the tests ask of them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, ServiceAccount};
use skiff_api::authn::{MASTERS, UserInfo, jws::SigningKey};
use skiff_api::authz::rbac::Rbac;
use skiff_api::{ApiServer, Config, Local, bootstrap};
use skiff_base::{Clock, Random, Shutdown, Tasks};
use skiff_client::{Body, Client, Endpoint, ListOptions, Selection, TransportError, View, WatchEvent, WatchOptions};
use skiff_node::{Component, Kubelet, NodeConfig, OwnNamespace, Parts};
use skiff_store::memory::MemoryStore;

use crate::fake::Fake;

/// Nothing a test waits for takes longer.
const DEADLINE: Duration = Duration::from_secs(15);

struct InProcess(Local);

#[async_trait]
impl Endpoint for InProcess {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let attempt = format!("{} {}", request.method(), request.uri());
        let (parts, body) = self.0.call(request).await.into_parts();
        let failed =
            move |error: skiff_api::body::BodyError| TransportError { attempt: attempt.clone(), cause: error.0 };
        Ok(Response::from_parts(parts, body.into_stream().map(move |chunk| chunk.map_err(&failed)).boxed()))
    }
}

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) runtime: Arc<Fake>,
    pub(crate) kubelet: Kubelet,
    pub(crate) dir: tempfile::TempDir,
    tls: Tls,
    node_tasks: Tasks,
    tasks: Tasks,
}

/// What the kubelet presents; in the clear without.
pub(crate) type Tls = Option<Arc<tokio_rustls::rustls::ServerConfig>>;

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// With a kubelet that speaks TLS.
    pub(crate) async fn start_with(tls: Tls) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        drop(tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init());
        let (clock, random) = (Clock::system(), Random::system());
        let tasks = Tasks::new("test", Shutdown::new());
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let authorizer = Rbac::start(store.clone(), "test", clock.clone(), &tasks).await.unwrap();
        let key = SigningKey::generate().unwrap();
        let config = Config::new("test", store, clock, random, tasks.group("api"), key);
        let server = ApiServer::new(Config { authorizer, ..config }).unwrap();
        bootstrap::run(&server).await.unwrap();
        let local = server.local(UserInfo::new("admin", &[MASTERS]));
        let client = Client::new(Arc::new(InProcess(local)), "test");
        for namespace in ["default", "kube-system", "kube-node-lease"] {
            let mut object = Namespace::default();
            object.metadata.name = Some(namespace.into());
            drop(client.create(&object).await);
            let mut account = ServiceAccount::default();
            account.metadata.name = Some("default".into());
            account.metadata.namespace = Some(namespace.into());
            drop(client.create(&account).await);
        }
        let dir = tempfile::tempdir().unwrap();
        let runtime = Fake::new();
        let node_tasks = tasks.group("node");
        let kubelet = start_node(&client, &runtime, dir.path(), &node_tasks, tls.clone()).await;
        Self { client, runtime, kubelet, dir, tls, node_tasks, tasks }
    }

    /// The kubelet ends, its containers go on, and another one takes over.
    pub(crate) async fn restart_kubelet(&mut self) {
        self.node_tasks.shutdown().signal();
        self.node_tasks = self.tasks.group("node-again");
        self.kubelet =
            start_node(&self.client, &self.runtime, self.dir.path(), &self.node_tasks, self.tls.clone()).await;
    }

    pub(crate) async fn stop(self) {
        tokio::time::timeout(DEADLINE, self.tasks.stop()).await.unwrap();
    }

    /// Creates a pod on the node from its name and the JSON of its specification.
    pub(crate) async fn create(&self, name: &str, spec: serde_json::Value) -> Pod {
        let mut pod = serde_json::json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        pod["spec"]["nodeName"] = "node".into();
        pod["spec"]["automountServiceAccountToken"] = false.into();
        self.client.create(&serde_json::from_value::<Pod>(pod).unwrap()).await.unwrap()
    }

    /// Waits until the pod is as wanted; the failure tells how it is.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let options = WatchOptions {
            selection: Selection::fields(format!("metadata.name={name}")),
            initial_events: true,
            ..WatchOptions::default()
        };
        let mut watch = self.client.watch::<Pod>("default", &options).await.unwrap();
        let mut last = None;
        let found = tokio::time::timeout(DEADLINE, async {
            loop {
                if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = watch.next().await.unwrap().unwrap() {
                    if wanted(&pod) {
                        return pod;
                    }
                    last = Some(pod);
                }
            }
        });
        match found.await {
            Ok(pod) => pod,
            Err(_) => panic!("pod {name} did not become as wanted: {:#?}", last.and_then(|pod| pod.status)),
        }
    }

    /// Waits until the pod is gone from the API.
    pub(crate) async fn gone(&self, name: &str) {
        let wait = async {
            while self.client.find::<Pod>("default", name).await.unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the pod is deleted");
    }

    /// Waits until nothing of any pod is left in the runtime.
    pub(crate) async fn emptied(&self) {
        let empty = || {
            let state = self.runtime.state.lock();
            state.containers.is_empty() && state.sandboxes.is_empty()
        };
        let wait = async {
            while !empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the runtime is emptied");
    }

    /// The reasons of all events about the object `name`, once `reason` is among them.
    pub(crate) async fn events(&self, name: &str, reason: &str) -> Vec<String> {
        let wait = async {
            loop {
                let events = self.client.list_all::<Event>("default", &ListOptions::default()).await.unwrap();
                let about = events.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
                let reasons: Vec<String> = about.filter_map(|event| event.reason).collect();
                if reasons.iter().any(|known| known == reason) {
                    return reasons;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the event is written")
    }

    pub(crate) async fn get<K: View>(&self, namespace: &str, name: &str) -> K {
        self.client.get(namespace, name).await.unwrap()
    }
}

async fn start_node(client: &Client, runtime: &Arc<Fake>, dir: &std::path::Path, tasks: &Tasks, tls: Tls) -> Kubelet {
    let mut config = NodeConfig::new("node", [127, 0, 0, 1].into(), dir.join("data"), dir.join("run"));
    config.tls = tls;
    config.listen.set_port(0);
    config.cluster_dns = vec![[10, 96, 0, 10].into()];
    let log_path = dir.join("kube-scheduler.log");
    std::fs::write(&log_path, "scheduling\n").unwrap();
    config.components =
        vec![Component { name: "kube-scheduler".into(), log_path, started: skiff_base::Timestamp::from_secs(1_000) }];
    let parts = Parts {
        client: client.clone(),
        runtime: Arc::clone(runtime) as _,
        images: Arc::clone(runtime) as _,
        streaming: Arc::clone(runtime) as _,
        network: Arc::new(OwnNamespace),
        clock: Clock::system(),
        random: Random::system(),
        tasks: tasks.clone(),
    };
    let kubelet = Kubelet::start(config, parts).await.unwrap();
    tokio::time::timeout(DEADLINE, kubelet.ready()).await.expect("the node is registered");
    kubelet
}

/// The phase the API shows.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

/// Whether the condition `type_` holds.
pub(crate) fn holds(pod: &Pod, type_: &str) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}
