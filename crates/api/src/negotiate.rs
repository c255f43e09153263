//! Which format the body is in and which one the answer takes.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};

use crate::errors::{ApiError, ApiResult};
use crate::request::options;

/// An encoding of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// What the objects of an answer become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Projection {
    /// Themselves.
    Object,
    /// `meta.k8s.io/v1 Table`
    Table(IncludeObject),
    /// `meta.k8s.io/v1 PartialObjectMetadata`, or its list for collections.
    Metadata,
}

/// What a Table row carries of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IncludeObject {
    /// `None`
    None,
    /// `Metadata`, the default.
    Metadata,
    /// `Object`
    Object,
}

/// The negotiated form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Form {
    /// The encoding.
    pub format: Format,
    /// The projection.
    pub projection: Projection,
    /// Whether JSON is indented for people.
    pub pretty: bool,
}

/// What the endpoint can answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Whether protobuf is spoken (custom resources do not).
    pub protobuf: bool,
    /// Whether Table and PartialObjectMetadata are.
    pub projections: bool,
}

impl Offer {
    /// A built-in resource that is stored.
    pub const RESOURCE: Self = Self { protobuf: true, projections: true };
    /// A custom resource.
    pub const CUSTOM: Self = Self { protobuf: false, projections: true };
    /// A review, a `Status`: no projection.
    pub const PLAIN: Self = Self { protobuf: true, projections: false };

    /// The media types, as a 406 or 415 lists them.
    pub fn media_types(self) -> &'static [&'static str] {
        const ALL: [&str; 3] = [JSON, YAML, PROTOBUF];
        if self.protobuf { &ALL } else { &ALL[..2] }
    }
}

/// `application/json`
pub const JSON: &str = "application/json";
/// `application/yaml`
pub const YAML: &str = "application/yaml";
/// `application/vnd.kubernetes.protobuf`
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// More clauses than any client sends; what is beyond is not read.
const ACCEPT_CLAUSES_MAX: usize = 32;

impl Form {
    /// Plain JSON.
    pub const JSON: Self = Self { format: Format::Json, projection: Projection::Object, pretty: false };

    /// The `Content-Type` of a single answer.
    pub fn content_type(&self) -> &'static str {
        match self.format {
            Format::Json => JSON,
            Format::Yaml => YAML,
            Format::Protobuf => PROTOBUF,
        }
    }

    /// The `Content-Type` of a stream of watch events.
    pub fn stream_content_type(&self) -> &'static str {
        match self.format {
            Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            Format::Json | Format::Yaml => JSON,
        }
    }
}

/// One clause of an `Accept` header.
struct Clause<'a> {
    main: &'a str,
    sub: &'a str,
    q: f32,
    params: Vec<(&'a str, &'a str)>,
}

/// The parts of a media type: type, subtype and parameters.
fn parse_media_type(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';');
    let (main, sub) = match parts.next()?.trim().split_once('/') {
        Some((main, sub)) => (main.trim(), sub.trim()),
        None if text.trim() == "*" => ("*", "*"),
        None => return None,
    };
    let mut clause = Clause { main, sub, q: 1.0, params: Vec::new() };
    for param in parts {
        let (key, value) = param.split_once('=').unwrap_or((param, ""));
        let (key, value) = (key.trim(), value.trim().trim_matches('"'));
        if key == "q" {
            clause.q = value.parse().unwrap_or(1.0);
        } else if !key.is_empty() {
            clause.params.push((key, value));
        }
    }
    Some(clause)
}

/// Reads `Accept` and gives the form of the answer.
pub fn accept(headers: &HeaderMap, query: &str, offer: Offer) -> ApiResult<Form> {
    let include = include_object(query)?;
    let header: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let header = header.join(",");
    let pretty = wants_pretty(headers, query);
    if header.trim().is_empty() {
        return Ok(Form { pretty, ..Form::JSON });
    }
    let mut clauses: Vec<Clause<'_>> = header
        .split(',')
        .take(ACCEPT_CLAUSES_MAX)
        .filter_map(parse_media_type)
        .filter(|clause| clause.q > 0.0)
        .collect();
    clauses.sort_by(|a, b| b.q.total_cmp(&a.q));
    clauses
        .iter()
        .find_map(|clause| accept_clause(clause, offer, include))
        .map(|form| Form { pretty: pretty || form.pretty, ..form })
        .ok_or_else(|| ApiError::not_acceptable(offer.media_types()))
}

fn accept_clause(clause: &Clause<'_>, offer: Offer, include: IncludeObject) -> Option<Form> {
    let format = match (clause.main, clause.sub) {
        ("*" | "application", "*") | ("application", "json") => Format::Json,
        ("application", "yaml") => Format::Yaml,
        ("application", "vnd.kubernetes.protobuf") if offer.protobuf => Format::Protobuf,
        _ => return None,
    };
    let param = |name: &str| clause.params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| *value);
    if !matches!(param("stream"), "" | "watch") || !param("sv").is_empty() {
        return None;
    }
    let projection = match (param("as"), param("g"), param("v")) {
        ("", "", "") => Projection::Object,
        _ if !offer.projections => return None,
        ("Table", "meta.k8s.io", "v1" | "v1beta1") => Projection::Table(include),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1" | "v1beta1") => {
            Projection::Metadata
        }
        _ => return None,
    };
    if matches!(projection, Projection::Table(_)) && format == Format::Protobuf {
        return None;
    }
    Some(Form { format, projection, pretty: param("pretty") == "1" })
}

fn include_object(query: &str) -> ApiResult<IncludeObject> {
    if !query.contains("includeObject") {
        return Ok(IncludeObject::Metadata);
    }
    match options::first(query, "includeObject").as_deref() {
        None | Some("" | "Metadata") => Ok(IncludeObject::Metadata),
        Some("None") => Ok(IncludeObject::None),
        Some("Object") => Ok(IncludeObject::Object),
        Some(other) => Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

fn wants_pretty(headers: &HeaderMap, query: &str) -> bool {
    if query.contains("pretty")
        && let Some(value) = options::first(query, "pretty").filter(|value| !value.is_empty())
    {
        return matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
}

/// The format of the request's body, JSON when it does not say.
pub fn content_type(headers: &HeaderMap, offer: Offer) -> ApiResult<Format> {
    match media_type(headers) {
        None => Ok(Format::Json),
        Some("application/json") => Ok(Format::Json),
        Some("application/yaml") => Ok(Format::Yaml),
        Some("application/vnd.kubernetes.protobuf") if offer.protobuf => Ok(Format::Protobuf),
        Some(_) => Err(ApiError::unsupported_media_type(offer.media_types())),
    }
}

/// `Content-Type` without its parameters; `None` when there is none.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(CONTENT_TYPE)?;
    // A header that is no text is no media type either.
    let text = header.to_str().unwrap_or("invalid");
    let text = text.split(';').next().unwrap_or("").trim();
    (!text.is_empty()).then_some(text)
}

/// A kind of patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own.
    Strategic,
    /// Server-side apply.
    Apply,
}

/// Which patch the body is.
pub fn patch_type(headers: &HeaderMap, strategic: bool) -> ApiResult<PatchType> {
    const ALL: [&str; 4] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    const CUSTOM: [&str; 3] =
        ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
    match media_type(headers) {
        Some("application/json-patch+json") => Ok(PatchType::Json),
        Some("application/merge-patch+json") => Ok(PatchType::Merge),
        Some("application/strategic-merge-patch+json") if strategic => Ok(PatchType::Strategic),
        Some("application/apply-patch+yaml") => Ok(PatchType::Apply),
        _ => Err(ApiError::unsupported_media_type(if strategic { &ALL } else { &CUSTOM })),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(accept_header: &str) -> Result<(Format, Projection), String> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept_header).unwrap());
        accept(&headers, "", Offer::RESOURCE).map(|form| (form.format, form.projection)).map_err(|error| error.message)
    }

    #[test]
    fn kubectl_gets_a_table_and_clients_get_protobuf() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(check(kubectl), Ok((Format::Json, Projection::Table(IncludeObject::Metadata))));
        assert_eq!(
            check("application/vnd.kubernetes.protobuf,application/json"),
            Ok((Format::Protobuf, Projection::Object))
        );
        assert_eq!(check("*/*"), Ok((Format::Json, Projection::Object)));
        assert_eq!(check("text/html, application/yaml;q=0.5"), Ok((Format::Yaml, Projection::Object)));
        assert_eq!(
            check("text/html").unwrap_err(),
            "only the following media types are accepted: application/json, application/yaml, \
             application/vnd.kubernetes.protobuf"
        );
    }
}
