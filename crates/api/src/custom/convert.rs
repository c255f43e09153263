//! Conversion by webhook: objects cross from one version to another in a `ConversionReview`, and what comes back is
//! not believed before it is checked (`apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go`).
//!
//! Kinds that convert without a webhook do so in their own hooks; everything here passes them through.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use skiff_kinds::Kind;
use skiff_kinds::custom::{Conversion, CustomKind};
use skiff_object::errors::quote;
use skiff_object::path::Path;
use skiff_object::{Map, Tree, json, name};

use crate::errors::{ApiError, ApiResult};
use crate::outbound::{self, Address, Limits, Target, Trust};
use crate::server::ApiServer;
use crate::storage::Stored;
use crate::verbs::Subject;
use crate::write::encode_stored;

/// Upstream gives a conversion webhook as long.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects in one review: a list of many is several reviews, so that no webhook gets more than it can read.
const REVIEW_OBJECTS_MAX: usize = 500;
/// Bytes of objects in one review.
const REVIEW_BYTES_MAX: usize = 8 << 20;
/// Bytes of an answer: converted objects may be larger than what was sent.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The webhook, if objects of this kind need one.
fn webhook(kind: &dyn Kind) -> Option<(&CustomKind, &Tree)> {
    let custom = kind.custom()?;
    match custom.conversion() {
        Conversion::Webhook(webhook) => Some((custom, webhook)),
        Conversion::None => None,
    }
}

/// Whether reading objects of this kind may take a call to a webhook.
pub fn needs_webhook(kind: &dyn Kind) -> bool {
    webhook(kind).is_some()
}

/// Stored objects in the version that the kind serves; their order and their revisions stay.
///
/// # Errors
/// 500 when the webhook fails or answers what it may not.
pub async fn served(server: &ApiServer, kind: &dyn Kind, mut items: Vec<Stored>) -> ApiResult<Vec<Stored>> {
    let Some((_, webhook)) = webhook(kind) else { return Ok(items) };
    let wanted = kind.facts().api_version.as_str();
    let mut batch: Vec<(usize, Tree)> = Vec::new();
    let mut bytes = 0;
    for place in 0..items.len() {
        let object = json::decode_untyped(&items[place].value)
            .map_err(|error| ApiError::internal(format!("decode a stored object: {error}")))?;
        if object.str_at(&["apiVersion"]) == wanted {
            continue;
        }
        bytes += items[place].value.len();
        batch.push((place, object));
        if batch.len() == REVIEW_OBJECTS_MAX || bytes > REVIEW_BYTES_MAX {
            convert_batch(server, kind, webhook, std::mem::take(&mut batch), &mut items).await?;
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        convert_batch(server, kind, webhook, batch, &mut items).await?;
    }
    Ok(items)
}

async fn convert_batch(
    server: &ApiServer,
    kind: &dyn Kind,
    webhook: &Tree,
    batch: Vec<(usize, Tree)>,
    items: &mut [Stored],
) -> ApiResult<()> {
    let (places, objects): (Vec<usize>, Vec<Tree>) = batch.into_iter().unzip();
    let converted = review(server, webhook, objects, kind.facts().api_version.as_str()).await?;
    for (place, object) in places.into_iter().zip(converted) {
        items[place].value = json::encode_sorted(&object).into();
    }
    Ok(())
}

/// As [`served`], for one object.
///
/// # Errors
/// As [`served`].
pub async fn served_one(server: &ApiServer, kind: &dyn Kind, stored: Stored) -> ApiResult<Stored> {
    if !needs_webhook(kind) {
        return Ok(stored);
    }
    let mut converted = served(server, kind, vec![stored]).await?;
    converted.pop().ok_or_else(|| ApiError::internal("a conversion lost its object"))
}

/// As [`served`], for an object that may not be there.
///
/// # Errors
/// As [`served`].
pub async fn served_maybe(server: &ApiServer, kind: &dyn Kind, stored: Option<Stored>) -> ApiResult<Option<Stored>> {
    match stored {
        Some(stored) => served_one(server, kind, stored).await.map(Some),
        None => Ok(None),
    }
}

/// The canonical stored bytes of a served object.
///
/// # Errors
/// 500 when the webhook fails or answers what it may not.
pub async fn stored(server: &ApiServer, kind: &dyn Kind, object: &Tree) -> ApiResult<Bytes> {
    match webhook(kind) {
        Some((custom, webhook)) if custom.stored_api_version() != kind.facts().api_version.as_str() => {
            let mut object = object.clone();
            object.unset(&["metadata", "resourceVersion"]);
            let mut converted = review(server, webhook, vec![object], custom.stored_api_version()).await?;
            let converted = converted.pop().ok_or_else(|| ApiError::internal("a conversion lost its object"))?;
            encode_stored(kind, &converted)
        }
        _ => encode_stored(kind, object),
    }
}

/// An object that is not stored in another served version; `None` where that takes no webhook.
///
/// # Errors
/// 500 when the webhook fails or answers what it may not.
pub async fn between(server: &ApiServer, to: &dyn Kind, object: &Tree) -> ApiResult<Option<Tree>> {
    let Some((_, webhook)) = webhook(to) else { return Ok(None) };
    let mut converted = review(server, webhook, vec![object.clone()], to.facts().api_version.as_str()).await?;
    converted.pop().map(Some).ok_or_else(|| ApiError::internal("a conversion lost its object"))
}

/// Whether a served object is what was read (as [`served_one`] gave it): then there is nothing to write, whatever
/// the webhook makes of it.
pub fn is_unchanged(kind: &dyn Kind, object: &Tree, current: &Stored) -> bool {
    needs_webhook(kind)
        && crate::respond::served(kind, current).is_ok_and(|mut old| {
            let mut new = object.clone();
            old.unset(&["metadata", "resourceVersion"]);
            new.unset(&["metadata", "resourceVersion"]);
            old == new
        })
}

/// Whether an object lies in another version than its definition stores by now: the next write puts it into that
/// one, changed or not, which is how a storage version is left behind.
///
/// # Errors
/// When the object cannot be read.
pub async fn is_outdated(subject: &Subject) -> ApiResult<bool> {
    let Some((custom, _)) = webhook(subject.kind.as_ref()) else { return Ok(false) };
    let Some(stored) = subject.collection.get(&subject.namespace, &subject.name).await? else { return Ok(false) };
    let object = json::decode_untyped(&stored.value)
        .map_err(|error| ApiError::internal(format!("decode a stored object: {error}")))?;
    Ok(object.str_at(&["apiVersion"]) != custom.stored_api_version())
}

fn failure(message: String) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
}

async fn review(server: &ApiServer, webhook: &Tree, objects: Vec<Tree>, wanted: &str) -> ApiResult<Vec<Tree>> {
    let gvk = objects.first().map_or_else(String::new, |object| {
        format!("{}, Kind={}", object.str_at(&["apiVersion"]), object.str_at(&["kind"]))
    });
    let failed = |why: &dyn std::fmt::Display| failure(format!("conversion webhook for {gvk} failed: {why}"));
    let uid = server.random().uuid();
    let versions = webhook.list_at(&["conversionReviewVersions"]).iter().filter_map(Tree::as_str);
    let version = versions.into_iter().find(|version| matches!(*version, "v1" | "v1beta1"));
    let version = version.ok_or_else(|| failure("no supported conversion review versions".into()))?;
    let target = target(webhook.get("clientConfig").unwrap_or(&Tree::Null)).map_err(|why| failed(&why))?;
    let request = request(version, &uid, &objects, wanted).map_err(|error| failed(&error))?;
    let limits = Limits { timeout: TIMEOUT, answer_bytes_max: ANSWER_BYTES_MAX };
    let answer = server.outbound().send(&target, request, limits).await.map_err(|error| {
        failed(&format!("Post {}: {error}", quote(&format!("{}?timeout={}s", target.url(), TIMEOUT.as_secs()))))
    })?;
    if !answer.status().is_success() {
        return Err(failed(&outbound::refusal(&answer)));
    }
    let answer = json::decode_untyped(answer.body()).map_err(|error| failed(&error))?;
    let converted = read_answer(version, &uid, answer).map_err(|why| failed(&why))?;
    if converted.len() != objects.len() {
        return Err(failure(format!(
            "conversion webhook for {gvk} returned {} objects, expected {}",
            converted.len(),
            objects.len()
        )));
    }
    let mut checked = Vec::with_capacity(converted.len());
    for (index, (mut new, old)) in converted.into_iter().zip(objects).enumerate() {
        check(&mut new, &old, wanted).map_err(|why| {
            failure(format!("conversion webhook for {gvk} returned invalid converted object at index {index}: {why}"))
        })?;
        checked.push(new);
    }
    Ok(checked)
}

fn target(config: &Tree) -> Result<Target, String> {
    let text = |path: &[&str]| config.str_at(path).to_owned();
    let address = match config.get("service").filter(|service| !service.is_null()) {
        Some(service) => Address::Service {
            namespace: text(&["service", "namespace"]),
            name: text(&["service", "name"]),
            port: service.int_at(&["port"]).and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            path: text(&["service", "path"]),
        },
        None => Address::Url(text(&["url"])),
    };
    let mut target = Target::new(address);
    let bundle = config.str_at(&["caBundle"]);
    if !bundle.is_empty() {
        let authorities = STANDARD.decode(bundle).map_err(|error| format!("caBundle: {error}"))?;
        target.trust = Trust::Authorities(authorities);
    }
    Ok(target)
}

fn request(version: &str, uid: &str, objects: &[Tree], wanted: &str) -> Result<Request<Bytes>, http::Error> {
    let mut review = Tree::map();
    review.set(&["kind"], "ConversionReview");
    review.set(&["apiVersion"], format!("apiextensions.k8s.io/{version}"));
    review.set(&["request", "uid"], uid);
    review.set(&["request", "desiredAPIVersion"], wanted);
    review.set(&["request", "objects"], objects.to_vec());
    Request::post(format!("/?timeout={}s", TIMEOUT.as_secs()))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(json::encode_untyped(&review).into())
}

/// The converted objects, if the answer is one to our request and says that it succeeded.
fn read_answer(version: &str, uid: &str, mut answer: Tree) -> Result<Vec<Tree>, String> {
    if version == "v1" {
        let (found, kind) = (answer.str_at(&["apiVersion"]), answer.str_at(&["kind"]));
        if (found, kind) != ("apiextensions.k8s.io/v1", "ConversionReview") {
            return Err(format!(
                "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got {found}, Kind={kind}"
            ));
        }
    }
    let Some(response) = answer.get_mut("response").filter(|response| !response.is_null()) else {
        return Err("no response provided".into());
    };
    if version == "v1" && response.str_at(&["uid"]) != uid {
        return Err(format!("expected response.uid={}, got {}", quote(uid), quote(response.str_at(&["uid"]))));
    }
    let status = response.str_at(&["result", "status"]);
    if status != "Success" {
        let message = response.str_at(&["result", "message"]);
        return Err(match message {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            message => message.to_owned(),
        });
    }
    match response.as_map_mut().and_then(|map| map.remove("convertedObjects")) {
        Some(Tree::List(objects)) => Ok(objects),
        None | Some(Tree::Null) => Ok(Vec::new()),
        Some(_) => Err("response.convertedObjects is no list".into()),
    }
}

/// A webhook changes everything but metadata, and there labels and annotations.
fn check(new: &mut Tree, old: &Tree, wanted: &str) -> Result<(), String> {
    if new.str_at(&["apiVersion"]) != wanted {
        let found = new.str_at(&["apiVersion"]);
        return Err(format!("invalid groupVersion (expected {wanted}, received {found})"));
    }
    for (what, path) in [
        ("kind", &["kind"][..]),
        ("name", &["metadata", "name"]),
        ("namespace", &["metadata", "namespace"]),
        ("UID", &["metadata", "uid"]),
    ] {
        let (before, after) = (old.str_at(path), new.str_at(path));
        if before != after && what == "kind" {
            return Err(format!("invalid kind (expected {before}, received {after})"));
        }
        if before != after {
            return Err(format!("must have the same {what}: {before} != {after}"));
        }
    }
    let mut metadata = old.get("metadata").cloned().unwrap_or_else(Tree::map);
    let answered = match new.get("metadata") {
        None => return Err("missing metadata in converted object".into()),
        Some(Tree::Map(map)) => map.clone(),
        Some(other) => {
            return Err(format!("invalid metadata {} in converted object", skiff_object::errors::show(other)));
        }
    };
    for field in ["labels", "annotations"] {
        let before = old.at(&["metadata", field]).cloned();
        match answered.get(field).filter(|value| !value.is_null()) {
            None => {
                metadata.unset(&[field]);
            }
            Some(value @ Tree::Map(map)) => {
                if before.as_ref() != Some(value) {
                    check_texts(field, map, value)?;
                }
                metadata.set(&[field], value.clone());
            }
            Some(_) => return Err(format!("invalid metadata.{field} in converted object")),
        }
    }
    new.set(&["metadata"], metadata);
    Ok(())
}

fn check_texts(field: &'static str, map: &Map, value: &Tree) -> Result<(), String> {
    if let Some((key, _)) = map.iter().find(|(_, value)| value.as_str().is_none()) {
        return Err(format!("metadata.{field}[{}] must be a string in converted object", key.as_str()));
    }
    let root = Path::new("metadata");
    let wrong = match field {
        "labels" => name::labels(Some(value), root.child(field)),
        _ => name::annotations(Some(value), root.child(field)),
    };
    if wrong.is_empty() { Ok(()) } else { Err(skiff_object::errors::message(&wrong)) }
}
