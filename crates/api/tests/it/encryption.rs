//! Resources that are stored encrypted: what is on the disk, and that nobody above notices.

use std::path::Path;
use std::sync::Arc;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use prost::Message;
use skiff_api::encryption::{Encryption, Settings};
use skiff_api::{Config, bootstrap};
use skiff_base::{Clock, Random, Shutdown, Tasks};
use skiff_store::memory::MemoryStore;
use skiff_store::{Expect, Store};

use crate::grpc;
use crate::support::{Api, CONFIG_MAPS, api_over};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const SECRET: &[u8] = b"test/registry/core/secrets/default/s";
const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";
const KEY_1: &str = "{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}";
const KEY_2: &str = "{name: key2, secret: ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=}";

async fn started(
    folder: &Path,
    resources: &str,
    store: &Arc<MemoryStore>,
    tasks: &Tasks,
) -> Result<Arc<dyn Store>, String> {
    encrypted(folder, resources, store, tasks).await.map(|(_, store)| store)
}

/// The encryption itself, too.
async fn encrypted(
    folder: &Path,
    resources: &str,
    store: &Arc<MemoryStore>,
    tasks: &Tasks,
) -> Result<(Arc<Encryption>, Arc<dyn Store>), String> {
    let file = folder.join("encryption.yaml");
    std::fs::write(&file, format!("{HEAD}{resources}")).unwrap();
    let settings = Settings { file, reload: false };
    let store: Arc<dyn Store> = store.clone();
    Encryption::start(&settings, store, Clock::system(), Random::seeded(11), tasks.clone()).await
}

async fn api(folder: &Path, resources: &str, store: &Arc<MemoryStore>) -> Api {
    let tasks = Tasks::new("test", Shutdown::new());
    let wrapped = started(folder, resources, store, &tasks).await.unwrap();
    api_over(Arc::clone(store), |config| Config { store: wrapped, tasks, ..config }).await
}

async fn raw(store: &MemoryStore, key: &[u8]) -> Vec<u8> {
    store.get(key, None).await.unwrap().entry.unwrap().value.to_vec()
}

fn starts(value: &[u8], prefix: &str) -> bool {
    value.starts_with(prefix.as_bytes())
}

fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Clock::system()))
}

#[tokio::test]
async fn every_cipher_is_written_with_upstreams_prefix_and_read_by_get_list_and_watch() {
    for (provider, prefix) in [
        ("aescbc", "k8s:enc:aescbc:v1:key1:"),
        ("aesgcm", "k8s:enc:aesgcm:v1:key1:"),
        ("secretbox", "k8s:enc:secretbox:v1:key1:"),
    ] {
        let (folder, store) = (tempfile::tempdir().unwrap(), memory());
        let resources =
            format!("- {{resources: [secrets], providers: [{{{provider}: {{keys: [{KEY_1}]}}}}, {{identity: {{}}}}]}}");
        let api = api(folder.path(), &resources, &store).await;
        let watch = api.open(Method::GET, &format!("{SECRETS}?watch=1&timeoutSeconds=1"), &[], b"").await;
        assert_eq!(
            api.post(SECRETS, r#"{"metadata":{"name":"s"},"data":{"k":"c2VjcmV0"}}"#).await.status,
            StatusCode::CREATED
        );
        api.post(CONFIG_MAPS, r#"{"metadata":{"name":"c"},"data":{"k":"plain"}}"#).await;
        let stored = raw(&store, SECRET).await;
        assert!(starts(&stored, prefix), "{provider}");
        assert!(!stored.windows(8).any(|part| part == b"c2VjcmV0"), "{provider}");
        assert!(starts(&raw(&store, b"test/registry/core/configmaps/default/c").await, "{"));
        assert_eq!(api.get(&format!("{SECRETS}/s")).await.at(&["data", "k"]), "c2VjcmV0");
        assert!(api.get(SECRETS).await.at(&["items"]).contains("c2VjcmV0"));
        let told = watch.into_body().collect().await.unwrap();
        assert!(told.windows(8).any(|part| part == b"c2VjcmV0"), "{provider}");
        assert_eq!(api.delete(&format!("{SECRETS}/s")).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn keys_are_rotated_by_updates_that_change_nothing() {
    let (folder, store) = (tempfile::tempdir().unwrap(), memory());
    let rule = |providers: &str| format!("- {{resources: [secrets], providers: [{providers}]}}");
    let plain = crate::support::api_over(store.clone(), |config| config).await;
    plain.post(SECRETS, r#"{"metadata":{"name":"s"},"data":{"k":"c2VjcmV0"}}"#).await;
    let before = plain.get(&format!("{SECRETS}/s")).await;
    let first = rule(&format!("{{aesgcm: {{keys: [{KEY_1}]}}}}, {{identity: {{}}}}"));
    let both = rule(&format!("{{aesgcm: {{keys: [{KEY_2}, {KEY_1}]}}}}, {{identity: {{}}}}"));
    let none = rule(&format!("{{identity: {{}}}}, {{aesgcm: {{keys: [{KEY_2}, {KEY_1}]}}}}"));
    for (resources, prefix) in [(first, "k8s:enc:aesgcm:v1:key1:"), (both, "k8s:enc:aesgcm:v1:key2:"), (none, "{")] {
        let api = api(folder.path(), &resources, &store).await;
        let read = api.get(&format!("{SECRETS}/s")).await;
        assert_eq!(read.at(&["data"]), before.at(&["data"]));
        let version = read.at(&["metadata", "resourceVersion"]);
        let body = String::from_utf8(read.body.to_vec()).unwrap();
        let updated = api.put(&format!("{SECRETS}/s"), &body).await;
        assert_ne!(updated.at(&["metadata", "resourceVersion"]), version);
        assert!(starts(&raw(&store, SECRET).await, prefix), "{prefix}");
        // Now it is as it should be: nothing is written.
        let again = api.put(&format!("{SECRETS}/s"), std::str::from_utf8(&updated.body).unwrap()).await;
        assert_eq!(again.at(&["metadata", "resourceVersion"]), updated.at(&["metadata", "resourceVersion"]));
    }
}

#[tokio::test]
async fn a_value_that_was_moved_or_whose_key_is_gone_is_an_error_that_names_it() {
    let (folder, store) = (tempfile::tempdir().unwrap(), memory());
    let rule = |key: &str| format!("- {{resources: ['*.*'], providers: [{{aesgcm: {{keys: [{key}]}}}}]}}");
    let tasks = Tasks::new("test", Shutdown::new());
    let wrapped = started(folder.path(), &rule(KEY_1), &store, &tasks).await.unwrap();
    wrapped.put(SECRET.into(), "{}".into(), Expect::Any, None).await.unwrap();
    let other = bytes::Bytes::from_static(b"test/registry/core/secrets/default/moved");
    store.put(other.clone(), raw(&store, SECRET).await.into(), Expect::Any, None).await.unwrap();
    let error = wrapped.get(&other, None).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "unable to transform key \"test/registry/core/secrets/default/moved\": cipher: message authentication failed"
    );
    let wrapped = started(folder.path(), &rule(KEY_2), &store, &tasks).await.unwrap();
    let error = wrapped.get(SECRET, None).await.unwrap_err().to_string();
    assert!(error.ends_with("no matching key was found for the provided transformer"), "{error}");
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Wrapped {
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
}

/// A plugin that wraps by turning bits around.
fn plugin(key_id: Arc<Mutex<String>>, calls: Arc<Mutex<Vec<String>>>) -> grpc::Handler {
    Arc::new(move |path, message| {
        calls.lock().push(path.rsplit('/').next().unwrap().to_owned());
        let key_id = key_id.lock().clone();
        let turned = |bytes: &[u8]| bytes.iter().map(|byte| !byte).collect::<Vec<u8>>();
        match path {
            "/v2.KeyManagementService/Status" => {
                Ok(Status { version: "v2".into(), healthz: "ok".into(), key_id }.encode_to_vec())
            }
            "/v2.KeyManagementService/Encrypt" | "/v2.KeyManagementService/Decrypt" => {
                // Field 1 is what is to be turned in both; the request's second field is a uid.
                let request = Wrapped::decode(message).map_err(|error| error.to_string())?;
                Ok(Wrapped { bytes: turned(&request.bytes), key_id }.encode_to_vec())
            }
            other => Err(format!("no {other}")),
        }
    })
}

#[tokio::test]
async fn a_kms_plugin_wraps_the_seed_once_and_its_key_is_rotated() {
    let (folder, store) = (tempfile::tempdir().unwrap(), memory());
    let plugins = Tasks::new("plugins", Shutdown::new());
    let (key_id, calls) = (Arc::new(Mutex::new("one".to_owned())), Arc::new(Mutex::new(Vec::new())));
    let socket = folder.path().join("kms.sock");
    grpc::serve_unix(&socket, &plugins, plugin(Arc::clone(&key_id), Arc::clone(&calls)));
    let resources = format!(
        "- {{resources: [secrets], providers: [{{kms: {{apiVersion: v2, name: mine, endpoint: 'unix://{}'}}}}, \
         {{identity: {{}}}}]}}",
        socket.display()
    );
    let one = api(folder.path(), &resources, &store).await;
    for name in ["s", "t"] {
        one.post(SECRETS, &format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"k":"c2VjcmV0"}}}}"#)).await;
    }
    assert!(starts(&raw(&store, SECRET).await, "k8s:enc:kms:v2:mine:"));
    assert_eq!(one.get(&format!("{SECRETS}/s")).await.at(&["data", "k"]), "c2VjcmV0");
    assert_eq!(*calls.lock(), ["Status", "Encrypt"]);
    // Another server, another key: what was written is unwrapped once and written anew when updated.
    *key_id.lock() = "two".into();
    calls.lock().clear();
    let two = api(folder.path(), &resources, &store).await;
    let read = two.get(&format!("{SECRETS}/s")).await;
    assert_eq!(read.at(&["data", "k"]), "c2VjcmV0");
    assert_eq!(two.get(&format!("{SECRETS}/t")).await.at(&["data", "k"]), "c2VjcmV0");
    assert_eq!(*calls.lock(), ["Status", "Encrypt", "Decrypt"]);
    let updated = two.put(&format!("{SECRETS}/s"), std::str::from_utf8(&read.body).unwrap()).await;
    assert_ne!(updated.at(&["metadata", "resourceVersion"]), read.at(&["metadata", "resourceVersion"]));
    plugins.stop().await;
}

#[tokio::test]
async fn without_its_plugin_a_server_starts_says_so_and_refuses_writes() {
    let (folder, store) = (tempfile::tempdir().unwrap(), memory());
    let resources = "- {resources: [secrets], providers: [{kms: {apiVersion: v2, name: gone, endpoint: \
                     'unix:///nowhere/kms.sock'}}, {identity: {}}]}";
    let api = api(folder.path(), resources, &store).await;
    let refused = api.post(SECRETS, r#"{"metadata":{"name":"s"}}"#).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.line().contains("KMS Provider gone"), "{}", refused.line());
    assert_eq!(api.post(CONFIG_MAPS, r#"{"metadata":{"name":"c"}}"#).await.status, StatusCode::CREATED);
    bootstrap::run(&api.server).await.unwrap();
}

#[tokio::test]
async fn what_upstream_encrypted_can_be_read() {
    use aes_gcm::aead::{Aead, KeyInit, Payload};
    let (folder, store) = (tempfile::tempdir().unwrap(), memory());
    let rule = format!("- {{resources: [secrets], providers: [{{aesgcm: {{keys: [{KEY_1}]}}}}]}}");
    // Nonce, then what is sealed with upstream's key in etcd as additional data.
    let cipher = aes_gcm::Aes256Gcm::new(b"0123456789abcdef0123456789abcdef".into());
    let nonce = [7_u8; 12];
    let msg = br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","namespace":"default","uid":"u"},"type":"Opaque"}"#;
    let sealed = cipher.encrypt(&nonce.into(), Payload { msg, aad: b"/registry/secrets/default/s" }).unwrap();
    let value = [b"k8s:enc:aesgcm:v1:key1:".as_slice(), &nonce, &sealed].concat();
    store.put(SECRET.into(), value.into(), Expect::Any, None).await.unwrap();
    let api = api(folder.path(), &rule, &store).await;
    assert_eq!(api.get(&format!("{SECRETS}/s")).await.at(&["metadata", "uid"]), "u");
    // And the other way around.
    api.post(SECRETS, r#"{"metadata":{"name":"t"},"data":{"k":"c2VjcmV0"}}"#).await;
    let stored = raw(&store, b"test/registry/core/secrets/default/t").await;
    let stored = stored.strip_prefix(b"k8s:enc:aesgcm:v1:key1:".as_slice()).unwrap();
    let (nonce, sealed) = stored.split_first_chunk::<12>().unwrap();
    let payload = Payload { msg: sealed, aad: b"/registry/secrets/default/t" };
    let plain = cipher.decrypt(&(*nonce).into(), payload).unwrap();
    assert!(plain.windows(8).any(|part| part == b"c2VjcmV0"));
}

#[tokio::test]
async fn a_changed_configuration_is_taken_over_and_a_bad_one_is_not() {
    let (folder, store) = (tempfile::tempdir().unwrap(), memory());
    let rule = |providers: &str| format!("- {{resources: [secrets], providers: [{providers}]}}");
    let write = |resources: &str| {
        std::fs::write(folder.path().join("encryption.yaml"), format!("{HEAD}{resources}")).unwrap();
    };
    let tasks = Tasks::new("test", Shutdown::new());
    let first = rule(&format!("{{aesgcm: {{keys: [{KEY_1}]}}}}, {{identity: {{}}}}"));
    let (encryption, wrapped) = encrypted(folder.path(), &first, &store, &tasks).await.unwrap();
    let api = api_over(Arc::clone(&store), |config| Config { store: wrapped, tasks, ..config }).await;
    let secret = |name: &str| format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"k":"c2VjcmV0"}}}}"#);
    api.post(SECRETS, &secret("s")).await;
    assert!(starts(&raw(&store, SECRET).await, "k8s:enc:aesgcm:v1:key1:"));

    write(&rule(&format!("{{secretbox: {{keys: [{KEY_2}]}}}}, {{aesgcm: {{keys: [{KEY_1}]}}}}")));
    encryption.reload().await.unwrap();
    api.post(SECRETS, &secret("t")).await;
    let second = b"test/registry/core/secrets/default/t";
    assert!(starts(&raw(&store, second).await, "k8s:enc:secretbox:v1:key2:"));
    for name in ["s", "t"] {
        assert_eq!(api.get(&format!("{SECRETS}/{name}")).await.at(&["data", "k"]), "c2VjcmV0");
    }
    // The old is written with the new key when it is written at all.
    let patch = r#"{"metadata":{"labels":{"a":"b"}}}"#;
    assert_eq!(api.patch("merge", &format!("{SECRETS}/s"), patch).await.line(), "200");
    assert!(starts(&raw(&store, SECRET).await, "k8s:enc:secretbox:v1:key2:"));

    let gone = "{kms: {apiVersion: v2, name: gone, endpoint: 'unix:///nowhere/kms.sock', timeout: 1s}}";
    for bad in ["- {resources: [secrets], providers: []}".to_owned(), rule(gone), "nonsense".to_owned()] {
        write(&bad);
        encryption.reload().await.unwrap_err();
        assert_eq!(api.get(&format!("{SECRETS}/s")).await.at(&["data", "k"]), "c2VjcmV0", "{bad}");
    }
}

#[tokio::test]
async fn a_running_server_follows_its_plugin_to_another_key() {
    let (folder, store) = (tempfile::tempdir().unwrap(), memory());
    let plugins = Tasks::new("plugins", Shutdown::new());
    let (key_id, calls) = (Arc::new(Mutex::new("one".to_owned())), Arc::new(Mutex::new(Vec::new())));
    let socket = folder.path().join("kms.sock");
    grpc::serve_unix(&socket, &plugins, plugin(Arc::clone(&key_id), Arc::clone(&calls)));
    let resources = format!(
        "- {{resources: [secrets], providers: [{{kms: {{apiVersion: v2, name: mine, endpoint: 'unix://{}'}}}}]}}",
        socket.display()
    );
    let tasks = Tasks::new("test", Shutdown::new());
    let (encryption, wrapped) = encrypted(folder.path(), &resources, &store, &tasks).await.unwrap();
    let api = api_over(Arc::clone(&store), |config| Config { store: wrapped, tasks, ..config }).await;
    api.post(SECRETS, r#"{"metadata":{"name":"s"},"data":{"k":"c2VjcmV0"}}"#).await;
    encryption.probe().await;
    assert_eq!(*calls.lock(), ["Status", "Encrypt", "Status"], "the same key wraps no other seed");
    let written_with = async |name: &str| {
        let key = format!("test/registry/core/secrets/default/{name}");
        let stored = raw(&store, key.as_bytes()).await;
        let sealed = Sealed::decode(stored.strip_prefix(b"k8s:enc:kms:v2:mine:".as_slice()).unwrap()).unwrap();
        sealed.key_id
    };
    assert_eq!(written_with("s").await, "one");
    *key_id.lock() = "two".into();
    encryption.probe().await;
    api.post(SECRETS, r#"{"metadata":{"name":"t"},"data":{"k":"c2VjcmV0"}}"#).await;
    assert_eq!(written_with("t").await, "two");
    let read = api.get(&format!("{SECRETS}/s")).await;
    assert_eq!(read.at(&["data", "k"]), "c2VjcmV0");
    // An update that changes nothing brings the old object to the new key.
    assert_eq!(api.put(&format!("{SECRETS}/s"), std::str::from_utf8(&read.body).unwrap()).await.line(), "200");
    assert_eq!(written_with("s").await, "two");
    plugins.stop().await;
    encryption.probe().await;
    assert!(encryption.check().is_err(), "a plugin that is gone is told of");
    assert_eq!(api.get(&format!("{SECRETS}/s")).await.at(&["data", "k"]), "c2VjcmV0", "its seeds are known");
}

/// The key in what KMS v2 stores.
#[derive(Clone, PartialEq, Message)]
struct Sealed {
    #[prost(string, tag = "2")]
    key_id: String,
}
