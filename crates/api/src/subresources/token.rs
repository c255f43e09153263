//! `serviceaccounts/token`: a token bound to an account and, if wanted, to a pod, node or secret.

use std::time::Duration;

use http::{Response, StatusCode};
use skiff_object::Tree;

use crate::admission::exchanged;
use crate::authn::service_account::{Bound, ObjectRef};
use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult, Qualified};
use crate::negotiate::{self, Offer};
use crate::request::options::WriteOptions;
use crate::server::ApiServer;
use crate::verbs::Subject;
use crate::write::{self, Expected};
use crate::{meta, respond};

const API_VERSION: &str = "authentication.k8s.io/v1";
const KIND: Qualified<'_> = Qualified { group: "authentication.k8s.io", name: "TokenRequest" };
/// A request that does not say gets an hour.
const SECONDS_DEFAULT: i64 = 3_600;
/// Upstream's bounds.
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;

/// Issues a token.
///
/// # Errors
/// 404 without the account, 409 for a bound object that is another one, 422 for bad times.
pub async fn issue(server: &ApiServer, call: &mut Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let form = negotiate::accept(&call.headers, &call.query, Offer::PLAIN)?;
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let ty = respond::type_named(API_VERSION, "TokenRequest")
        .ok_or_else(|| ApiError::internal("TokenRequest is not in the schema"))?;
    let expected = Expected { api_version: API_VERSION, kind: "TokenRequest", schema: skiff_kinds::schema(), ty };
    let mut request = write::decode_body(call, Offer::PLAIN, expected, options.field_validation).await?;
    check_metadata(&request, subject)?;
    if request.at(&["spec", "expirationSeconds"]).is_none_or(Tree::is_null) {
        request.set(&["spec", "expirationSeconds"], SECONDS_DEFAULT);
    }
    exchanged::create(server, call, subject, &subject.name, &options, &mut request).await?;
    let asked = seconds(&request, &subject.name)?;
    let account = subject.collection.get(&subject.namespace, &subject.name).await?;
    let account = account.ok_or_else(|| subject.not_found())?;
    let account = respond::decode_stored(subject.kind.as_ref(), &account.value)?;
    let mut bound = Bound {
        namespace: subject.namespace.clone(),
        serviceaccount: ObjectRef { name: subject.name.clone(), uid: meta::uid(&account).to_owned() },
        ..Bound::default()
    };
    if request.at(&["spec", "boundObjectRef"]).is_some_and(|reference| !reference.is_null()) {
        bind(server, subject, &request, &mut bound).await?;
    }
    let audiences: Vec<String> =
        request.list_at(&["spec", "audiences"]).iter().filter_map(Tree::as_str).map(str::to_owned).collect();
    let audiences = if audiences.is_empty() { server.tokens.api_audiences().to_vec() } else { audiences };
    let lives = life(server, call, &mut bound, &audiences, asked);
    let now = server.clock().now();
    let issued = server.tokens.issue(bound, audiences.clone(), lives.token).map_err(ApiError::internal)?;
    let said = now.plus(Duration::from_secs(lives.said.unsigned_abs()));
    request.set(&["spec", "audiences"], audiences.into_iter().map(Tree::from).collect::<Vec<_>>());
    request.set(&["spec", "expirationSeconds"], lives.said);
    request.set(&["metadata", "name"], subject.name.as_str());
    request.set(&["metadata", "namespace"], subject.namespace.as_str());
    request.set(&["metadata", "creationTimestamp"], meta::time(now));
    request.set(&["status", "token"], issued.token);
    request.set(&["status", "expirationTimestamp"], meta::time(said));
    Ok(respond::tree(StatusCode::CREATED, &request, Some(ty), skiff_kinds::schema(), form))
}

/// How long a token lives, and how long its owner is told that it does.
struct Lives {
    token: i64,
    said: i64,
}

/// Kubelets ask for this when nobody said how long; such a token lives a year, so that clients
/// that never read it again keep working, and its use after that time is worth a warning.
const SECONDS_EXTENDED_FROM: i64 = 3_607;
const SECONDS_EXTENDED: i64 = 365 * 24 * 3_600;

fn life(server: &ApiServer, call: &Call, bound: &mut Bound, audiences: &[String], asked: i64) -> Lives {
    let settings = &server.config.authn;
    let mut said = asked;
    if let Some(max) = settings.token_seconds_max.filter(|max| asked > *max) {
        call.warn(format!("requested expiration of {asked} seconds shortened to {max} seconds"));
        said = max;
    }
    let own = audiences.iter().all(|one| server.tokens.api_audiences().contains(one));
    if !settings.exact_token_expiration && bound.pod.is_some() && asked == SECONDS_EXTENDED_FROM && own {
        bound.warnafter = Some(server.clock().now().as_secs().saturating_add(said));
        return Lives { token: SECONDS_EXTENDED, said };
    }
    Lives { token: said, said }
}

fn check_metadata(request: &Tree, subject: &Subject) -> ApiResult<()> {
    for (field, wanted) in [("name", &subject.name), ("namespace", &subject.namespace)] {
        let given = request.str_at(&["metadata", field]);
        if !given.is_empty() && given != wanted {
            let message = format!("Invalid value: {given:?}: must match the service account {field} if specified");
            let field = format!("metadata.{field}");
            return Err(ApiError::invalid_field(KIND, &subject.name, "FieldValueInvalid", &field, message));
        }
    }
    Ok(())
}

fn seconds(request: &Tree, name: &str) -> ApiResult<i64> {
    let seconds = request.int_at(&["spec", "expirationSeconds"]).unwrap_or(SECONDS_DEFAULT);
    let why = if seconds < SECONDS_MIN {
        "may not specify a duration less than 10 minutes"
    } else if seconds > SECONDS_MAX {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(seconds);
    };
    Err(ApiError::invalid_field(
        KIND,
        name,
        "FieldValueInvalid",
        "spec.expirationSeconds",
        format!("Invalid value: {seconds}: {why}"),
    ))
}

async fn bind(server: &ApiServer, subject: &Subject, request: &Tree, bound: &mut Bound) -> ApiResult<()> {
    let text = |field: &str| request.str_at(&["spec", "boundObjectRef", field]);
    let (plural, namespace) = match (text("apiVersion"), text("kind")) {
        ("v1" | "", "Pod") => ("pods", subject.namespace.as_str()),
        ("v1" | "", "Secret") => ("secrets", subject.namespace.as_str()),
        ("v1" | "", "Node") => ("nodes", ""),
        (version, kind) => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {}",
                if version.contains('/') {
                    format!("{version}, Kind={kind}")
                } else {
                    format!("/{version}, Kind={kind}")
                }
            )));
        }
    };
    let resource = Qualified { group: "", name: plural };
    let object = find(server, plural, namespace, text("name")).await?;
    let object = object.ok_or_else(|| ApiError::not_found(resource, text("name")))?;
    let uid = meta::uid(&object);
    if !text("uid").is_empty() && text("uid") != uid {
        return Err(ApiError::conflict(
            resource,
            text("name"),
            &format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                text("uid")
            ),
        ));
    }
    let reference = ObjectRef { name: text("name").to_owned(), uid: uid.to_owned() };
    match plural {
        "secrets" => bound.secret = Some(reference),
        "nodes" => bound.node = Some(reference),
        _ => {
            if object.str_at(&["spec", "serviceAccountName"]) != subject.name {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    subject.name
                )));
            }
            let node = object.str_at(&["spec", "nodeName"]);
            if !node.is_empty() {
                let uid = find(server, "nodes", "", node).await?.map(|node| meta::uid(&node).to_owned());
                bound.node = Some(ObjectRef { name: node.to_owned(), uid: uid.unwrap_or_default() });
            }
            bound.pod = Some(reference);
        }
    }
    Ok(())
}

async fn find(server: &ApiServer, plural: &str, namespace: &str, name: &str) -> ApiResult<Option<Tree>> {
    let Some(stored) = server.collection("", plural).get(namespace, name).await? else { return Ok(None) };
    skiff_object::json::decode_untyped(&stored.value).map(Some).map_err(|error| ApiError::internal(error.to_string()))
}
