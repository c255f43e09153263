//! `AdmissionReview`: the question and the answer, in `v1` and in `v1beta1`.

use base64::Engine;
use skiff_object::{Map, Tree, json};

use super::matching::{self, Invocation};
use crate::admission::Attributes;
use crate::admission::exchanged::group_version_kind;
use crate::reviews::user_tree;

/// The versions a review can be sent in. Webhooks say which they take, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `admission.k8s.io/v1`
    V1,
    /// `admission.k8s.io/v1beta1`, from before answers had to name the question.
    V1Beta1,
}

impl Version {
    /// The first version that both sides know.
    pub fn first_of(accepted: &[String]) -> Option<Self> {
        accepted.iter().find_map(|version| match version.as_str() {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        })
    }

    const fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// The objects of a question, in the version that the webhook sees.
pub struct Objects<'a> {
    /// The new one; null for a delete.
    pub object: &'a Tree,
    /// The old one; null for a create.
    pub old: &'a Tree,
}

fn names(parts: [(&'static str, &str); 3]) -> Tree {
    Tree::Map(parts.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}

/// The question as JSON.
pub fn question(
    version: Version,
    uid: &str,
    attributes: &Attributes<'_>,
    invocation: &Invocation,
    objects: &Objects<'_>,
) -> Vec<u8> {
    let seen = Attributes { subject: &invocation_subject(attributes, invocation), ..*attributes };
    let mut out = format!(r#"{{"kind":"AdmissionReview","apiVersion":"{}","request":"#, version.api_version());
    let request = json::encode_untyped(&request(uid, attributes, &seen));
    // The objects are spliced in: they are written by their own schema.
    out.push_str(&String::from_utf8_lossy(&request[..request.len().saturating_sub(1)]));
    let mut out = out.into_bytes();
    for (key, object) in [("object", objects.object), ("oldObject", objects.old)] {
        out.extend_from_slice(format!(",\"{key}\":").as_bytes());
        out.extend_from_slice(&encode(&seen, object));
    }
    let dry_run = if attributes.dry_run { ",\"dryRun\":true,\"options\":" } else { ",\"dryRun\":false,\"options\":" };
    out.extend_from_slice(dry_run.as_bytes());
    out.extend_from_slice(&json::encode_untyped(&attributes.options.to_tree()));
    out.extend_from_slice(b"}}");
    out
}

fn invocation_subject(attributes: &Attributes<'_>, invocation: &Invocation) -> crate::verbs::Subject {
    crate::verbs::Subject { kind: invocation.kind.clone(), ..attributes.subject.clone() }
}

fn request(uid: &str, asked: &Attributes<'_>, seen: &Attributes<'_>) -> Tree {
    let kind = |attributes: &Attributes<'_>| {
        let (group, version, kind) = group_version_kind(attributes.exchanged());
        names([("group", group), ("version", version), ("kind", kind)])
    };
    let resource = |attributes: &Attributes<'_>| {
        let facts = attributes.subject.kind.facts();
        names([
            ("group", facts.group.as_str()),
            ("version", facts.version.as_str()),
            ("resource", facts.plural.as_str()),
        ])
    };
    let mut request = Map::new();
    let text = |request: &mut Map, key: &'static str, value: &str| {
        if !value.is_empty() {
            request.insert(key, value);
        }
    };
    request.insert("uid", uid);
    request.insert("kind", kind(seen));
    request.insert("resource", resource(seen));
    text(&mut request, "subResource", &seen.subject.subresource);
    request.insert("requestKind", kind(asked));
    request.insert("requestResource", resource(asked));
    text(&mut request, "requestSubResource", &asked.subject.subresource);
    text(&mut request, "name", asked.name);
    text(&mut request, "namespace", asked.namespace());
    request.insert("operation", asked.operation.as_str());
    request.insert("userInfo", user_tree(asked.user));
    Tree::Map(request)
}

/// An object as clients of this version see it.
pub fn encode(attributes: &Attributes<'_>, object: &Tree) -> Vec<u8> {
    let kind = attributes.subject.kind.as_ref();
    let facts = kind.facts();
    if object.is_null() {
        return b"null".to_vec();
    }
    if !matching::is_foreign(attributes) {
        return json::encode(object, kind.schema(), facts.ty);
    }
    match facts.subresource(&attributes.subject.subresource).and_then(|sub| sub.ty) {
        Some(ty) => json::encode(object, skiff_kinds::schema(), ty),
        None => json::encode_untyped(object),
    }
}

/// What a webhook answered.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// Whether the write may go on.
    pub allowed: bool,
    /// The operations of a JSON patch.
    pub patch: Option<Tree>,
    /// Why not; null when it does not say.
    pub status: Tree,
    /// For the client.
    pub warnings: Vec<String>,
    /// For the audit log, keys without the webhook's name.
    pub annotations: Vec<(String, String)>,
}

/// Whether a webhook may change the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// It may.
    Mutating,
    /// It may not.
    Validating,
}

/// Reads an answer.
///
/// # Errors
/// The reason why it is no good, as upstream words it.
pub fn answer(version: Version, half: Half, uid: &str, bytes: &[u8]) -> Result<Answer, String> {
    let review =
        json::decode_untyped(bytes).map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))?;
    let Some(response) = review.get("response").filter(|response| response.as_map().is_some()) else {
        return Err("webhook response was absent".into());
    };
    if version == Version::V1 {
        let echoed = response.str_at(&["uid"]);
        if echoed != uid {
            return Err(format!("expected response.uid={uid:?}, got {echoed:?}"));
        }
        let (found, wanted) = ((review.str_at(&["apiVersion"]), review.str_at(&["kind"])), version.api_version());
        if found != (wanted, "AdmissionReview") {
            let shown = format!("{}, Kind={}", found.0, found.1);
            return Err(format!("expected webhook response of {wanted}, Kind=AdmissionReview, got {shown}"));
        }
    }
    let text = |list: &Tree| list.as_str().map(str::to_owned);
    let annotations = response.get("auditAnnotations").and_then(Tree::as_map).into_iter().flat_map(Map::iter);
    Ok(Answer {
        allowed: response.bool_at(&["allowed"]) == Some(true),
        patch: patch(version, half, response)?,
        status: response.get("status").cloned().unwrap_or_default(),
        warnings: response.list_at(&["warnings"]).iter().filter_map(text).collect(),
        annotations: annotations.filter_map(|(key, value)| Some((key.as_str().to_owned(), text(value)?))).collect(),
    })
}

fn patch(version: Version, half: Half, response: &Tree) -> Result<Option<Tree>, String> {
    let encoded = response.str_at(&["patch"]);
    let ty = response.get("patchType").filter(|ty| !ty.is_null()).map(|ty| ty.as_str().unwrap_or(""));
    if half == Half::Validating {
        return match (version, encoded.is_empty(), ty) {
            (Version::V1, false, _) => Err("validating webhook may not return response.patch".into()),
            (Version::V1, true, Some(_)) => Err("validating webhook may not return response.patchType".into()),
            _ => Ok(None),
        };
    }
    if version == Version::V1 {
        match (encoded.is_empty(), ty) {
            (false, None) => return Err("webhook returned response.patch but not response.patchType".into()),
            (true, Some(_)) => return Err("webhook returned response.patchType but not response.patch".into()),
            (_, Some("")) => return Err("webhook returned invalid response.patchType of \"\"".into()),
            (_, Some(other)) if other != "JSONPatch" => return Err(format!("unsupported patch type {other:?}")),
            _ => {}
        }
    }
    if encoded.is_empty() {
        return Ok(None);
    }
    let undecodable = |why: &dyn std::fmt::Display| format!("received undecodable patch in webhook response: {why}");
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|error| undecodable(&error))?;
    let patch = json::decode_untyped(&bytes).map_err(|error| undecodable(&error))?;
    let Some(operations) = patch.as_list() else { return Err(undecodable(&"it is no list of operations")) };
    Ok((!operations.is_empty()).then_some(patch))
}

/// The `Status` of a refusal: what the webhook says, under its name.
pub fn refusal(webhook: &str, given: &Tree) -> Tree {
    let denied = format!("admission webhook {webhook:?} denied the request");
    let mut status = if given.as_map().is_some() { given.clone() } else { Tree::map() };
    if status.int_at(&["code"]).is_none_or(|code| code < 400) {
        status.set(&["code"], 400);
    }
    if matches!(status.str_at(&["status"]), "" | "Success") {
        status.set(&["status"], "Failure");
    }
    let (message, reason) = (status.str_at(&["message"]), status.str_at(&["reason"]));
    let message = match (message, reason) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    status.set(&["message"], message);
    status.set(&["kind"], "Status");
    status.set(&["apiVersion"], "v1");
    if status.get("metadata").is_none_or(Tree::is_null) {
        status.set(&["metadata"], Tree::map());
    }
    let order = ["kind", "apiVersion", "metadata", "status", "message", "reason", "details", "code"];
    let fields = order.iter().filter_map(|key| Some(((*key).into(), status.get(key)?.clone())));
    Tree::Map(fields.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(half: Half, response: &str) -> Result<Answer, String> {
        let review =
            format!(r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{response}}}"#);
        answer(Version::V1, half, "u", review.as_bytes())
    }

    #[test]
    fn answers_are_checked() {
        let refused = |half: Half, response: &str| read(half, response).unwrap_err();
        assert_eq!(refused(Half::Mutating, "null"), "webhook response was absent");
        assert_eq!(refused(Half::Mutating, r#"{"uid":"x"}"#), "expected response.uid=\"u\", got \"x\"");
        assert_eq!(
            refused(Half::Mutating, r#"{"uid":"u","patch":"W10="}"#),
            "webhook returned response.patch but not response.patchType"
        );
        assert_eq!(
            refused(Half::Validating, r#"{"uid":"u","patch":"W10="}"#),
            "validating webhook may not return response.patch"
        );
        assert_eq!(
            answer(Version::V1, Half::Mutating, "u", br#"{"kind":"A","apiVersion":"v1","response":{"uid":"u"}}"#),
            Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got v1, Kind=A".into())
        );
        let patched = read(Half::Mutating, r#"{"uid":"u","allowed":true,"patch":"W3t9XQ==","patchType":"JSONPatch"}"#);
        assert_eq!(patched.unwrap().patch, Some(Tree::List(vec![Tree::map()])));
        let old = answer(Version::V1Beta1, Half::Mutating, "u", br#"{"response":{"allowed":true,"patch":"W3t9XQ=="}}"#);
        assert!(old.unwrap().patch.is_some());
    }

    #[test]
    fn refusals_carry_the_webhooks_name() {
        let said = |status: &str| {
            let status = refusal("a.b", &json::decode_untyped(status.as_bytes()).unwrap());
            format!("{} {}", status.int_at(&["code"]).unwrap(), status.str_at(&["message"]))
        };
        assert_eq!(said("null"), "400 admission webhook \"a.b\" denied the request without explanation");
        assert_eq!(said(r#"{"reason":"No"}"#), "400 admission webhook \"a.b\" denied the request: No");
        assert_eq!(
            said(r#"{"message":"never","code":409,"status":"Success"}"#),
            "409 admission webhook \"a.b\" denied the request: never"
        );
    }
}
