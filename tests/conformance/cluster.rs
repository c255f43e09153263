//! One cluster for all tests: a real `skiff up`, gone when the value is dropped.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::image;

/// The image of every test pod: Debian's static busybox.
pub(crate) const IMAGE: &str = "conformance.local/busybox:1";

/// One test waits for old versions to be forgotten, which else takes minutes. No other looks back further.
const COMPACTION: &str = "apiserver.etcd-compaction-interval=20s";

/// A running cluster.
pub(crate) struct Cluster {
    profile: String,
    home: tempfile::TempDir,
    /// A client that may do everything.
    pub(crate) client: kube::Client,
    /// The same, for `kubectl`.
    pub(crate) kubeconfig: PathBuf,
    /// Whether the machine has a `kubectl`; tests that need one say so where it lacks.
    pub(crate) kubectl: bool,
}

impl Cluster {
    /// Starts a cluster with the built binary and puts the test image in.
    pub(crate) async fn start() -> Self {
        let profile = format!("conf-{}", std::process::id());
        let home = tempfile::tempdir().unwrap();
        let output = skiff(&profile, &home, &["up", "--no-kubeconfig", "--extra-config", COMPACTION]);
        assert!(output.status.success(), "up: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(skiff(&profile, &home, &["kubeconfig"]).stdout).unwrap();
        let kubeconfig = home.path().join("kubeconfig");
        std::fs::write(&kubeconfig, &text).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(Kubeconfig::from_yaml(&text).unwrap(), &options).await;
        let client = kube::Client::try_from(config.unwrap()).unwrap();
        let kubectl = Command::new("kubectl").arg("version").arg("--client").output().is_ok();
        let cluster = Self { profile, home, client, kubeconfig, kubectl };
        cluster.load_image();
        cluster
    }

    /// Runs `skiff` on this cluster.
    pub(crate) fn skiff(&self, arguments: &[&str]) -> std::process::Output {
        skiff(&self.profile, &self.home, arguments)
    }

    fn load_image(&self) {
        let archive = self.home.path().join("image.tar");
        std::fs::write(&archive, image::busybox(IMAGE)).unwrap();
        let loaded = self.skiff(&["image", "load", archive.to_str().unwrap()]);
        assert!(loaded.status.success(), "load the image: {}", String::from_utf8_lossy(&loaded.stderr));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.skiff(&["delete"]);
    }
}

fn skiff(profile: &str, home: &tempfile::TempDir, arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_skiff"))
        .args(["--profile", profile])
        .args(arguments)
        .env("HOME", home.path())
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .output()
        .expect("run skiff")
}
