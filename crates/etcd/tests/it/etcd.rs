//! etcd processes in scratch folders on free ports.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skiff_base::Clock;
use skiff_etcd::{EtcdStore, Keys, Settings, Tls};
use tempfile::TempDir;

/// How long a cluster may take to answer on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A cluster of etcd processes.
pub(crate) struct Cluster {
    folder: TempDir,
    members: Vec<Member>,
    tls: Option<Tls>,
    arguments: Vec<String>,
}

struct Member {
    name: String,
    client: String,
    peer: String,
    process: Option<Child>,
}

/// The binary, or a loud word that there is none.
pub(crate) fn binary() -> Option<PathBuf> {
    let named = std::env::var_os("SKIFF_TEST_ETCD").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        named.or_else(|| std::env::split_paths(&path).map(|folder| folder.join("etcd")).find(|path| path.exists()));
    if found.is_none() {
        eprintln!("SKIPPED: there is no etcd on this machine; install etcd-server or set SKIFF_TEST_ETCD");
    }
    found
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl Cluster {
    /// A cluster of `count` members that answers; `None` without a binary.
    pub(crate) async fn start(count: usize) -> Option<Self> {
        Self::start_with(count, None, &[]).await
    }

    /// The same with TLS, for which `arguments` name the files.
    pub(crate) async fn start_with(count: usize, tls: Option<Tls>, arguments: &[String]) -> Option<Self> {
        binary()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let ports = free_ports(count * 2);
        let members = ports.chunks(2).enumerate().map(|(index, ports)| Member {
            name: format!("m{index}"),
            client: format!("{scheme}://127.0.0.1:{}", ports[0]),
            peer: format!("http://127.0.0.1:{}", ports[1]),
            process: None,
        });
        let members = members.collect();
        let mut cluster = Self { folder: TempDir::new().unwrap(), members, tls, arguments: arguments.to_vec() };
        (0..count).for_each(|index| cluster.launch(index));
        let deadline = Clock::system().instant() + START_TIMEOUT;
        while let Err(error) = cluster.open().await {
            assert!(Clock::system().instant() < deadline, "etcd does not answer: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(cluster)
    }

    /// A cluster of one that begins with what `etcdctl snapshot restore` makes of a file.
    pub(crate) async fn start_restored(etcd: &Path, file: &Path) -> Self {
        let mut cluster = Self::start(1).await.expect("there is an etcd");
        cluster.kill(0);
        let data = cluster.folder().join("m0");
        std::fs::remove_dir_all(&data).unwrap();
        // The tool that belongs to this etcd, if there is one beside it.
        let tool = ["etcdutl", "etcdctl"].map(|tool| etcd.with_file_name(tool)).into_iter().find(|tool| tool.exists());
        let restored = Command::new(tool.unwrap_or_else(|| "etcdctl".into()))
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore", file.to_str().unwrap(), "--name", "m0", "--data-dir", data.to_str().unwrap()])
            .args(["--initial-cluster", &format!("m0={}", cluster.members[0].peer)])
            .args(["--initial-advertise-peer-urls", &cluster.members[0].peer])
            .output()
            .unwrap();
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        cluster.launch(0);
        while cluster.open().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cluster
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a member's process, with the data it left.
    pub(crate) fn launch(&mut self, index: usize) {
        let initial: Vec<String> =
            self.members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
        let data = self.folder.path().join(&self.members[index].name);
        let log = std::fs::File::create(self.folder.path().join(format!("{index}.log"))).unwrap();
        let member = &mut self.members[index];
        let process = Command::new(binary().unwrap())
            .args(["--name", &member.name, "--initial-cluster", &initial.join(",")])
            .args(["--listen-client-urls", &member.client, "--advertise-client-urls", &member.client])
            .args(["--listen-peer-urls", &member.peer, "--initial-advertise-peer-urls", &member.peer])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500", "--data-dir"])
            .arg(data)
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        member.process = Some(process);
    }

    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.members[index].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn signal(&self, index: usize, signal: Signal) {
        let process = self.members[index].process.as_ref().unwrap();
        kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), signal).unwrap();
    }

    pub(crate) fn settings(&self) -> Settings {
        let endpoints = self.members.iter().map(|member| member.client.clone()).collect();
        let keys = Keys::Plain { prefix: "".into() };
        Settings { tls: self.tls.clone(), ..Settings::new(endpoints, keys, Clock::system()) }
    }

    pub(crate) async fn open(&self) -> Result<EtcdStore, skiff_store::Error> {
        EtcdStore::open(self.settings()).await
    }

    /// The member that leads, as `etcdctl` tells.
    pub(crate) fn leader(&self) -> usize {
        (0..self.members.len())
            .find(|index| {
                let output = Command::new("etcdctl")
                    .env("ETCDCTL_API", "3")
                    .args(["--endpoints", &self.members[*index].client, "endpoint", "status", "-w", "simple"])
                    .output()
                    .unwrap();
                // endpoint, id, version, size, is leader, …
                String::from_utf8_lossy(&output.stdout).split(", ").nth(4) == Some("true")
            })
            .expect("a cluster that answers has a leader")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            if let Some(mut process) = self.members[index].process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}
