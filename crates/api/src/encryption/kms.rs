//! KMS v2: keys that a plugin on this machine wraps, over gRPC on a unix socket.
//!
//! Values are encrypted with keys derived from a seed, the seed by the plugin, and the wrapped seed
//! stands beside each value. The plugin is asked once for a seed to write with, once for each seed
//! that is read, and regularly for its status: when its key id changes, a new seed is wrapped. The
//! messages are written out by hand, so that nobody needs `protoc`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message;
use skiff_base::{Clock, Random};
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::ciphers::{Cipher, Gcm, SEED_BYTES};

/// How often a healthy plugin is asked for its status.
pub(super) const STATUS_INTERVAL: Duration = Duration::from_secs(60);
/// How often one that is not healthy is asked.
pub(super) const STATUS_INTERVAL_FAILED: Duration = Duration::from_secs(10);
/// How long a seed is written with after the last good status.
const SEED_TTL: Duration = Duration::from_secs(180);
/// Seeds that are kept unwrapped; there are as many as there were keys and starts of servers.
const SEEDS_MAX: usize = 1_024;
/// Bounds of what a plugin gives, as upstream has them.
const KEY_ID_BYTES_MAX: usize = 1_024;
const WRAPPED_BYTES_MAX: usize = 1_024;
const ANNOTATIONS_BYTES_MAX: usize = 32 * 1_024;

/// What is stored: upstream's `v2.EncryptedObject`.
#[derive(Clone, PartialEq, Message)]
struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    wrapped: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: std::collections::BTreeMap<String, Vec<u8>>,
    /// 0: the key itself; 1: a seed.
    #[prost(int32, tag = "5")]
    source: i32,
}

const SOURCE_KEY: i32 = 0;
const SOURCE_SEED: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
}

#[derive(Clone, PartialEq, Message)]
struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    annotations: std::collections::BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: std::collections::BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

/// A plugin.
pub(super) struct Kms {
    pub(super) name: String,
    channel: Channel,
    timeout: Duration,
    clock: Clock,
    random: Random,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    writing: Option<Arc<Writing>>,
    /// Since when it is known that the plugin still has the key.
    confirmed: Option<Instant>,
    /// Unwrapped, by what they are wrapped as.
    seeds: HashMap<Vec<u8>, Arc<Cipher>>,
    problem: Option<String>,
}

/// What values are written with.
struct Writing {
    cipher: Arc<Cipher>,
    key_id: String,
    wrapped: Vec<u8>,
    annotations: std::collections::BTreeMap<String, Vec<u8>>,
}

#[derive(Clone)]
struct Connector(String);

impl tower_service::Service<http::Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        // A leading @ is the abstract namespace, which std spells with a zero byte.
        let path = self.0.strip_prefix('@').map_or_else(|| self.0.clone(), |name| format!("\0{name}"));
        Box::pin(async move { UnixStream::connect(&path).await.map(TokioIo::new) })
    }
}

impl Kms {
    pub(super) fn new(name: String, socket: String, timeout: Duration, clock: Clock, random: Random) -> Self {
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(Connector(socket));
        Self { name, channel, timeout, clock, random, state: Mutex::default() }
    }

    async fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A, String>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let call = async {
            client.ready().await.map_err(|error| error.to_string())?;
            let path = PathAndQuery::from_static(method);
            let answer = client.unary(tonic::Request::new(request), path, ProstCodec::<Q, A>::default()).await;
            answer.map(tonic::Response::into_inner).map_err(|status| status.to_string())
        };
        tokio::time::timeout(self.timeout, call).await.map_err(|_| "context deadline exceeded".to_owned())?
    }

    /// Asks for the status, and wraps a new seed when the key is another; whether all is well.
    pub(super) async fn probe(&self) -> bool {
        let asked = self.clock.instant();
        let outcome = self.confirm(asked).await;
        if let Err(problem) = &outcome {
            tracing::error!(provider = self.name, error = problem, "the KMS provider is not healthy");
        }
        let is_well = outcome.is_ok();
        self.state.lock().problem = outcome.err();
        is_well
    }

    async fn confirm(&self, asked: Instant) -> Result<(), String> {
        let failed = |why: String| format!("kmsv2 Provider {} is not healthy, error: {why}", self.name);
        let status: StatusResponse =
            self.call("/v2.KeyManagementService/Status", StatusRequest {}).await.map_err(|error| {
                format!(
                    "failed to perform status section of the healthz check for KMS Provider {}, error: {error}",
                    self.name
                )
            })?;
        if status.healthz != "ok" {
            return Err(failed(format!("got unexpected healthz status: {}", status.healthz)));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            return Err(failed(format!("expected KMSv2 API version v2, got {}", status.version)));
        }
        check_key_id(&status.key_id).map_err(|why| failed(why.to_owned()))?;
        let same = self.state.lock().writing.as_ref().is_some_and(|writing| writing.key_id == status.key_id);
        if !same {
            let writing = self.wrap().await.map_err(failed)?;
            let mut state = self.state.lock();
            let key = seed_key(SOURCE_SEED, &writing.wrapped, &writing.key_id, &writing.annotations);
            keep(&mut state.seeds, key, Arc::clone(&writing.cipher));
            state.writing = Some(Arc::new(writing));
        }
        self.state.lock().confirmed = Some(asked);
        Ok(())
    }

    async fn wrap(&self) -> Result<Writing, String> {
        let mut seed = vec![0; SEED_BYTES];
        self.random.fill(&mut seed);
        let request = EncryptRequest { plaintext: seed.clone(), uid: self.random.uuid() };
        let answer: EncryptResponse = self.call("/v2.KeyManagementService/Encrypt", request).await?;
        check_key_id(&answer.key_id)?;
        check_wrapped(&answer.ciphertext)?;
        let size: usize = answer.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > ANNOTATIONS_BYTES_MAX {
            return Err(format!(
                "total size of annotations is {size}, which exceeds the max size of {ANNOTATIONS_BYTES_MAX}"
            ));
        }
        Ok(Writing {
            cipher: Arc::new(Cipher::Seed(seed)),
            key_id: answer.key_id,
            wrapped: answer.ciphertext,
            annotations: answer.annotations,
        })
    }

    /// Nothing when the plugin can be used, else why not.
    pub(super) fn problem(&self) -> Option<String> {
        let state = self.state.lock();
        let never = || Some(format!("KMS Provider {} was not asked yet", self.name));
        state.problem.clone().or_else(|| if state.writing.is_none() { never() } else { None })
    }

    /// Encrypts a value.
    pub(super) fn seal(&self, data: &[u8], aad: &[u8]) -> Result<Vec<u8>, String> {
        let (writing, confirmed) = {
            let state = self.state.lock();
            (state.writing.clone(), state.confirmed)
        };
        let (Some(writing), Some(confirmed)) = (writing, confirmed) else {
            return Err(self.problem().unwrap_or_else(|| "got unexpected nil transformer".into()));
        };
        if self.clock.instant() - confirmed > SEED_TTL {
            return Err(format!(
                "encryptedDEKSource of the KMS provider {} expired: its status was good {} seconds ago",
                self.name,
                (self.clock.instant() - confirmed).as_secs()
            ));
        }
        let data = writing.cipher.seal(data, aad, &self.random).ok_or("the value cannot be encrypted")?;
        let object = EncryptedObject {
            data,
            key_id: writing.key_id.clone(),
            wrapped: writing.wrapped.clone(),
            annotations: writing.annotations.clone(),
            source: SOURCE_SEED,
        };
        Ok(object.encode_to_vec())
    }

    /// Decrypts a value; says whether it should be written anew.
    pub(super) async fn open(&self, stored: &[u8], aad: &[u8]) -> Result<(Vec<u8>, bool), String> {
        let object = EncryptedObject::decode(stored).map_err(|error| error.to_string())?;
        if !matches!(object.source, SOURCE_KEY | SOURCE_SEED) {
            return Err(format!("unknown encryptedDEKSourceType: {}", object.source));
        }
        check_key_id(&object.key_id)?;
        check_wrapped(&object.wrapped)?;
        let key = seed_key(object.source, &object.wrapped, &object.key_id, &object.annotations);
        let known = self.state.lock().seeds.get(&key).map(Arc::clone);
        let cipher = match known {
            Some(cipher) => cipher,
            None => self.unwrap(&object, key).await?,
        };
        let data = cipher.open(&object.data, aad)?;
        let current = self.state.lock().writing.as_ref().map(|writing| writing.key_id.clone());
        let is_stale = object.source != SOURCE_SEED || current.is_some_and(|current| current != object.key_id);
        Ok((data, is_stale))
    }

    async fn unwrap(&self, object: &EncryptedObject, key: Vec<u8>) -> Result<Arc<Cipher>, String> {
        let request = DecryptRequest {
            ciphertext: object.wrapped.clone(),
            uid: self.random.uuid(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone(),
        };
        let answer: DecryptResponse = self
            .call("/v2.KeyManagementService/Decrypt", request)
            .await
            .map_err(|error| format!("failed to decrypt DEK, error: {error}"))?;
        let cipher = match object.source {
            SOURCE_SEED if answer.plaintext.len() >= SEED_BYTES => Cipher::Seed(answer.plaintext),
            SOURCE_SEED => {
                return Err(format!("invalid seed length {} used for key generation", answer.plaintext.len()));
            }
            _ => Cipher::Gcm(Gcm::new(&answer.plaintext).ok_or("crypto/aes: invalid key size")?),
        };
        let cipher = Arc::new(cipher);
        keep(&mut self.state.lock().seeds, key, Arc::clone(&cipher));
        Ok(cipher)
    }
}

fn keep(seeds: &mut HashMap<Vec<u8>, Arc<Cipher>>, key: Vec<u8>, cipher: Arc<Cipher>) {
    if seeds.len() >= SEEDS_MAX {
        // They come back from the plugin as they are needed.
        seeds.clear();
    }
    seeds.insert(key, cipher);
}

fn seed_key(
    source: i32,
    wrapped: &[u8],
    key_id: &str,
    annotations: &std::collections::BTreeMap<String, Vec<u8>>,
) -> Vec<u8> {
    EncryptedObject {
        data: Vec::new(),
        key_id: key_id.to_owned(),
        wrapped: wrapped.to_vec(),
        annotations: annotations.clone(),
        source,
    }
    .encode_to_vec()
}

fn check_key_id(key_id: &str) -> Result<(), &'static str> {
    match key_id.len() {
        0 => Err("failed to validate key id: keyID is empty"),
        size if size > KEY_ID_BYTES_MAX => Err("failed to validate key id: keyID exceeds the max size of 1024"),
        _ => Ok(()),
    }
}

fn check_wrapped(wrapped: &[u8]) -> Result<(), &'static str> {
    match wrapped.len() {
        0 => Err("failed to validate encrypted DEK source: encrypted DEK source is empty"),
        size if size > WRAPPED_BYTES_MAX => {
            Err("failed to validate encrypted DEK source: it exceeds the max size of 1024")
        }
        _ => Ok(()),
    }
}
