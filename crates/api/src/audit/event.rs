//! `audit.k8s.io/v1 Event`: its exact shape, and what of requests and answers goes into it.

use std::collections::BTreeMap;

use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;
use skiff_object::{Tree, json, protobuf, yaml};

use super::policy::{Level, Stage};
use crate::authn::UserInfo;
use crate::negotiate;

/// A longer `User-Agent` is cut, as upstream cuts it.
const USER_AGENT_BYTES_MAX: usize = 1_024;
const TRUNCATED: &str = "...TRUNCATED";

/// An event.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    pub(crate) kind: &'static str,
    pub(crate) api_version: &'static str,
    pub(crate) level: &'static str,
    #[serde(rename = "auditID")]
    pub(crate) audit_id: String,
    pub(crate) stage: &'static str,
    #[serde(rename = "requestURI")]
    pub(crate) request_uri: String,
    pub(crate) verb: &'static str,
    pub(crate) user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) impersonated_user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) authentication_metadata: Option<AuthenticationMetadata>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub(crate) source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object_ref: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response_status: Option<ResponseStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_object: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response_object: Option<Box<RawValue>>,
    pub(crate) request_received_timestamp: String,
    pub(crate) stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// `authentication.k8s.io/v1 UserInfo`
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

/// How somebody came to be somebody else.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuthenticationMetadata {
    pub(crate) impersonation_constraint: String,
}

/// What the request is about.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) subresource: String,
}

/// `meta/v1 Status`, of which `metadata` is always written.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ResponseStatus {
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Box<RawValue>>,
    code: u16,
}

impl ResponseStatus {
    /// Only the code.
    pub(crate) fn of(code: StatusCode) -> Self {
        Self {
            metadata: BTreeMap::new(),
            status: String::new(),
            message: String::new(),
            reason: String::new(),
            details: None,
            code: code.as_u16(),
        }
    }

    /// What a `Status` object says, when the answer is one.
    pub(crate) fn of_object(code: StatusCode, object: &Tree) -> Self {
        if object.str_at(&["kind"]) != "Status" || object.str_at(&["apiVersion"]) != "v1" {
            return Self::of(code);
        }
        let text = |field: &str| object.str_at(&[field]).to_owned();
        Self {
            status: text("status"),
            message: text("message"),
            reason: text("reason"),
            details: object.get("details").and_then(raw),
            ..Self::of(code)
        }
    }

    /// A failure without an object.
    pub(crate) fn failure(code: StatusCode, reason: &str, message: &str) -> Self {
        Self { status: "Failure".into(), message: message.into(), reason: reason.into(), ..Self::of(code) }
    }

    pub(crate) fn set_message(&mut self, message: String) {
        self.message = message;
    }

    pub(crate) fn code(&self) -> u16 {
        self.code
    }
}

impl User {
    pub(crate) fn of(user: &UserInfo) -> Self {
        Self {
            username: user.name.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
        }
    }
}

impl Event {
    pub(crate) fn new(level: Level, audit_id: String) -> Self {
        Self {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: level.as_str(),
            audit_id,
            stage: "",
            request_uri: String::new(),
            verb: "",
            user: User::default(),
            impersonated_user: None,
            authentication_metadata: None,
            source_ips: Vec::new(),
            user_agent: String::new(),
            object_ref: None,
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: String::new(),
            stage_timestamp: String::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// The event of one stage.
    pub(crate) fn at(&self, stage: Stage, time: String) -> Self {
        Self { stage: stage.as_str(), stage_timestamp: time, ..self.clone() }
    }

    /// As the log has it in JSON, without the newline.
    pub(crate) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// As the log has it in its old format, without the newline.
    pub(crate) fn legacy(&self) -> String {
        let or = |text: &str, none: &'static str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let list = |texts: &[String]| texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(",");
        let groups = if self.user.groups.is_empty() { "<none>".to_owned() } else { list(&self.user.groups) };
        let (as_user, as_groups) = match &self.impersonated_user {
            None => ("<self>".to_owned(), "<lookup>".to_owned()),
            Some(user) if user.groups.is_empty() => (user.username.clone(), "<lookup>".to_owned()),
            Some(user) => (user.username.clone(), list(&user.groups)),
        };
        let namespace = self.object_ref.as_ref().map_or("", |object| object.namespace.as_str());
        let response =
            self.response_status.as_ref().map_or_else(|| "<deferred>".to_owned(), |status| status.code().to_string());
        format!(
            "{} AUDIT: id={:?} stage={:?} ip={:?} method={:?} user={:?} groups={groups:?} as={as_user:?} \
             asgroups={as_groups:?} user-agent={:?} namespace={:?} uri={:?} response=\"{response}\"",
            self.request_received_timestamp,
            self.audit_id,
            self.stage,
            self.source_ips.first().map_or("<unknown>", String::as_str),
            self.verb,
            or(&self.user.username, "<none>"),
            self.user_agent,
            or(namespace, "<none>"),
            self.request_uri,
        )
    }

    /// Takes from the object of a request what the path does not say.
    pub(crate) fn refer(&mut self, object: &Tree) {
        let Some(reference) = &mut self.object_ref else { return };
        let fill = |field: &mut String, name: &str| {
            if field.is_empty() {
                *field = object.str_at(&["metadata", name]).to_owned();
            }
        };
        fill(&mut reference.namespace, "namespace");
        fill(&mut reference.name, "name");
        fill(&mut reference.uid, "uid");
        fill(&mut reference.resource_version, "resourceVersion");
    }
}

/// The `User-Agent`, cut where upstream cuts it.
pub(crate) fn user_agent(text: &str) -> String {
    if text.len() <= USER_AGENT_BYTES_MAX {
        return text.to_owned();
    }
    let mut end = USER_AGENT_BYTES_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{TRUNCATED}", &text[..end])
}

/// Where a request came from: what proxies say, then who really connected.
pub(crate) fn source_ips(headers: &HeaderMap, remote: Option<std::net::IpAddr>) -> Vec<String> {
    let mut ips: Vec<String> = Vec::new();
    for name in ["x-forwarded-for", "x-real-ip"] {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let parsed = values.flat_map(|value| value.split(',')).filter_map(|one| one.trim().parse().ok());
        ips.extend(parsed.map(|ip: std::net::IpAddr| ip.to_string()));
        if !ips.is_empty() {
            break;
        }
    }
    if let Some(remote) = remote.map(|remote| remote.to_canonical().to_string())
        && ips.last() != Some(&remote)
    {
        ips.push(remote);
    }
    ips
}

/// The object in a body of whatever format; nothing when it is none.
pub(crate) fn object(bytes: &[u8], headers: &HeaderMap) -> Option<Tree> {
    if bytes.is_empty() || headers.contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    match negotiate::media_type(headers) {
        Some(negotiate::PROTOBUF) => {
            let envelope = protobuf::envelope::decode(bytes).ok()?;
            let ty = skiff_kinds::type_of(envelope.api_version, envelope.kind)?;
            let schema = skiff_kinds::schema();
            let decoded = protobuf::decode(envelope.raw, schema, ty).ok()?;
            // Through JSON: only the schema knows which fields are written when they are empty.
            let mut tree = json::decode_untyped(&json::encode(&decoded, schema, ty)).ok()?;
            tree.set(&["apiVersion"], envelope.api_version);
            tree.set(&["kind"], envelope.kind);
            Some(tree)
        }
        Some("application/yaml" | "application/apply-patch+yaml") => yaml::decode_untyped(bytes).ok(),
        _ => json::decode_untyped(bytes).ok(),
    }
}

/// A tree as the raw JSON of an event.
pub(crate) fn raw(tree: &Tree) -> Option<Box<RawValue>> {
    RawValue::from_string(String::from_utf8(json::encode_untyped(tree)).ok()?).ok()
}

/// Takes `managedFields` out of an object, the items of a list and the rows of a table.
pub(crate) fn omit_managed_fields(tree: &mut Tree) {
    tree.unset(&["metadata", "managedFields"]);
    for list in ["items", "rows"] {
        for one in tree.get_mut(list).and_then(Tree::as_list_mut).into_iter().flatten() {
            one.unset(&["metadata", "managedFields"]);
            one.unset(&["object", "metadata", "managedFields"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_come_first_and_the_real_peer_last() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "10.0.0.1, nonsense, fd00::1".parse().unwrap());
        headers.insert("x-real-ip", "10.0.0.9".parse().unwrap());
        assert_eq!(source_ips(&headers, "127.0.0.1".parse().ok()), ["10.0.0.1", "fd00::1", "127.0.0.1"]);
        assert_eq!(source_ips(&HeaderMap::new(), "::ffff:10.0.0.2".parse().ok()), ["10.0.0.2"]);
        assert!(source_ips(&HeaderMap::new(), None).is_empty());
    }

    #[test]
    fn long_user_agents_are_cut() {
        assert_eq!(user_agent("curl"), "curl");
        assert_eq!(user_agent(&"ü".repeat(2_000)).len(), 1_024 + TRUNCATED.len());
    }
}
