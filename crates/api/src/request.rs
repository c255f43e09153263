//! The path, parsed once: what is asked of which resource.
//!
//! The shapes are upstream's (`k8s.io/apiserver/pkg/endpoints/request`): authorization and the
//! verbs see only this, never the path.

use std::borrow::Cow;

use http::Method;

pub mod options;

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource of an API group.
    pub is_resource: bool,
    /// The whole path, as sent.
    pub path: String,
    /// The API verb (`get`, `list`, `deletecollection`, …), or the lower-case method for paths
    /// that are no resource.
    pub verb: &'static str,
    /// `api` or `apis`.
    pub prefix: String,
    /// The API group, empty for core.
    pub group: String,
    /// The API version.
    pub version: String,
    /// The namespace, empty for all or none.
    pub namespace: String,
    /// The plural name of the resource.
    pub resource: String,
    /// The subresource, empty for none.
    pub subresource: String,
    /// The object's name, empty for collections.
    pub name: String,
    /// Everything after resource: for `proxy`, what is beyond the third part is its path.
    pub parts: Vec<String>,
}

/// Verbs that stand in the path before the resource, from a time before `?watch`.
const PATH_VERBS: [&str; 2] = ["proxy", "watch"];

/// Subresources of `namespaces` itself; anything else after a namespace's name is a resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Parses method, path and query.
    pub fn parse(method: &Method, path: &str, query: &str) -> Self {
        let mut info = Self { path: path.to_owned(), verb: method_verb(method), ..Self::default() };
        let segments: Vec<Cow<'_, str>> = path.trim_matches('/').split('/').map(|part| percent_decode(part)).collect();
        let parts: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let Some((&prefix, rest)) = parts.split_first() else { return info };
        let rest = match (prefix, rest) {
            ("api", [version, rest @ ..]) if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ("apis", [group, version, rest @ ..]) if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return info,
        };
        info.prefix = prefix.to_owned();
        info.parse_resource(method, rest);
        info.adjust_verb(query);
        info
    }

    fn parse_resource(&mut self, method: &Method, rest: &[&str]) {
        self.is_resource = true;
        let mut rest = rest;
        self.verb = resource_verb(method);
        if let [verb, tail @ ..] = rest
            && PATH_VERBS.contains(verb)
            && !tail.is_empty()
        {
            self.verb = if *verb == "proxy" { "proxy" } else { "watch" };
            rest = tail;
        }
        match rest {
            ["namespaces", namespace, tail @ ..] if !namespace.is_empty() => {
                self.namespace = (*namespace).to_owned();
                if let [first, ..] = tail
                    && !NAMESPACE_SUBRESOURCES.contains(first)
                {
                    rest = tail;
                }
            }
            _ => {}
        }
        self.parts = rest.iter().map(|part| (*part).to_owned()).collect();
        self.resource = rest.first().copied().unwrap_or("").to_owned();
        self.name = rest.get(1).copied().unwrap_or("").to_owned();
        if self.verb != "proxy" {
            self.subresource = rest.get(2).copied().unwrap_or("").to_owned();
        }
    }

    fn adjust_verb(&mut self, query: &str) {
        if self.name.is_empty() && self.verb == "get" {
            self.verb = if options::is_watch(query) { "watch" } else { "list" };
            // A list of exactly one name counts as a request for that name when it is authorized.
            if let Some(name) = options::name_selector(query) {
                self.name_from_selector(name);
            }
        } else if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection";
        }
    }

    fn name_from_selector(&mut self, name: String) {
        // Kept apart from `parts`: the path has no name, so the verb stays a collection's.
        if !name.contains('/') {
            self.name = name;
        }
    }

    /// Whether the path itself (not a selector) names an object.
    pub fn path_names_object(&self) -> bool {
        self.parts.get(1).is_some_and(|name| !name.is_empty())
    }

    /// `resource` or `resource/subresource`, as authorization writes it.
    pub fn resource_path(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

fn resource_verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "post",
        Method::GET => "get",
        Method::HEAD => "head",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

/// Decodes `%XX`. What is no valid escape or no UTF-8 stays as written: it matches no name.
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    decode(text, false)
}

/// As [`percent_decode`] for query parts, where `+` is a space.
pub fn query_decode(text: &str) -> Cow<'_, str> {
    decode(text, true)
}

fn decode(text: &str, plus: bool) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || (plus && byte == b'+')) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = bytes.get(at + 1).and_then(hex).zip(bytes.get(at + 2).and_then(hex));
        match (bytes[at], escaped) {
            (b'%', Some((high, low))) => {
                out.push(high << 4 | low);
                at += 3;
                continue;
            }
            (b'+', _) if plus => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    match String::from_utf8(out) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed(text),
    }
}

fn hex(byte: &u8) -> Option<u8> {
    char::from(*byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, path: &str, expected: [&str; 6]) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let info = RequestInfo::parse(&method, path, query);
        assert_eq!(
            [
                info.verb,
                info.group.as_str(),
                info.namespace.as_str(),
                info.resource.as_str(),
                info.name.as_str(),
                info.subresource.as_str()
            ],
            expected,
            "{path}"
        );
    }

    #[test]
    fn resource_paths() {
        check(Method::GET, "/api/v1/namespaces", ["list", "", "", "namespaces", "", ""]);
        check(Method::GET, "/api/v1/namespaces/x", ["get", "", "x", "namespaces", "x", ""]);
        check(Method::PUT, "/api/v1/namespaces/x/finalize", ["update", "", "x", "namespaces", "x", "finalize"]);
        check(Method::GET, "/api/v1/namespaces/x/pods", ["list", "", "x", "pods", "", ""]);
        check(Method::GET, "/api/v1/namespaces/x/pods?watch=true", ["watch", "", "x", "pods", "", ""]);
        check(Method::GET, "/api/v1/watch/pods", ["watch", "", "", "pods", "", ""]);
        check(Method::GET, "/api/v1/namespaces/x/pods/y/log", ["get", "", "x", "pods", "y", "log"]);
        check(
            Method::DELETE,
            "/apis/apps/v1/namespaces/x/deployments",
            ["deletecollection", "apps", "x", "deployments", "", ""],
        );
        check(
            Method::PATCH,
            "/apis/apps/v1/namespaces/x/deployments/d/scale",
            ["patch", "apps", "x", "deployments", "d", "scale"],
        );
        check(Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dweb", ["list", "", "", "pods", "web", ""]);
    }

    #[test]
    fn other_paths_are_no_resources() {
        for path in ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz/ping", ""] {
            assert!(!RequestInfo::parse(&Method::GET, path, "").is_resource, "{path}");
        }
    }

    #[test]
    fn escapes_are_decoded_and_bad_ones_kept() {
        assert_eq!(percent_decode("a%2Fb"), "a/b");
        assert_eq!(percent_decode("a%zz%"), "a%zz%");
        assert_eq!(percent_decode("%ff"), "%ff");
        assert_eq!(query_decode("a+b%20c"), "a b c");
    }
}
