//! What the engine survives: killed, paused and leaderless members, with writers and watchers
//! that go on, and TLS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use skiff_etcd::{EtcdStore, Tls};
use skiff_store::{Error, Event, EventKind, Expect, Range, Revision, Store, Watch};

use crate::etcd::Cluster;

/// Writers that count their own keys up, each write resting on the one before.
struct Writers {
    is_over: Arc<AtomicBool>,
    store: Arc<EtcdStore>,
}

const WRITERS: usize = 4;

impl Writers {
    /// Writes until told to stop; how often each writer was told that it wrote.
    async fn run(&self) -> Vec<u64> {
        join_all((0..WRITERS).map(|writer| self.count(writer))).await
    }

    async fn count(&self, writer: usize) -> u64 {
        let key = Bytes::from(format!("w{writer}"));
        let (mut acknowledged, mut last) = (0, None);
        while !self.is_over.load(Ordering::Acquire) {
            let expect = last.map_or(Expect::Absent, Expect::Revision);
            let value = Bytes::from((acknowledged + 1).to_string());
            match self.store.put(key.clone(), value, expect, None).await {
                Ok(put) => {
                    acknowledged += 1;
                    last = Some(put.entry.mod_revision);
                }
                // Each writer is alone on its key, so nothing can stand in its way.
                Err(error @ Error::Conflict { .. }) => panic!("writer {writer}: {error:?}"),
                Err(error) => {
                    eprintln!("writer {writer}: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        acknowledged
    }
}

/// Follows a watch until it has seen `until` and gives what every key came to.
async fn follow(mut watch: Watch, after: Revision, until: impl Fn() -> Option<Revision>) -> BTreeMap<Bytes, u64> {
    let mut seen = BTreeMap::new();
    let mut last = after;
    while until().is_none_or(|until| last < until) {
        let Ok(event) = tokio::time::timeout(Duration::from_millis(200), watch.next()).await else { continue };
        match event.expect("the watch goes on").expect("the watch does not fail") {
            Event::Change { kind, entry, .. } => {
                assert_eq!((kind, entry.mod_revision), (EventKind::Put, last + 1), "nothing twice, nothing missing");
                let value: u64 = String::from_utf8(entry.value.to_vec()).unwrap().parse().unwrap();
                assert_eq!(seen.insert(entry.key, value).unwrap_or(0) + 1, value);
                last = entry.mod_revision;
            }
            Event::Progress(revision) => assert!(revision >= last),
        }
    }
    seen
}

/// Runs writers and a watcher while `disturb` does its worst, and checks that every
/// acknowledged write is there and was seen once.
async fn disturbed(cluster: &mut Cluster, disturb: impl AsyncFnOnce(&mut Cluster)) {
    let store = Arc::new(cluster.open().await.unwrap());
    let watch = store.watch(Bytes::new(), Bytes::new(), None).await.unwrap();
    let after = store.revision();
    let writers = Writers { is_over: Arc::default(), store: Arc::clone(&store) };
    let end = std::sync::OnceLock::new();
    let disturbing = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        disturb(cluster).await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        writers.is_over.store(true, Ordering::Release);
    };
    let writing = async {
        let acknowledged = writers.run().await;
        let all = store.range(Range::default()).await.unwrap();
        end.set(all.revision).unwrap();
        (acknowledged, all)
    };
    let following = follow(watch, after, || end.get().copied());
    let ((), (acknowledged, all), seen) = tokio::join!(disturbing, writing, following);
    eprintln!("{acknowledged:?} writes were acknowledged");
    assert_eq!(all.entries.len(), WRITERS);
    for (entry, acknowledged) in all.entries.iter().zip(acknowledged) {
        assert_eq!(entry.version, acknowledged, "{entry:?}");
        assert_eq!(seen.get(&entry.key), Some(&acknowledged));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_etcd_that_comes_back_loses_nothing() {
    let Some(mut cluster) = Cluster::start(1).await else { return };
    disturbed(&mut cluster, async |cluster: &mut Cluster| {
        for _ in 0..3 {
            cluster.kill(0);
            tokio::time::sleep(Duration::from_millis(300)).await;
            cluster.launch(0);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_of_three_is_replaced() {
    let Some(mut cluster) = Cluster::start(3).await else { return };
    disturbed(&mut cluster, async |cluster: &mut Cluster| {
        let leader = cluster.leader();
        cluster.kill(leader);
        tokio::time::sleep(Duration::from_secs(4)).await;
        cluster.launch(leader);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_member_is_left_for_another() {
    let Some(mut cluster) = Cluster::start(3).await else { return };
    disturbed(&mut cluster, async |cluster: &mut Cluster| {
        // Every one in turn, so that the one in use is among them.
        for index in 0..3 {
            cluster.signal(index, Signal::SIGSTOP);
            tokio::time::sleep(Duration::from_secs(8)).await;
            cluster.signal(index, Signal::SIGCONT);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_without_majority_fails_calls_in_time() {
    let Some(mut cluster) = Cluster::start(3).await else { return };
    let store = cluster.open().await.unwrap();
    cluster.kill(0);
    cluster.kill(1);
    let call = store.put("a".into(), "1".into(), Expect::Any, None);
    let result = tokio::time::timeout(Duration::from_secs(30), call).await.expect("every call has a deadline");
    assert!(matches!(result, Err(Error::Unavailable(_))), "{result:?}");
    assert!(store.check().await.is_err());
    cluster.launch(0);
    let mut tries = 0;
    while let Err(error) = store.check().await {
        tries += 1;
        assert!(tries < 20, "{error}");
    }
    assert!(store.range(Range::default()).await.unwrap().count <= 1);
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "etcd-ca");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_checked_on_both_sides() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = tempfile::TempDir::new().unwrap();
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (certificate, key) = authority.issue("server");
    let arguments = [
        format!("--cert-file={}", write("server.crt", &certificate)),
        format!("--key-file={}", write("server.key", &key)),
        format!("--trusted-ca-file={}", write("ca.crt", &authority.pem)),
        "--client-cert-auth".to_owned(),
    ];
    let tls = |trusts: &Authority, identity: Option<(String, String)>| Tls {
        authority: trusts.pem.clone().into_bytes(),
        identity: identity.map(|(certificate, key)| (certificate.into_bytes(), key.into_bytes())),
    };
    let good = tls(&authority, Some(authority.issue("client")));
    let Some(cluster) = Cluster::start_with(1, Some(good), &arguments).await else { return };
    assert!(cluster.folder().exists());
    let store = cluster.open().await.unwrap();
    store.put("a".into(), "1".into(), Expect::Absent, None).await.unwrap();
    for bad in [
        tls(&stranger, Some(authority.issue("client"))),
        tls(&authority, Some(stranger.issue("client"))),
        tls(&authority, None),
    ] {
        let opened = EtcdStore::open(skiff_etcd::Settings { tls: Some(bad), ..cluster.settings() }).await;
        assert!(matches!(&opened, Err(Error::Unavailable(_))), "{opened:?}");
    }
    let opened = EtcdStore::open(skiff_etcd::Settings { tls: None, ..cluster.settings() }).await;
    assert!(matches!(&opened, Err(Error::Invalid(why)) if why.contains("etcd-cafile")), "{opened:?}");
}
