//! `kill -9` of the whole server, over and over, under load: nothing acknowledged is lost.
//!
//! Sixteen writers create and update objects through kube-rs while the server is killed; a watcher
//! resumes at its last version each time. Needs root; says so and ends when it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};

const KILLS: usize = 50;
const WRITERS: usize = 16;

struct Cluster {
    profile: String,
    home: tempfile::TempDir,
}

impl Cluster {
    fn skiff(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_skiff"))
            .args(["--profile", &self.profile])
            .args(arguments)
            .env("HOME", self.home.path())
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .output()
            .expect("run skiff")
    }

    fn up(&self) {
        let output = self.skiff(&["up", "--no-kubeconfig"]);
        assert!(output.status.success(), "up: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn kill(&self) {
        let pid = std::fs::read_to_string(PathBuf::from("/run/skiff").join(&self.profile).join("server.pid")).unwrap();
        let status = Command::new("kill").args(["-9", pid.trim()]).status().unwrap();
        assert!(status.success());
    }

    async fn client(&self) -> kube::Client {
        let output = self.skiff(&["kubeconfig"]);
        let kubeconfig = Kubeconfig::from_yaml(&String::from_utf8(output.stdout).unwrap()).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.connect_timeout = Some(Duration::from_secs(2));
        config.read_timeout = Some(Duration::from_secs(10));
        kube::Client::try_from(config).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.skiff(&["delete"]);
    }
}

/// What writers were told: the version of the last acknowledged write, by name.
type Acknowledged = Arc<Mutex<BTreeMap<String, u64>>>;

fn version(object: &ConfigMap) -> u64 {
    object.metadata.resource_version.as_deref().unwrap().parse().unwrap()
}

async fn write(api: Api<ConfigMap>, writer: usize, acknowledged: Acknowledged, done: Arc<AtomicBool>) {
    let mut round = 0;
    while !done.load(Ordering::Relaxed) {
        let name = format!("w{writer}-{round}");
        let object: ConfigMap = serde_json::from_value(serde_json::json!({
            "metadata": { "name": name }, "data": { "round": round.to_string() }
        }))
        .unwrap();
        match api.create(&PostParams::default(), &object).await {
            Ok(created) => {
                acknowledged.lock().unwrap().insert(name.clone(), version(&created));
                let patch = serde_json::json!({ "data": { "patched": "yes" } });
                if let Ok(patched) = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                    acknowledged.lock().unwrap().insert(name, version(&patched));
                }
                round += 1;
            }
            // It had been written, only the answer was lost.
            Err(kube::Error::Api(status)) if status.code == 409 => round += 1,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await, // the server is dead just now
        }
    }
}

/// Follows every change, resuming at the last version seen; gives the names whose creation it saw.
async fn follow(api: Api<ConfigMap>, from: u64, done: Arc<AtomicBool>) -> BTreeSet<String> {
    use futures::StreamExt;
    let mut seen = BTreeSet::new();
    let mut last = from;
    loop {
        let finished = done.load(Ordering::Relaxed);
        let Ok(stream) = api.watch(&WatchParams::default().timeout(5), &last.to_string()).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    let at = version(&object);
                    assert!(at > last, "versions only grow: {at} after {last}");
                    last = at;
                    seen.insert(object.metadata.name.unwrap());
                }
                Ok(WatchEvent::Bookmark(_) | WatchEvent::Deleted(_)) => {}
                Ok(WatchEvent::Error(error)) => panic!("the watch was refused at {last}: {error:?}"),
                Err(_) => break,
            }
        }
        if finished {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_lose_nothing_acknowledged() {
    if !nix::unistd::geteuid().is_root() {
        println!("not root: kills were not tested");
        return;
    }
    let cluster = Cluster { profile: format!("kill-{}", std::process::id()), home: tempfile::tempdir().unwrap() };
    cluster.up();
    let client = cluster.client().await;
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let start = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap().parse().unwrap();
    let acknowledged = Acknowledged::default();
    let (writers_done, watcher_done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(api.clone(), writer, Arc::clone(&acknowledged), Arc::clone(&writers_done)));
    }
    let mut watcher = tokio::task::JoinSet::new();
    watcher.spawn(follow(api.clone(), start, Arc::clone(&watcher_done)));

    let mut highest = 0;
    for round in 0..KILLS {
        let before = acknowledged.lock().unwrap().len();
        // Killed in the middle of writing: after some, different every time.
        while acknowledged.lock().unwrap().len() < before + 20 + round * 7 % 50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cluster.kill();
        cluster.up();
        let listed = api.list(&ListParams::default()).await.unwrap();
        let revision: u64 = listed.metadata.resource_version.unwrap().parse().unwrap();
        assert!(revision >= highest, "the revision went back from {highest} to {revision}");
        highest = revision;
    }
    writers_done.store(true, Ordering::Relaxed);
    while writers.join_next().await.is_some() {}
    watcher_done.store(true, Ordering::Relaxed);
    let seen = watcher.join_next().await.unwrap().unwrap();

    let stored: BTreeMap<String, u64> = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .map(|object| (object.metadata.name.clone().unwrap(), version(&object)))
        .collect();
    let acknowledged = acknowledged.lock().unwrap();
    for (name, wanted) in acknowledged.iter() {
        let found = stored.get(name).unwrap_or_else(|| panic!("{name} was acknowledged at {wanted} and is gone"));
        assert!(found >= wanted, "{name} was acknowledged at {wanted} and is back at {found}");
        assert!(seen.contains(name), "the watcher missed {name}");
    }
    println!("{KILLS} kills, {} acknowledged objects, all there and all seen", acknowledged.len());
}
