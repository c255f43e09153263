//! Certificate signing requests: who asks is not for the client to say, and who decides needs a
//! say over the signer.

use skiff_object::{Map, Tree};

use crate::authz::{Attributes, Target};
use crate::chain;
use crate::errors::ApiResult;
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

/// Asks whether the user may decide for this signer, and dates what was decided.
///
/// # Errors
/// 403 when the user may not.
pub async fn before_update(writer: &Writer<'_>, new: &mut Tree, old: &Tree) -> ApiResult<()> {
    if writer.subject.subresource == "approval" {
        permit(writer, old.str_at(&["spec", "signerName"])).await?;
    }
    if writer.subject.subresource.is_empty() {
        return Ok(());
    }
    let now = crate::meta::time(writer.server.clock().now());
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

/// `approve` on the signer itself or on all signers of its domain.
async fn permit(writer: &Writer<'_>, signer: &str) -> ApiResult<()> {
    let domain = signer.split('/').next().unwrap_or("");
    let everyone = format!("{domain}/*");
    let Err(refusal) = may(writer, signer).await else { return Ok(()) };
    may(writer, &everyone).await.map_err(|_| refusal)
}

async fn may(writer: &Writer<'_>, name: &str) -> ApiResult<()> {
    let target = Target::Resource {
        group: "certificates.k8s.io",
        version: "*",
        resource: "signers",
        subresource: "",
        namespace: "",
        name,
    };
    chain::permit(writer.server, &Attributes::new(writer.user, "approve", target)).await
}
