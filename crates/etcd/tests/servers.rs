//! Two API servers on one etcd: what one writes the other shows, one leads, and both stand behind
//! the `kubernetes` Service until one goes.

use std::net::{IpAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skiff_api::authn::UserInfo;
use skiff_api::authz::rbac::Rbac;
use skiff_api::endpoint_lease;
use skiff_api::{ApiServer, Config, Local};
use skiff_base::{Clock, Random, Shutdown, Tasks};
use skiff_client::lease::{Candidate, elect};
use skiff_client::{Body, Client, Endpoint, Informers, ListOptions, TransportError};
use skiff_etcd::{EtcdStore, Keys, PREFIX, Settings};
use tempfile::TempDir;

struct Etcd {
    process: Child,
    client: String,
    _folder: TempDir,
}

impl Etcd {
    /// An etcd of one member, or a loud word that there is none.
    fn start() -> Option<Self> {
        let ports: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let url = |index: usize| format!("http://127.0.0.1:{}", ports[index].local_addr().unwrap().port());
        let (client, peer, folder) = (url(0), url(1), TempDir::new().unwrap());
        drop(ports);
        let spawned = Command::new("etcd")
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--data-dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            Ok(process) => Some(Self { process, client, _folder: folder }),
            Err(error) => {
                eprintln!("SKIPPED: cannot start etcd ({error}); install etcd-server");
                None
            }
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

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

/// One server of the two.
struct Server {
    api: Arc<ApiServer>,
    client: Client,
    tasks: Tasks,
    clock: Clock,
}

impl Server {
    async fn start(etcd: &Etcd, cluster: &str, address: [u8; 4]) -> Self {
        let (clock, random) = (Clock::system(), Random::system());
        let tasks = Tasks::new(cluster, Shutdown::new());
        let keys = Keys::kubernetes(PREFIX, cluster).unwrap();
        let store =
            Arc::new(EtcdStore::open(Settings::new(vec![etcd.client.clone()], keys, clock.clone())).await.unwrap());
        let authorizer = Rbac::start(store.clone(), cluster, clock.clone(), &tasks).await.unwrap();
        let key = skiff_api::authn::jws::SigningKey::generate().unwrap();
        let api = ApiServer::new(Config {
            authorizer,
            advertise: (address, 6443).into(),
            endpoint_lease: endpoint_lease::Settings { is_shared: true },
            ..Config::new(cluster, store, clock.clone(), random, tasks.clone(), key)
        })
        .unwrap();
        skiff_api::bootstrap::run(&api).await.unwrap();
        let local = api.local(UserInfo::new("admin", &["system:masters"]));
        Self { api, client: Client::new(Arc::new(LocalEndpoint(local)), "test"), tasks, clock }
    }

    fn compete(&self, identity: &str) -> tokio::sync::watch::Receiver<bool> {
        let candidate =
            Candidate { namespace: "kube-system".into(), name: "kube-scheduler".into(), identity: identity.into() };
        elect(self.client.clone(), self.clock.clone(), &self.tasks, candidate)
    }

    async fn addresses(&self) -> Vec<IpAddr> {
        let endpoints: Endpoints = self.client.find("default", "kubernetes").await.unwrap().expect("made at the start");
        let addresses = endpoints.subsets.into_iter().flatten().flat_map(|subset| subset.addresses.unwrap_or_default());
        addresses.map(|address| address.ip.parse().unwrap()).collect()
    }

    /// Waits until the `kubernetes` Service has these endpoints, as this server's watch tells.
    async fn until_addresses(&self, expected: &[IpAddr]) {
        let informers = Informers::new(self.client.clone(), self.tasks.group("informers"), Random::system());
        let endpoints = informers.of::<Endpoints>();
        let mut changes = endpoints.changes();
        let all = async {
            while self.addresses().await != expected {
                changes.changed().await.unwrap();
            }
        };
        // A lease, a look at it and some slack.
        let waited = tokio::time::timeout(Duration::from_secs(40), all).await;
        assert!(waited.is_ok(), "{:?} instead of {expected:?}", self.addresses().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_etcd_are_one_cluster() {
    let Some(etcd) = Etcd::start() else { return };
    let one = Server::start(&etcd, "one", [10, 89, 1, 1]).await;
    // Its identity within the process is its own; what is shared is the prefix.
    let other = Server::start(&etcd, "other", [10, 89, 2, 1]).await;

    // A cache that follows before the write, and a read after it.
    let informers = Informers::new(other.client.clone(), other.tasks.group("informers"), Random::system());
    let maps = informers.of::<ConfigMap>();
    let mut changes = maps.changes();
    let metadata =
        ObjectMeta { name: Some("written-by-one".into()), namespace: Some("default".into()), ..ObjectMeta::default() };
    let written = one.client.create(&ConfigMap { metadata, ..ConfigMap::default() }).await.unwrap();
    let read: ConfigMap = other.client.find("default", "written-by-one").await.unwrap().expect("the other reads it");
    assert_eq!(read.metadata.resource_version, written.metadata.resource_version);
    let listed = other.client.list::<ConfigMap>("default", &ListOptions::default()).await.unwrap();
    assert!(listed.items.iter().any(|map| map.metadata.name == written.metadata.name), "a list is of now");
    let seen = async {
        while maps.get("default", "written-by-one").is_none() {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), seen).await.expect("a watch of the other tells it");

    let both = ["10.89.1.1".parse().unwrap(), "10.89.2.1".parse().unwrap()];
    one.until_addresses(&both).await;

    let mut first = one.compete("one");
    tokio::time::timeout(Duration::from_secs(10), first.wait_for(|leads| *leads)).await.unwrap().unwrap();
    let mut second = other.compete("other");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!*second.borrow_and_update(), "one leads");
    one.tasks.stop().await;
    drop(one.api);
    // A lease of 15 s, looked at every 2 s.
    tokio::time::timeout(Duration::from_secs(25), second.wait_for(|leads| *leads)).await.unwrap().unwrap();
    other.until_addresses(&both[1..]).await;
    other.tasks.stop().await;
}
