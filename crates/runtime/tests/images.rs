//! Images from archives and registries. Unpacking sets owners, so most of it needs root.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use skiff_base::{Clock, Random};
use skiff_runtime::cri::AuthConfig;
use skiff_runtime::image::{ImageBuilder, ImageError, LayerFile, ProcessConfig};
use skiff_runtime::{ImageService, ImageStore, cri as v1};

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn store(dir: &Path) -> ImageStore {
    ImageStore::open(dir, Clock::system(), Random::system()).unwrap()
}

fn sha(bytes: &[u8]) -> String {
    let hex: String = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Two layers: the second hides a file of the first.
struct Sample {
    config: Vec<u8>,
    layers: Vec<Vec<u8>>,
}

fn sample() -> Sample {
    let layers = vec![tar(&[("etc/one", b"1"), ("etc/two", b"2")]), tar(&[("etc/.wh.one", b""), ("etc/three", b"3")])];
    let ids: Vec<_> = layers.iter().map(|layer| sha(layer)).collect();
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"User":"1000:1000","Entrypoint":["/app"],"Env":null}},
            "rootfs":{{"type":"layers","diff_ids":{}}}}}"#,
        architecture(),
        serde_json::to_string(&ids).unwrap()
    );
    Sample { config: config.into_bytes(), layers }
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn docker_archive(sample: &Sample) -> Vec<u8> {
    let manifest =
        r#"[{"Config":"config.json","RepoTags":["example.io/app:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    tar(&[
        ("a/layer.tar", &sample.layers[0]),
        ("b/layer.tar", &gzip(&sample.layers[1])),
        ("config.json", &sample.config),
        ("manifest.json", manifest.as_bytes()),
    ])
}

/// Manifest (gzip and zstd layers), index and blobs.
fn oci(sample: &Sample) -> (Vec<u8>, Vec<u8>, BTreeMap<String, Vec<u8>>) {
    let blobs = [sample.config.clone(), gzip(&sample.layers[0]), zstd(&sample.layers[1])];
    let part = |bytes: &[u8]| format!(r#"{{"mediaType":"x","digest":"{}","size":{}}}"#, sha(bytes), bytes.len());
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{},{}]}}"#,
        part(&blobs[0]),
        part(&blobs[1]),
        part(&blobs[2])
    )
    .into_bytes();
    let entry = |architecture: &str, digest: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":1,
                "platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
        )
    };
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
        entry("s390x", &sha(b"absent")),
        entry(architecture(), &sha(&manifest))
    )
    .into_bytes();
    let mut all: BTreeMap<String, Vec<u8>> = blobs.into_iter().map(|blob| (sha(&blob), blob)).collect();
    all.insert(sha(&manifest), manifest.clone());
    all.insert(sha(&index), index.clone());
    (manifest, index, all)
}

fn oci_archive(sample: &Sample) -> Vec<u8> {
    let (_, index, blobs) = oci(sample);
    let top = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{}","size":{},
            "annotations":{{"io.containerd.image.name":"example.io/app:2"}}}}]}}"#,
        sha(&index),
        index.len()
    );
    let names: Vec<_> = blobs.keys().map(|digest| format!("blobs/sha256/{}", &digest[7..])).collect();
    let mut files: Vec<(&str, &[u8])> = vec![("oci-layout", b"{}"), ("index.json", top.as_bytes())];
    files.extend(names.iter().map(String::as_str).zip(blobs.values().map(Vec::as_slice)));
    tar(&files)
}

fn check_layers(dir: &Path, image: &skiff_runtime::image::Image) {
    let layers = image.layer_names();
    assert_eq!(layers.len(), 2);
    let top = dir.join("layers").join(&layers[0]);
    assert_eq!(std::fs::read_to_string(top.join("etc/three")).unwrap(), "3");
    assert!(std::fs::symlink_metadata(top.join("etc/one")).is_ok(), "no whiteout");
    assert_eq!(std::fs::read_to_string(dir.join("layers").join(&layers[1]).join("etc/one")).unwrap(), "1");
}

#[test]
fn archives_of_both_kinds_load_compressed_or_not() {
    if !is_root() {
        return;
    }
    let sample = sample();
    let (docker, oci) = (docker_archive(&sample), oci_archive(&sample));
    for (name, archive) in [
        ("example.io/app:1", docker.clone()),
        ("example.io/app:1", gzip(&docker)),
        ("example.io/app:2", oci.clone()),
        ("example.io/app:2", zstd(&oci)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let loaded = store.load(archive.as_slice()).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].id, sha(&sample.config));
        assert_eq!(store.find(name).unwrap().id, loaded[0].id);
        check_layers(dir.path(), &loaded[0]);
    }
}

#[test]
fn a_reopened_store_has_the_same_images_and_removal_leaves_nothing() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let before = {
        let store = store(dir.path());
        store.load(docker_archive(&sample()).as_slice()).unwrap();
        store.load(oci_archive(&sample()).as_slice()).unwrap();
        format!("{:?}", store.list())
    };
    std::fs::create_dir(dir.path().join("layers/.unfinished")).unwrap();
    let store = store(dir.path());
    assert_eq!(format!("{:?}", store.list()), before);
    assert!(!dir.path().join("layers/.unfinished").exists());
    let image = store.find("example.io/app:1").unwrap();
    assert_eq!(image.names.len(), 2, "one configuration, two names");
    store.untag("example.io/app:1").unwrap();
    assert!(store.find("example.io/app:1").is_none() && store.find("example.io/app:2").is_some());
    store.remove(&image.id).unwrap();
    store.remove(&image.id).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("layers")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(dir.path().join("images/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn broken_archives_leave_nothing() {
    let sample = sample();
    let mut wrong = sample.layers[1].clone();
    wrong[0] ^= 1;
    let bad = Sample { config: sample.config.clone(), layers: vec![sample.layers[0].clone(), wrong] };
    for archive in [
        docker_archive(&bad),
        tar(&[("x", b"y")]),
        b"not a tar".to_vec(),
        Vec::new(),
        docker_archive(&sample)[..700].to_vec(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        store.load(archive.as_slice()).unwrap_err();
        assert!(store.list().is_empty());
        store.collect_garbage();
        assert_eq!(std::fs::read_dir(dir.path().join("layers")).unwrap().count(), 0);
    }
}

#[test]
fn built_images_share_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join("tool");
    std::fs::write(&tool, "binary").unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let store = store(&dir.path().join("data"));
    let build = |name: &str, argument: &str| {
        store
            .build(&ImageBuilder {
                name: name.into(),
                process: ProcessConfig {
                    entrypoint: vec!["/bin/tool".into(), argument.into()],
                    user: "65535".into(),
                    ..ProcessConfig::default()
                },
                files: vec![LayerFile::host("/bin/tool", &tool), LayerFile::text("/etc/passwd", "root:x:0:0::/:\n")],
                pinned: true,
            })
            .unwrap()
    };
    let (demo, pause) = (build("skiff.local/demo", "demo"), build("skiff.local/pause", "pause"));
    assert_ne!(demo.id, pause.id);
    assert_eq!(demo.layer_names(), pause.layer_names());
    assert_eq!(build("skiff.local/demo", "demo").id, demo.id);
    let changed = build("skiff.local/demo", "changed");
    assert_eq!(store.find("skiff.local/demo:latest").unwrap().id, changed.id);
    let file = store.layers_dir().join(&demo.layer_names()[0]).join("bin/tool");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "binary");
}

#[tokio::test]
async fn the_service_answers_as_the_interface_says() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.load(docker_archive(&sample()).as_slice()).unwrap();
    let spec = |image: &str| Some(v1::ImageSpec { image: image.into(), ..v1::ImageSpec::default() });
    let status = |image: &str| store.image_status(v1::ImageStatusRequest { image: spec(image), verbose: true });
    let found = status("example.io/app:1").await.unwrap().image.unwrap();
    assert_eq!(found.uid.unwrap().value, 1000);
    assert!(found.repo_digests[0].starts_with("example.io/app@sha256:"));
    assert_eq!(status(&found.id).await.unwrap().image.unwrap().id, found.id);
    assert!(status("absent").await.unwrap().image.is_none());
    assert_eq!(status("").await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let usage = store.image_fs_info(v1::ImageFsInfoRequest {}).await.unwrap();
    assert_eq!(usage.image_filesystems[0].used_bytes.unwrap().value, 3);
}

/// A registry in a thread, with tokens, a redirect and a stumble.
struct FakeRegistry {
    address: String,
}

impl FakeRegistry {
    fn start(sample: &Sample) -> Self {
        let (_, index, mut blobs) = oci(sample);
        blobs.insert("latest".into(), index);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (blobs, own) = (Arc::new(blobs), address.clone());
        let stumbled = Arc::new(std::sync::atomic::AtomicBool::new(false));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (blobs, own, stumbled) = (blobs.clone(), own.clone(), stumbled.clone());
                std::thread::spawn(move || serve(stream, &blobs, &own, &stumbled));
            }
        });
        Self { address }
    }
}

fn serve(
    mut stream: TcpStream,
    blobs: &BTreeMap<String, Vec<u8>>,
    own: &str,
    stumbled: &std::sync::atomic::AtomicBool,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut first, mut authorization) = (String::new(), String::new());
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) <= 2 {
                break;
            }
            if let Some((key, value)) = line.split_once(": ")
                && key.eq_ignore_ascii_case("authorization")
            {
                authorization = value.trim().to_owned();
            }
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        let (status, extra, body) = if path.starts_with("/token") {
            let good = authorization == "Basic dXNlcjpwYXNz" && path.contains("scope=repository%3Aapp%3Apull");
            let status = if good { "200 OK" } else { "401 Unauthorized" };
            (status, String::new(), br#"{"token":"secret"}"#.to_vec())
        } else if path.starts_with("/cdn/") {
            // The token must not have travelled with a redirect to elsewhere; here it is the same host.
            ("200 OK", String::new(), blobs[last].clone())
        } else if authorization != "Bearer secret" {
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"test\",scope=\"repository:app:pull\"\r\n"
            );
            ("401 Unauthorized", challenge, Vec::new())
        } else if !stumbled.swap(true, std::sync::atomic::Ordering::SeqCst) {
            ("503 Service Unavailable", String::new(), Vec::new())
        } else if path.contains("/blobs/") && blobs.contains_key(last) {
            ("307 Temporary Redirect", format!("Location: /cdn/{last}\r\n"), Vec::new())
        } else if let Some(blob) = blobs.get(last) {
            ("200 OK", String::new(), blob.clone())
        } else {
            ("404 Not Found", String::new(), b"MANIFEST_UNKNOWN".to_vec())
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{extra}\r\n", body.len());
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_pull_follows_tokens_redirects_and_indexes() {
    if !is_root() {
        return;
    }
    let sample = sample();
    let registry = FakeRegistry::start(&sample);
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let auth =
        |password: &str| AuthConfig { username: "user".into(), password: password.into(), ..AuthConfig::default() };
    let name = format!("{}/app", registry.address);
    let pull = |name: String, auth: Option<AuthConfig>| {
        let store = store.clone();
        async move { store.pull(&name, auth.as_ref()).await }
    };
    assert!(matches!(pull(name.clone(), None).await, Err(ImageError::Denied(_))));
    assert!(matches!(pull(name.clone(), Some(auth("wrong"))).await, Err(ImageError::Denied(_))));
    let image = pull(name.clone(), Some(auth("pass"))).await.unwrap();
    check_layers(dir.path(), &image);
    let (_, index, _) = oci(&sample);
    assert_eq!(image.digests.first().unwrap(), &format!("{name}@{}", sha(&index)));
    let absent = pull(format!("{name}:absent"), Some(auth("pass"))).await;
    assert!(matches!(absent, Err(ImageError::NotFound(_))), "{absent:?}");
    let by_digest = pull(format!("{name}@{}", sha(&index)), Some(auth("pass"))).await.unwrap();
    assert_eq!(by_digest.id, image.id);
}

/// Debian's `docker-registry` with a password.
struct DebianRegistry {
    process: Child,
    address: String,
    _dir: tempfile::TempDir,
}

/// `user:pass`
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuuZFBUbfXoM8LFiPx8LYlO/sXZB/Cwk3K\n";
const BASIC: &str = "Basic dXNlcjpwYXNz";

impl DebianRegistry {
    fn start() -> Option<Self> {
        if !Path::new("/usr/bin/docker-registry").exists() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let path = dir.path().display();
        std::fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {path}/data}}}}\n\
             http: {{addr: \"{address}\"}}\nauth: {{htpasswd: {{realm: test, path: {path}/htpasswd}}}}\n"
        );
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let process = Command::new("/usr/bin/docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { process, address, _dir: dir };
        for _ in 0..2_000 {
            if TcpStream::connect(&registry.address).is_ok() {
                return Some(registry);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("docker-registry does not listen");
    }

    /// One request; status line and headers in lower case.
    fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {BASIC}\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn push(&self, sample: &Sample) {
        let (_, index, blobs) = oci(sample);
        let (manifests, others): (Vec<_>, Vec<_>) =
            blobs.values().partition(|blob| blob.starts_with(br#"{"schemaVersion""#));
        for blob in others {
            let answer = self.request("POST", "/v2/app/blobs/uploads/", "x", b"");
            let location = answer.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
            let path = location.trim().split_once(&self.address).unwrap().1;
            let answer = self.request("PUT", &format!("{path}&digest={}", sha(blob)), "application/octet-stream", blob);
            assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        }
        for manifest in manifests.into_iter().filter(|manifest| **manifest != index) {
            let kind = "application/vnd.oci.image.manifest.v1+json";
            let answer = self.request("PUT", "/v2/app/manifests/v1", kind, manifest);
            assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        }
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_pull_from_debians_registry() {
    let Some(registry) = DebianRegistry::start().filter(|_| is_root()) else {
        return; // apt-get install docker-registry
    };
    let sample = sample();
    registry.push(&sample);
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let name = format!("{}/app:v1", registry.address);
    let denied = store.pull(&name, None).await;
    assert!(matches!(denied, Err(ImageError::Denied(_))), "{denied:?}");
    let auth = AuthConfig { auth: "dXNlcjpwYXNz".into(), ..AuthConfig::default() };
    let image = store.pull(&name, Some(&auth)).await.unwrap();
    assert_eq!(image.id, sha(&sample.config));
    check_layers(dir.path(), &image);
    let again = store.pull(&name, Some(&auth)).await.unwrap();
    assert_eq!(again.id, image.id);
}
