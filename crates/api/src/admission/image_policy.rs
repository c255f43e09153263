//! `ImagePolicyWebhook`: another server decides which images may run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, header};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use skiff_object::time::parse_duration;
use skiff_object::{Map, Tree, json};
use tokio::time::Instant;

use super::{Attributes, Operation, Plugin};
use crate::errors::ApiResult;
use crate::outbound::{Limits, Target};
use crate::registry;
use crate::server::ApiServer;

/// Annotations of a pod that the server is told, by the end of their keys.
const TOLD: &str = ".image-policy.k8s.io/";
/// Marks what ran because nobody could be asked.
const FAILED_OPEN: &str = "alpha.image-policy.k8s.io/failed-open";
/// One question may take this long; upstream's.
const TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Answers that are remembered; upstream's.
const CACHE_MAX: usize = 1_024;
/// The pauses before the second try and those after it; upstream's default, and its factor.
const BACKOFF_DEFAULT: Duration = Duration::from_millis(500);
const BACKOFF_FACTOR: f64 = 1.5;
const TRIES: usize = 5;
/// What may be configured, and what holds when nothing is; upstream's.
const BACKOFF_RANGE: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(300)];
const ALLOW_TTL_DEFAULT: Duration = Duration::from_secs(300);
const DENY_TTL_DEFAULT: Duration = Duration::from_secs(30);
const TTL_RANGE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(1_800)];

/// What the administrator says.
#[derive(Clone, Debug)]
pub struct Settings {
    target: Target,
    allow_ttl: Duration,
    deny_ttl: Duration,
    backoff: Duration,
    default_allow: bool,
}

impl Settings {
    /// Reads `imagePolicy` of the plugin's configuration.
    ///
    /// # Errors
    /// A number out of its range, or a kubeconfig that is no good.
    pub fn read(config: &Tree, folder: &Path) -> Result<Self, String> {
        let policy = config.get("imagePolicy").unwrap_or(config);
        let pause = |field: &str, unit: Duration, default: Duration, [least, most]: [Duration; 2]| {
            let nanos = match policy.get(field) {
                None | Some(Tree::Null) => return Ok(default),
                Some(Tree::Str(text)) => parse_duration(text).map_err(|error| format!("{field}: {error}"))?,
                Some(_) => policy
                    .int_at(&[field])
                    .ok_or_else(|| format!("{field} is no number"))?
                    .saturating_mul(i64::try_from(unit.as_nanos()).unwrap_or(i64::MAX)),
            };
            match nanos {
                0 => Ok(default),
                -1_000_000_000 | -1_000_000 | -1 => Ok(Duration::ZERO),
                nanos => {
                    let asked = Duration::from_nanos(nanos.max(0).unsigned_abs());
                    if asked < least || asked > most {
                        return Err(format!("valid value is between {least:?} and {most:?}, got {asked:?}"));
                    }
                    Ok(asked)
                }
            }
        };
        let file = policy.str_at(&["kubeConfigFile"]);
        let path = folder.join(file);
        let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self {
            target: crate::kubeconfig::target(&text, path.parent().unwrap_or(folder))?,
            allow_ttl: pause("allowTTL", Duration::from_secs(1), ALLOW_TTL_DEFAULT, TTL_RANGE)?,
            deny_ttl: pause("denyTTL", Duration::from_secs(1), DENY_TTL_DEFAULT, TTL_RANGE)?,
            backoff: pause("retryBackoff", Duration::from_millis(1), BACKOFF_DEFAULT, BACKOFF_RANGE)?,
            default_allow: policy.bool_at(&["defaultAllow"]).unwrap_or(false),
        })
    }
}

/// See the [module](self).
pub struct ImagePolicyWebhook {
    settings: Option<Settings>,
    known: Mutex<BTreeMap<[u8; 32], (Instant, Answer)>>,
}

#[derive(Clone)]
struct Answer {
    allowed: bool,
    reason: String,
    annotations: Vec<(String, String)>,
}

impl ImagePolicyWebhook {
    /// With these settings; without any it refuses every pod.
    pub fn new(settings: Option<&Settings>) -> Self {
        Self { settings: settings.cloned(), known: Mutex::default() }
    }

    async fn ask(&self, server: &ApiServer, settings: &Settings, question: Vec<u8>) -> Result<Answer, String> {
        let key: [u8; 32] = Sha256::digest(&question).into();
        let now = server.clock().instant();
        if let Some((until, answer)) = self.known.lock().get(&key)
            && now < *until
        {
            return Ok(answer.clone());
        }
        let answer = asked(server, settings, question).await?;
        let ttl = if answer.allowed { settings.allow_ttl } else { settings.deny_ttl };
        if !ttl.is_zero() {
            let mut known = self.known.lock();
            if known.len() >= CACHE_MAX {
                known.retain(|_, (until, _)| now < *until);
            }
            if known.len() < CACHE_MAX {
                known.insert(key, (now + ttl, answer.clone()));
            }
        }
        Ok(answer)
    }
}

async fn asked(server: &ApiServer, settings: &Settings, question: Vec<u8>) -> Result<Answer, String> {
    let limits = Limits { timeout: TIMEOUT, answer_bytes_max: ANSWER_BYTES_MAX };
    let mut pause = settings.backoff;
    let mut problem = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            server.clock().sleep(pause).await;
            pause = pause.mul_f64(BACKOFF_FACTOR);
        }
        let request = Request::post("/")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .body(Bytes::from(question.clone()))
            .map_err(|error| error.to_string())?;
        match server.outbound().send(&settings.target, request, limits).await {
            Ok(answer) if answer.status().is_success() => {
                let review = json::decode_untyped(answer.body()).map_err(|error| error.to_string())?;
                return Ok(read(&review));
            }
            Ok(answer) if !answer.status().is_server_error() && answer.status().as_u16() != 429 => {
                return Err(format!("the image policy webhook answered {}", answer.status()));
            }
            Ok(answer) => problem = format!("the image policy webhook answered {}", answer.status()),
            Err(error) => problem = error.to_string(),
        }
    }
    Err(problem)
}

fn read(review: &Tree) -> Answer {
    let annotations = review.at(&["status", "auditAnnotations"]).and_then(Tree::as_map);
    Answer {
        allowed: review.bool_at(&["status", "allowed"]).unwrap_or(false),
        reason: review.str_at(&["status", "reason"]).to_owned(),
        annotations: annotations
            .into_iter()
            .flat_map(Map::iter)
            .map(|(key, value)| (key.as_str().to_owned(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    }
}

fn question(attributes: &Attributes<'_>, pod: &Tree) -> Vec<u8> {
    let mut review = Tree::map();
    review.set(&["kind"], "ImageReview");
    review.set(&["apiVersion"], "imagepolicy.k8s.io/v1alpha1");
    let lists: &[&str] = match attributes.subject.subresource.as_str() {
        "ephemeralcontainers" => &["ephemeralContainers"],
        _ => &["containers", "initContainers", "ephemeralContainers"],
    };
    let containers: Vec<Tree> = lists
        .iter()
        .flat_map(|list| pod.list_at(&["spec", list]))
        .map(|container| {
            let mut told = Tree::map();
            told.set(&["image"], container.str_at(&["image"]));
            told
        })
        .collect();
    review.set(&["spec", "containers"], containers);
    let mut annotations = Map::new();
    let given = pod.at(&["metadata", "annotations"]).and_then(Tree::as_map);
    for (key, value) in given.into_iter().flat_map(Map::iter).filter(|(key, _)| key.as_str().contains(TOLD)) {
        annotations.insert(key.clone(), value.clone());
    }
    if !annotations.is_empty() {
        review.set(&["spec", "annotations"], Tree::Map(annotations));
    }
    review.set(&["spec", "namespace"], attributes.subject.namespace.as_str());
    json::encode_untyped(&review)
}

#[async_trait]
impl Plugin for ImagePolicyWebhook {
    fn name(&self) -> &'static str {
        "ImagePolicyWebhook"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && registry::is(attributes.subject.kind.as_ref(), "", "pods")
            && matches!(attributes.subject.subresource.as_str(), "" | "ephemeralcontainers")
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        pod: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let review = question(attributes, pod);
        // An update that brings no image asks nobody.
        if attributes.operation == Operation::Update && old.is_some_and(|old| question(attributes, old) == review) {
            return Ok(());
        }
        let Some(settings) = &self.settings else {
            return Err(attributes.forbidden(pod, "no image policy webhook is configured"));
        };
        let answer = match self.ask(server, settings, review).await {
            Ok(answer) => answer,
            Err(why) if settings.default_allow => {
                tracing::warn!(error = why, "the image policy webhook cannot be asked; allowed by default");
                attributes.annotate(FAILED_OPEN, "true");
                return Ok(());
            }
            Err(why) => return Err(attributes.forbidden(pod, &why)),
        };
        for (key, value) in &answer.annotations {
            attributes.annotate(&format!("imagepolicywebhook.image-policy.k8s.io/{key}"), value.as_str());
        }
        match (answer.allowed, answer.reason.as_str()) {
            (true, _) => Ok(()),
            (false, "") => Err(attributes.forbidden(pod, "one or more images rejected by webhook backend")),
            (false, why) => {
                Err(attributes
                    .forbidden(pod, &format!("image policy webhook backend denied one or more images: {why}")))
            }
        }
    }
}
