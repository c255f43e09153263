//! A store that answers as etcd: to our own engine, which must find the contract kept, and to
//! `etcdctl`.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use skiff_base::{Clock, Shutdown, Tasks};
use skiff_etcd::{EtcdStore, Facade, Keys, Settings, serve};
use skiff_store::memory::MemoryStore;
use skiff_store::suite::Subject;
use skiff_store::{Event, EventKind, Expect, Range, Store};
use tempfile::TempDir;

/// A memory store behind a socket.
struct Served {
    folder: TempDir,
    store: Arc<MemoryStore>,
    tasks: Tasks,
}

impl Served {
    fn new(keys: Keys) -> Self {
        let (clock, tasks) = (Clock::system(), Tasks::new("test", Shutdown::new()));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let folder = TempDir::new().unwrap();
        let facade =
            Facade { store: store.clone(), keys, name: "test".into(), folder: None, clock, tasks: tasks.clone() };
        serve(facade, &folder.path().join("etcd.sock")).unwrap();
        Self { folder, store, tasks }
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.folder.path().join("etcd.sock").display())
    }

    /// What `etcdctl` says; `None` without one.
    fn etcdctl(&self, arguments: &[&str], input: &str) -> Option<Output> {
        let mut command = Command::new(etcdctl()?);
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint()]).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        Some(child.wait_with_output().unwrap())
    }

    fn check(&self, arguments: &[&str], input: &str, expected: &str) {
        let Some(output) = self.etcdctl(arguments, input) else { return };
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.trim(), expected.trim(), "etcdctl {arguments:?}: {complaint}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.shutdown().signal();
    }
}

fn etcdctl() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("etcdctl")).find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: there is no etcdctl on this machine; install etcd-client");
    }
    found
}

struct FacadeSubject {
    served: Served,
    store: Arc<EtcdStore>,
}

impl FacadeSubject {
    async fn new() -> Option<Self> {
        let served = Served::new(Keys::kubernetes("/registry", "c").unwrap());
        let store = Arc::new(Self::open(&served).await);
        Some(Self { served, store })
    }

    async fn open(served: &Served) -> EtcdStore {
        let keys = Keys::Plain { prefix: "".into() };
        EtcdStore::open(Settings::new(vec![served.endpoint()], keys, Clock::system())).await.unwrap()
    }
}

#[async_trait]
impl Subject for FacadeSubject {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = Arc::new(Self::open(&self.served).await);
    }

    fn lease_ttl(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn precision(&self) -> Duration {
        Duration::from_millis(500)
    }
}

skiff_store::suite!(contract, real time, || async { FacadeSubject::new().await });

fn kubernetes() -> Served {
    Served::new(Keys::kubernetes("/registry", "c").unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn etcdctl_reads_and_writes_what_the_api_server_does() {
    let served = kubernetes();
    let put = |key: &'static str, value: &'static str| served.store.put(key.into(), value.into(), Expect::Any, None);
    put("c/registry/core/pods/default/web", r#"{"kind":"Pod"}"#).await.unwrap();
    put("c/registry/core/nodes//one", r#"{"kind":"Node"}"#).await.unwrap();
    put("c/registry/apps/deployments/default/web", r#"{"kind":"Deployment"}"#).await.unwrap();
    served.check(
        &["get", "/registry", "--prefix", "--keys-only"],
        "",
        "/registry/deployments/default/web\n\n/registry/minions/one\n\n/registry/pods/default/web",
    );
    served.check(&["get", "/registry/pods/default/web", "--print-value-only"], "", r#"{"kind":"Pod"}"#);
    served.check(
        &["get", "/registry", "--prefix", "--keys-only", "--sort-by", "MODIFY", "--order", "DESCEND", "--limit", "2"],
        "",
        "/registry/deployments/default/web\n\n/registry/minions/one",
    );

    let mut changes = served.store.watch("".into(), "".into(), None).await.unwrap();
    served.check(&["put", "/registry/configmaps/default/a", "{}"], "", "OK");
    served.check(&["del", "/registry/pods/", "--prefix"], "", "1");
    if etcdctl().is_some() {
        let mut seen = Vec::new();
        while seen.len() < 2 {
            if let Some(Ok(Event::Change { kind, entry, .. })) = changes.next().await {
                seen.push((kind, String::from_utf8(entry.key.to_vec()).unwrap()));
            }
        }
        let expected = [
            (EventKind::Put, "c/registry/core/configmaps/default/a".to_owned()),
            (EventKind::Delete, "c/registry/core/pods/default/web".to_owned()),
        ];
        assert_eq!(seen, expected, "the API server's watches see what etcdctl writes");
    }
    served.check(&["get", "/registry/pods/default/web", "--rev", "4", "--print-value-only"], "", r#"{"kind":"Pod"}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn etcdctl_makes_transactions_and_leases() {
    let served = kubernetes();
    let transaction = "create(\"a\") = \"0\"\n\nput a 1\nput b 2\nget a\n\nget a\n\n";
    served.check(&["txn"], transaction, "SUCCESS\n\nOK\n\nOK\n\na\n1");
    served.check(&["txn"], transaction, "FAILURE\n\na\n1");
    served.check(&["txn"], "ver(\"a\") > \"0\"\nval(\"b\") = \"2\"\n\ndel a b\n\n\n", "SUCCESS\n\n1");
    served.check(&["get", "", "--prefix", "--keys-only"], "", "b");
    let Some(granted) = served.etcdctl(&["lease", "grant", "100"], "") else { return };
    let said = String::from_utf8_lossy(&granted.stdout).into_owned();
    let id = said.split(' ').nth(1).unwrap();
    served.check(&["put", "c", "3", "--lease", id], "", "OK");
    let live = served.etcdctl(&["lease", "timetolive", id, "--keys"], "").unwrap();
    let live = String::from_utf8_lossy(&live.stdout).into_owned();
    assert!(live.contains("granted with TTL(100s)") && live.contains("attached keys([c])"), "{live}");
    served.check(&["lease", "keep-alive", "--once", id], "", &format!("lease {id} keepalived with TTL(100)"));
    served.check(&["lease", "revoke", id], "", &format!("lease {id} revoked"));
    served.check(&["get", "c"], "", "");
    let refused = served.etcdctl(&["defrag"], "").unwrap();
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.contains("Skiff's store has nothing to defragment"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn etcdctl_watches_and_asks_for_the_state() {
    let served = kubernetes();
    let Some(program) = etcdctl() else { return };
    let store = served.store.clone();
    store.put("c/registry/core/pods/a/x".into(), "1".into(), Expect::Any, None).await.unwrap();
    let mut watch = Command::new(program)
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &served.endpoint(), "watch", "/registry/pods/", "--prefix", "--rev", "2", "--prev-kv"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let mut next = |count: usize| -> Vec<String> { lines.by_ref().take(count).map(Result::unwrap).collect() };
    assert_eq!(next(3), ["PUT", "/registry/pods/a/x", "1"]);
    store.put("c/registry/core/configmaps/a/x".into(), "1".into(), Expect::Any, None).await.unwrap();
    store.put("c/registry/core/pods/a/x".into(), "2".into(), Expect::Any, None).await.unwrap();
    assert_eq!(next(5), ["PUT", "/registry/pods/a/x", "1", "/registry/pods/a/x", "2"]);
    store.delete("c/registry/core/pods/a/x".into(), Expect::Any).await.unwrap();
    assert_eq!(next(5), ["DELETE", "/registry/pods/a/x", "2", "/registry/pods/a/x", ""]);
    watch.kill().unwrap();
    watch.wait().unwrap();

    let state = served.etcdctl(&["endpoint", "status", "-w", "simple"], "").unwrap();
    let state = String::from_utf8_lossy(&state.stdout).into_owned();
    assert!(state.contains(", 3.6.0+skiff, 0 B, true, "), "{state}");
    let health = served.etcdctl(&["endpoint", "health"], "").unwrap();
    assert!(health.status.success(), "{health:?}");
    let members = served.etcdctl(&["member", "list"], "").unwrap();
    assert!(String::from_utf8_lossy(&members.stdout).contains(&served.endpoint()), "{members:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_real_etcd_goes_on_with_a_snapshot() {
    const KEYS: usize = 3_000;
    let served = kubernetes();
    let (Some(etcd), Some(_)) = (crate::etcd::binary(), etcdctl()) else { return };
    let store = served.store.clone();
    for index in 0..KEYS {
        let (key, value) = (format!("c/registry/core/pods/default/p{index:05}"), "x".repeat(index % 900));
        store.put(key.into(), value.into(), Expect::Any, None).await.unwrap();
    }
    let large = "y".repeat(1 << 20);
    store.put("c/registry/core/secrets/default/large".into(), large.clone().into(), Expect::Any, None).await.unwrap();
    store.put("c/registry/core/pods/default/p00007".into(), "twice".into(), Expect::Any, None).await.unwrap();
    for index in 0..300 {
        let lease = store.grant(Duration::from_secs(10_000 + index)).await.unwrap();
        store.put(format!("c/etcd/leased{index}").into(), "1".into(), Expect::Any, Some(lease.id)).await.unwrap();
    }
    store.delete("c/registry/core/pods/default/p00008".into(), Expect::Any).await.unwrap();

    let file = served.folder.path().join("snapshot.db");
    let saved = served.etcdctl(&["snapshot", "save", file.to_str().unwrap()], "").unwrap();
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    let restored = crate::etcd::Cluster::start_restored(&etcd, &file).await;
    let other = restored.open().await.unwrap();
    let all = other.range(Range::default()).await.unwrap();
    // A restored etcd goes on at the revision that was saved.
    assert!(all.revision >= store.revision(), "{} {}", all.revision, store.revision());
    let ours = store.range(Range::default()).await.unwrap();
    let keys = Keys::kubernetes("/registry", "c").unwrap();
    let mut expected: Vec<_> = ours
        .entries
        .into_iter()
        .map(|entry| skiff_store::Entry { key: keys.to_etcd(&entry.key).unwrap(), ..entry })
        .collect();
    expected.sort_by(|one, other| one.key.cmp(&other.key));
    assert_eq!(all.entries.len(), expected.len());
    for (found, expected) in all.entries.iter().zip(&expected) {
        assert!(found == expected, "{:?} {:?}", found.key, expected.key);
    }
    assert_eq!(other.leases().await.unwrap().len(), 300);
}
