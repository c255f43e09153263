//! Which collection of the API a request is about.

use std::borrow::Cow;
use std::fmt;

/// One resource of the API: what a path is built from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// The version within the group.
    pub version: Cow<'static, str>,
    /// The kind of its objects.
    pub kind: Cow<'static, str>,
    /// The plural name in the path.
    pub plural: Cow<'static, str>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// A resource whose names are known at build time.
    pub const fn fixed(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        namespaced: bool,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
            plural: Cow::Borrowed(plural),
            namespaced,
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The path of the whole collection, of the collection in `namespace` (when not empty), of one
    /// object (when `name` is not empty) or of its subresource (when not empty).
    pub fn path(&self, namespace: &str, name: &str, subresource: &str) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if self.namespaced && !namespace.is_empty() {
            path.push_str("/namespaces/");
            push_segment(&mut path, namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        for segment in [name, subresource] {
            if segment.is_empty() {
                break;
            }
            path.push('/');
            push_segment(&mut path, segment);
        }
        path
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { write!(f, "{}", self.plural) } else { write!(f, "{}.{}", self.plural, self.group) }
    }
}

/// The name of an object: its namespace (empty for cluster scope) and its name. Ordered by
/// namespace first, so one namespace is one range.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// The key of `name` in `namespace` (empty for cluster scope).
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key under which an object with this metadata is found.
    pub fn of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Self {
        Self::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Appends a path segment, escaping what a path may not hold (object names are valid anyway, but
/// RBAC names may contain `:` and `%`).
pub(crate) fn push_segment(path: &mut String, segment: &str) {
    escape(path, segment, |byte| byte.is_ascii_alphanumeric() || b"-._~:@!$&'()*+,;=".contains(&byte));
}

/// Appends a query parameter.
pub(crate) fn push_query(query: &mut String, name: &str, value: &str) {
    query.push(if query.contains('?') { '&' } else { '?' });
    query.push_str(name);
    query.push('=');
    escape(query, value, |byte| byte.is_ascii_alphanumeric() || b"-._~:/,!()*".contains(&byte));
}

fn escape(text: &mut String, value: &str, plain: impl Fn(u8) -> bool) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_collections_objects_and_subresources() {
        let pods = Resource::fixed("", "v1", "Pod", "pods", true);
        assert_eq!(pods.path("", "", ""), "/api/v1/pods");
        assert_eq!(pods.path("a", "", ""), "/api/v1/namespaces/a/pods");
        assert_eq!(pods.path("a", "b", "status"), "/api/v1/namespaces/a/pods/b/status");
        let roles = Resource::fixed("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false);
        assert_eq!(roles.path("", "a/b", ""), "/apis/rbac.authorization.k8s.io/v1/clusterroles/a%2Fb");
        let mut query = String::from("/x");
        push_query(&mut query, "labelSelector", "a in (b,c),!d");
        push_query(&mut query, "limit", "5");
        assert_eq!(query, "/x?labelSelector=a%20in%20(b,c),!d&limit=5");
    }
}
