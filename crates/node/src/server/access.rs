//! Who may ask the kubelet what, as upstream's kubelet has it: the API server by its certificate,
//! everybody else by a bearer token that the API server knows (TokenReview) and what it lets them do
//! with this node (SubjectAccessReview of `nodes/metrics`, `nodes/stats`, … `nodes/proxy`).
//!
//! Answers are remembered for a while, so that a scraper costs the API server nothing.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Answer, error};
use crate::node::Node;

/// How long it is remembered whose a token is, and that it is nobody's.
const TOKEN_TTL: Duration = Duration::from_secs(120);
/// How long a yes is remembered.
const ALLOWED_TTL: Duration = Duration::from_secs(300);
/// How long a no is remembered.
const DENIED_TTL: Duration = Duration::from_secs(30);
/// Answers of each kind that are remembered: those who scrape a node are few.
const REMEMBERED_MAX: usize = 1_024;
/// The API server answers a review by then.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// Who sends a request, as far as the connection shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The API server, which has asked everything that is to be asked.
    ApiServer,
    /// Somebody who has to show a token.
    Unknown,
}

/// Somebody the API server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// What was answered lately.
#[derive(Default)]
pub(crate) struct Access {
    users: Mutex<Remembered<String, Option<User>>>,
    decisions: Mutex<Remembered<(User, &'static str, &'static str), bool>>,
}

/// Answers with the time until which they count.
struct Remembered<K, V>(HashMap<K, (Instant, V)>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq, V: Clone> Remembered<K, V> {
    fn get(&self, key: &K, now: Instant) -> Option<V> {
        self.0.get(key).filter(|(until, _)| now < *until).map(|(_, value)| value.clone())
    }

    fn put(&mut self, key: K, value: V, now: Instant, ttl: Duration) {
        if self.0.len() >= REMEMBERED_MAX {
            self.0.retain(|_, (until, _)| now < *until);
        }
        // Whoever shows a new token each time must not push out those who keep theirs.
        if self.0.len() < REMEMBERED_MAX {
            self.0.insert(key, (now + ttl, value));
        }
    }
}

/// Nothing when the request may be answered, else what it is answered instead.
pub(super) async fn check(
    node: &Node,
    caller: Caller,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), Box<Answer>> {
    if caller == Caller::ApiServer {
        return Ok(());
    }
    let unauthorized = || Box::new(error(StatusCode::UNAUTHORIZED, "Unauthorized"));
    let token = bearer(headers).ok_or_else(unauthorized)?;
    let user = match user_of(node, token).await {
        Ok(user) => user.ok_or_else(unauthorized)?,
        Err(why) => {
            tracing::error!(error = why, "unable to authenticate the request");
            return Err(unauthorized());
        }
    };
    let (verb, subresources) = (verb(method), subresources(path));
    let told = |what: &str| {
        let all = subresources.join(" ");
        format!("{what} (user={}, verb={verb}, resource=nodes, subresource(s)=[{all}])\n", user.name)
    };
    for subresource in &subresources {
        match may(node, &user, verb, subresource).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(why) => {
                tracing::error!(error = why, user = user.name, "unable to authorize the request");
                return Err(Box::new(error(StatusCode::INTERNAL_SERVER_ERROR, told("Authorization error"))));
            }
        }
    }
    Err(Box::new(error(StatusCode::FORBIDDEN, told("Forbidden"))))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// Of which subresource of the node one has to be allowed: any of them will do (KEP-2862).
fn subresources(path: &str) -> Vec<&'static str> {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if below("/stats") {
        return vec!["stats"];
    }
    if below("/metrics") {
        return vec!["metrics"];
    }
    if below("/logs") {
        return vec!["log"];
    }
    if below("/checkpoint") {
        return vec!["checkpoint"];
    }
    let fine = [("/pods", "pods"), ("/runningpods", "pods"), ("/healthz", "healthz"), ("/configz", "configz")];
    let found = fine.iter().find(|(root, _)| below(root)).map(|(_, subresource)| *subresource);
    found.into_iter().chain(["proxy"]).collect()
}

/// The user of a token; nothing for a token that is nobody's.
async fn user_of(node: &Node, token: &str) -> Result<Option<User>, String> {
    let now = node.clock.instant();
    if let Some(known) = node.access.users.lock().get(&token.to_owned(), now) {
        return Ok(known);
    }
    let review =
        TokenReview { spec: TokenReviewSpec { token: token.to_owned(), audiences: None }, ..TokenReview::default() };
    let answer = tokio::time::timeout(REVIEW_TIMEOUT, node.client.create(&review)).await;
    let answer = answer.map_err(|_| "the API server did not review the token in time")?;
    let status = answer.map_err(|error| error.to_string())?.status.unwrap_or_default();
    let user = status.user.filter(|_| status.authenticated == Some(true)).map(|user| User {
        name: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    });
    node.access.users.lock().put(token.to_owned(), user.clone(), now, TOKEN_TTL);
    Ok(user)
}

async fn may(node: &Node, user: &User, verb: &'static str, subresource: &'static str) -> Result<bool, String> {
    let now = node.clock.instant();
    let key = (user.clone(), verb, subresource);
    if let Some(known) = node.access.decisions.lock().get(&key, now) {
        return Ok(known);
    }
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: some(&user.name),
            uid: some(&user.uid),
            groups: (!user.groups.is_empty()).then(|| user.groups.clone()),
            extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
            resource_attributes: Some(ResourceAttributes {
                verb: some(verb),
                version: some("v1"),
                resource: some("nodes"),
                subresource: some(subresource),
                name: some(&node.config.name),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = tokio::time::timeout(REVIEW_TIMEOUT, node.client.create(&review)).await;
    let answer = answer.map_err(|_| "the API server did not review the access in time")?;
    let allowed = answer.map_err(|error| error.to_string())?.status.is_some_and(|status| status.allowed);
    let ttl = if allowed { ALLOWED_TTL } else { DENIED_TTL };
    node.access.decisions.lock().put(key, allowed, now, ttl);
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_of_a_subresource() {
        for (path, expected) in [
            ("/stats/summary", "stats"),
            ("/metrics", "metrics"),
            ("/metrics/cadvisor", "metrics"),
            ("/metricsx", "proxy"),
            ("/logs/", "log"),
            ("/pods", "pods proxy"),
            ("/runningpods/", "pods proxy"),
            ("/healthz", "healthz proxy"),
            ("/healthz/ping", "healthz proxy"),
            ("/configz", "configz proxy"),
            ("/exec/default/p/c", "proxy"),
            ("/containerLogs/default/p/c", "proxy"),
        ] {
            assert_eq!(subresources(path).join(" "), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn answers_are_forgotten_in_time_and_never_too_many() {
        let (mut known, start) = (Remembered::default(), Instant::now());
        known.put(0, "a", start, DENIED_TTL);
        assert_eq!(known.get(&0, start + Duration::from_secs(29)), Some("a"));
        assert_eq!(known.get(&0, start + Duration::from_secs(30)), None);
        for number in 0..2 * REMEMBERED_MAX {
            known.put(number, "b", start, ALLOWED_TTL);
        }
        assert_eq!(known.0.len(), REMEMBERED_MAX);
        assert_eq!(known.get(&1, start), Some("b"), "who was first stays");
    }
}
