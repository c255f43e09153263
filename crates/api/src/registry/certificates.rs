//! Certificate signing requests: who asks is not for the client to say, and who decides needs a
//! say over the signer.

use skiff_object::{Map, Tree};

use crate::authz::{self, Attributes, Target};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::write::Writer;

/// Writes down who asks.
pub fn before_create(writer: &Writer<'_>, object: &mut Tree) {
    let user = writer.user;
    let texts = |list: &[String]| list.iter().map(|text| Tree::from(text.as_str())).collect::<Vec<_>>();
    for field in ["username", "uid", "groups", "extra"] {
        object.unset(&["spec", field]);
    }
    object.set(&["spec", "username"], user.name.as_str());
    if !user.uid.is_empty() {
        object.set(&["spec", "uid"], user.uid.as_str());
    }
    if !user.groups.is_empty() {
        object.set(&["spec", "groups"], texts(&user.groups));
    }
    if !user.extra.is_empty() {
        let mut extra = Map::new();
        for (key, values) in &user.extra {
            extra.insert(key.clone(), texts(values));
        }
        object.set(&["spec", "extra"], Tree::Map(extra));
    }
}

/// Asks whether the user may decide or sign for this signer, and dates what was decided.
///
/// # Errors
/// 403 when the user may not.
pub async fn before_update(writer: &Writer<'_>, new: &mut Tree, old: &Tree) -> ApiResult<()> {
    match writer.subject.subresource.as_str() {
        "approval" => permit(writer, "approve", old).await?,
        "status" if new.get("status") != old.get("status") => permit(writer, "sign", old).await?,
        _ => {}
    }
    if writer.subject.subresource.is_empty() {
        return Ok(());
    }
    let now = meta::time(writer.server.clock().now());
    let Some(conditions) = new.at_mut(&["status", "conditions"]).and_then(Tree::as_list_mut) else { return Ok(()) };
    for condition in conditions {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            if condition.str_at(&[field]).is_empty() {
                condition.set(&[field], now.as_str());
            }
        }
    }
    Ok(())
}

/// `approve` or `sign` on the signer itself or on all signers of its domain.
async fn permit(writer: &Writer<'_>, verb: &str, request: &Tree) -> ApiResult<()> {
    let signer = request.str_at(&["spec", "signerName"]);
    let everyone = format!("{}/*", signer.split('/').next().unwrap_or(""));
    for name in [signer, &everyone] {
        let target = Target::Resource {
            group: "certificates.k8s.io",
            version: "*",
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
        };
        let attributes = Attributes::new(writer.user, verb, target);
        if authz::decide(writer.server.config.authorizer.as_ref(), &attributes).await.is_allowed() {
            return Ok(());
        }
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(ApiError::forbidden(writer.subject.resource(), meta::name(request), &why))
}
