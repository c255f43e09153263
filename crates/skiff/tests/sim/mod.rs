//! A simulated cluster: the real API server on the memory store, the real controllers, and nodes
//! of cardboard, all under paused time.
#![allow(unreachable_pub, dead_code)] // shared by several test binaries, none of which uses all of it

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use skiff_api::authn::UserInfo;
use skiff_api::authz::rbac::Rbac;
use skiff_api::{ApiServer, Config, Local};
use skiff_base::{Clock, Random, Shutdown, Tasks, Timestamp};
use skiff_client::{Body, Client, Endpoint, Informers, Patch, TransportError, View};
use skiff_store::memory::MemoryStore;

/// The identity that may do everything.
const ADMIN: (&str, &str) = ("admin", "system:masters");

/// The server as an endpoint.
struct LocalEndpoint(Local);

#[async_trait]
impl Endpoint for LocalEndpoint {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let attempt = format!("{} {}", request.method(), request.uri());
        let response = self.0.call(request).await;
        Ok(response.map(|body| {
            let fail = move |error: skiff_api::body::BodyError| TransportError {
                attempt: attempt.clone(),
                cause: error.to_string(),
            };
            body.into_stream().map(move |chunk| chunk.map_err(&fail)).boxed()
        }))
    }
}

/// A signer with a rubber stamp: what it signs shows what it was asked.
#[derive(Debug)]
struct Rubber;

impl skiff_controllers::CertificateSigner for Rubber {
    fn sign(&self, _: &[u8], usages: &[String], seconds: Option<i32>) -> Result<String, String> {
        let text = format!("{} for {seconds:?}", usages.join(" and "));
        Ok(format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"))
    }
}

/// A cluster of cardboard nodes.
pub struct Cluster {
    pub client: Client,
    pub clock: Clock,
    pub tasks: Tasks,
    pub server: Arc<ApiServer>,
    /// Nodes that no longer report.
    silent: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Cluster {
    /// Starts a cluster with these nodes.
    pub async fn start(nodes: &[&str]) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter(filter()).try_init();
        let clock = Clock::simulated(Timestamp::from_secs(1_800_000_000));
        let random = Random::seeded(1);
        let tasks = Tasks::new("sim", Shutdown::new());
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let authorizer =
            Rbac::start(store.clone(), "sim", clock.clone(), &tasks).await.expect("the memory store answers");
        let key = skiff_api::authn::jws::SigningKey::generate().expect("a key");
        let server = ApiServer::new(Config {
            authorizer,
            anonymous: true,
            advertise: ([10, 89, 0, 1], 6443).into(),
            ..Config::new("sim", store, clock.clone(), random.clone(), tasks.clone(), key)
        })
        .expect("a server");
        skiff_api::bootstrap::run(&server).await.expect("bootstrap");
        let endpoint = |name: &str, groups: &[&str]| -> Arc<dyn Endpoint> {
            Arc::new(LocalEndpoint(server.local(UserInfo::new(name, groups))))
        };
        let reader = Client::new(endpoint(skiff_controllers::MANAGER, &[]), "shared-informers");
        let informers = Informers::new(reader, tasks.group("informers"), random.clone());
        let config = skiff_controllers::Config {
            root_ca_pem: "CA".into(),
            certificate_signer: Some(Arc::new(Rubber)),
            ..Default::default()
        };
        let accounts = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
        skiff_controllers::start(
            &|name| endpoint(&skiff_controllers::user(name), &accounts),
            &informers,
            &clock,
            &random,
            &tasks.group("controllers"),
            config,
        );
        let client = Client::new(endpoint(ADMIN.0, &[ADMIN.1]), "test");
        let cluster = Self { client, clock, tasks, server, silent: Arc::default() };
        for node in nodes {
            cluster.add_node(node).await;
        }
        cluster.tasks.spawn("cardboard", cardboard(informers, cluster.client.clone(), cluster.clock.clone()));
        cluster
    }

    /// A client that is somebody else.
    pub fn client_of(&self, user: &str, groups: &[&str]) -> Client {
        Client::new(Arc::new(LocalEndpoint(self.server.local(UserInfo::new(user, groups)))), "test")
    }

    async fn add_node(&self, name: &str) {
        let node =
            Node { metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, ..Node::default() };
        self.client.create(&node).await.expect("a node");
        let client = self.client.clone();
        let name = name.to_owned();
        let clock = self.clock.clone();
        let silent = self.silent.clone();
        self.tasks.spawn("heartbeat", async move {
            while !silent.lock().expect("no poison").contains(&name) {
                let now = skiff_client::time::to_time(clock.now());
                let ready = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": now});
                let status = Patch::Strategic(json!({"status": {"conditions": [ready]}}));
                let _ = client.patch_subresource::<Node>("", &name, "status", &status).await;
                clock.sleep(Duration::from_secs(10)).await;
            }
        });
    }

    /// The node stops reporting.
    #[allow(dead_code)] // not every suite loses nodes
    pub fn silence(&self, node: &str) {
        self.silent.lock().expect("no poison").push(node.to_owned());
    }

    /// Creates an object of any kind from JSON.
    pub async fn apply<K: View>(&self, object: Value) -> K {
        let object = K::decode(object.to_string().as_bytes()).expect("an object of its kind");
        self.client.create(&object).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until `test` holds for what `read` gives; panics after ten simulated minutes.
    pub async fn until<T, F>(&self, what: &str, read: impl Fn() -> F, test: impl Fn(&T) -> bool) -> T
    where
        T: std::fmt::Debug,
        F: Future<Output = T>,
    {
        let mut last = None;
        for _ in 0..6_000 {
            let value = read().await;
            if test(&value) {
                return value;
            }
            last = Some(value);
            // A simulated wait: the cluster runs on while time is paused between events.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never: {what}; at last {last:?}");
    }

    /// The names of all objects of a kind in a namespace.
    pub async fn names<K: View>(&self, namespace: &str) -> Vec<String> {
        let all = self.client.list_all::<K>(namespace, &Default::default()).await.expect("a list");
        all.iter().map(|object| object.meta().name.clone().unwrap_or_default()).collect()
    }

    /// The running pods of a namespace.
    pub async fn running(&self, namespace: &str) -> Vec<Pod> {
        let all = self.client.list_all::<Pod>(namespace, &Default::default()).await.expect("a list");
        let running = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        all.into_iter().filter(|pod| running(pod) && pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// Ends everything.
    pub async fn stop(self) {
        self.tasks.stop().await;
    }
}

fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into())
}

/// Places pods, runs them and lets them end, as a scheduler and kubelets would.
async fn cardboard(informers: Informers, client: Client, clock: Clock) {
    let pods = informers.of::<Pod>();
    let nodes = informers.of::<Node>();
    nodes.synced().await;
    pods.synced().await;
    let (mut changes, mut number) = (pods.changes(), 0_u32);
    let mut nodes_changed = nodes.changes();
    loop {
        let names: Vec<String> = nodes.store().iter().filter_map(|node| node.metadata.name.clone()).collect();
        for pod in pods.store().iter() {
            number += 1;
            step(&client, &clock, &pod, &names, number).await;
        }
        tokio::select! {
            biased;
            _ = changes.changed() => {}
            _ = nodes_changed.changed() => {}
        }
    }
}

async fn step(client: &Client, clock: &Clock, pod: &Pod, nodes: &[String], number: u32) {
    let meta = &pod.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or("");
    let name = meta.name.as_deref().unwrap_or("");
    let spec = pod.spec.clone().unwrap_or_default();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("");
    let ended = matches!(phase, "Succeeded" | "Failed");
    if meta.deletion_timestamp.is_some() {
        if !ended && spec.node_name.is_some() {
            let failed = Patch::Strategic(json!({"status": {"phase": "Failed"}}));
            let _ = client.patch_subresource::<Pod>(namespace, name, "status", &failed).await;
        }
        if spec.node_name.is_some() {
            let options = skiff_client::DeleteOptions::default().grace(0);
            let _ = client.delete::<Pod>(namespace, name, &options).await;
        }
        return;
    }
    if spec.node_name.is_none() {
        let pinned = spec
            .affinity
            .and_then(|affinity| affinity.node_affinity)
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution)
            .and_then(|required| required.node_selector_terms.into_iter().next())
            .and_then(|term| term.match_fields?.into_iter().next()?.values?.into_iter().next());
        let chosen = pinned.or_else(|| nodes.get(number as usize % nodes.len().max(1)).cloned());
        if let Some(node) = chosen {
            let _ = client.bind(namespace, name, meta.uid.as_deref().unwrap_or(""), &node).await;
        }
        return;
    }
    let first = spec.containers.first();
    let command = first.and_then(|container| container.command.clone()).unwrap_or_default();
    // The image is not run: the first word of the command says how the pod fares.
    let fate = match command.first().map(String::as_str) {
        Some("succeed") => "Succeeded",
        Some("fail") => "Failed",
        _ => "Running",
    };
    if phase != fate && !ended {
        let now = skiff_client::time::to_time(clock.now());
        let ready = if fate == "Running" && command.first().map(String::as_str) != Some("never-ready") {
            "True"
        } else {
            "False"
        };
        let ip = format!("10.244.{}.{}", (number / 250) % 250, number % 250 + 1);
        let status = json!({"status": {
            "phase": fate,
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "startTime": now,
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}],
        }});
        let _ = client.patch_subresource::<Pod>(namespace, name, "status", &Patch::Strategic(status)).await;
    }
}
