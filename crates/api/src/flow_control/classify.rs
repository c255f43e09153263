//! Which FlowSchema a request belongs to, and which flow of it.

use skiff_object::Tree;

use crate::authn::UserInfo;
use crate::request::RequestInfo;

/// The prefix of service accounts' user names.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// What a FlowSchema says, ready to be asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matcher {
    pub(crate) precedence: i64,
    pub(crate) level: String,
    pub(crate) distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

/// What tells the flows of one schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distinguisher {
    /// Nothing: all its requests are one flow.
    None,
    /// `ByUser`
    User,
    /// `ByNamespace`
    Namespace,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Clone, Debug, PartialEq)]
enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

#[derive(Clone, Debug, PartialEq)]
struct ResourceRule {
    verbs: Words,
    groups: Words,
    resources: Words,
    namespaces: Words,
    cluster_scope: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct PathRule {
    verbs: Words,
    urls: Vec<String>,
}

/// A list of which `*` alone is everything.
#[derive(Clone, Debug, PartialEq)]
enum Words {
    All,
    Some(Vec<String>),
}

impl Words {
    fn of(tree: &Tree, field: &str) -> Self {
        match texts(tree, field) {
            only if only.len() == 1 && only[0] == "*" => Self::All,
            several => Self::Some(several),
        }
    }

    fn contains(&self, is: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::Some(words) => words.iter().any(|word| is(word)),
        }
    }
}

fn texts(tree: &Tree, field: &str) -> Vec<String> {
    tree.list_at(&[field]).iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

impl Matcher {
    /// Reads a FlowSchema's `spec`.
    pub(crate) fn of(spec: &Tree) -> Self {
        Self {
            precedence: spec.int_at(&["matchingPrecedence"]).unwrap_or(1_000),
            level: spec.str_at(&["priorityLevelConfiguration", "name"]).to_owned(),
            distinguisher: match spec.str_at(&["distinguisherMethod", "type"]) {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: spec.list_at(&["rules"]).iter().map(Rule::of).collect(),
        }
    }

    /// Whether the request belongs to the schema.
    pub(crate) fn matches(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(info, user))
    }

    /// What tells this request's flow from the others.
    pub(crate) fn flow<'a>(&self, info: &'a RequestInfo, user: &'a UserInfo) -> &'a str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => &info.namespace,
        }
    }
}

impl Rule {
    fn of(tree: &Tree) -> Self {
        let each = |field: &str| tree.list_at(&[field]).iter();
        Self {
            subjects: each("subjects").filter_map(Subject::of).collect(),
            resources: each("resourceRules")
                .map(|rule| ResourceRule {
                    verbs: Words::of(rule, "verbs"),
                    groups: Words::of(rule, "apiGroups"),
                    resources: Words::of(rule, "resources"),
                    namespaces: Words::of(rule, "namespaces"),
                    cluster_scope: rule.bool_at(&["clusterScope"]).unwrap_or(false),
                })
                .collect(),
            paths: each("nonResourceRules")
                .map(|rule| PathRule { verbs: Words::of(rule, "verbs"), urls: texts(rule, "nonResourceURLs") })
                .collect(),
        }
    }

    fn matches(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        self.subjects.iter().any(|subject| subject.matches(user))
            && if info.is_resource {
                self.resources.iter().any(|rule| rule.matches(info))
            } else {
                self.paths.iter().any(|rule| rule.matches(info))
            }
    }
}

impl Subject {
    fn of(tree: &Tree) -> Option<Self> {
        let text = |path: &[&str]| tree.str_at(path).to_owned();
        match tree.str_at(&["kind"]) {
            "User" => Some(Self::User(text(&["user", "name"]))),
            "Group" => Some(Self::Group(text(&["group", "name"]))),
            "ServiceAccount" => Some(Self::ServiceAccount {
                namespace: text(&["serviceAccount", "namespace"]),
                name: text(&["serviceAccount", "name"]),
            }),
            _ => None,
        }
    }

    fn matches(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.name,
            Self::Group(name) => name == "*" || user.groups.contains(name),
            Self::ServiceAccount { namespace, name } => user
                .name
                .strip_prefix(SERVICE_ACCOUNT)
                .and_then(|rest| rest.strip_prefix(namespace.as_str())?.strip_prefix(':'))
                .is_some_and(|account| name == "*" || account == name),
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        self.verbs.contains(|verb| verb == info.verb)
            && self.resources.contains(|resource| is_resource(resource, info))
            && self.groups.contains(|group| group == info.group)
            && if info.namespace.is_empty() {
                self.cluster_scope
            } else {
                self.namespaces.contains(|namespace| namespace == info.namespace)
            }
    }
}

/// Whether `written` is the request's `resource` or `resource/subresource`.
fn is_resource(written: &str, info: &RequestInfo) -> bool {
    match written.split_once('/') {
        Some((resource, subresource)) => resource == info.resource && subresource == info.subresource,
        None => info.subresource.is_empty() && written == info.resource,
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        self.verbs.contains(|verb| verb == info.verb)
            && self.urls.iter().any(|url| {
                let stem = url.trim_end_matches('*').trim_end_matches('/');
                url == "*"
                    || *url == info.path
                    || info.path.strip_prefix(stem).is_some_and(|rest| rest.starts_with('/'))
            })
    }
}

/// The hash of a flow: FNV-1a over the schema, a zero byte and what tells the flow apart.
///
/// Only the spread over queues depends on it, so it need not be upstream's (SHA-256).
pub(crate) fn hash_flow(schema: &str, flow: &str) -> u64 {
    let bytes = schema.bytes().chain([0]).chain(flow.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    // The low bits choose the cards: mix the high ones in.
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn check(rule: &str, method: Method, path: &str, user: &UserInfo) -> bool {
        let text = format!("{{\"rules\":[{rule}],\"priorityLevelConfiguration\":{{\"name\":\"x\"}}}}");
        let spec = skiff_object::json::decode_untyped(text.as_bytes()).unwrap();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Matcher::of(&spec).matches(&RequestInfo::parse(&method, path, query), user)
    }

    const LEASES: &str = r#"{"subjects":[{"kind":"ServiceAccount","serviceAccount":{"namespace":"kube-system","name":"*"}}],
        "resourceRules":[{"verbs":["get","update"],"apiGroups":["coordination.k8s.io"],"resources":["leases"],
        "namespaces":["*"]}]}"#;
    const NODES: &str = r#"{"subjects":[{"kind":"Group","group":{"name":"system:nodes"}}],
        "resourceRules":[{"verbs":["*"],"apiGroups":[""],"resources":["nodes","nodes/status"],"clusterScope":true,
        "namespaces":["*"]}],"nonResourceRules":[{"verbs":["get"],"nonResourceURLs":["/healthz","/api/*"]}]}"#;

    #[test]
    fn subjects_verbs_resources_and_scopes_must_all_match() {
        let account = UserInfo::new("system:serviceaccount:kube-system:a", &[]);
        let other = UserInfo::new("system:serviceaccount:kube-system2:a", &[]);
        let lease = "/apis/coordination.k8s.io/v1/namespaces/x/leases/y";
        assert!(check(LEASES, Method::GET, lease, &account));
        assert!(!check(LEASES, Method::GET, lease, &other));
        assert!(!check(LEASES, Method::DELETE, lease, &account));
        assert!(!check(LEASES, Method::GET, "/apis/coordination.k8s.io/v1/leases?watch=1", &account));
        let node = UserInfo::new("system:node:n", &["system:nodes"]);
        assert!(check(NODES, Method::PATCH, "/api/v1/nodes/n/status", &node));
        assert!(!check(NODES, Method::GET, "/api/v1/nodes/n/proxy", &node));
        for (path, is) in [("/healthz", true), ("/healthz/etcd", true), ("/healthzx", false), ("/api/v1", true)] {
            assert_eq!(check(NODES, Method::GET, path, &node), is, "{path}");
        }
    }
}
