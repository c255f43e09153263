//! `audit.k8s.io/v1 Policy`: what of which requests is written down.

use skiff_object::{Tree, yaml};

use crate::authn::UserInfo;
use crate::request::RequestInfo;

/// How much of a request is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// Who did what, without bodies.
    Metadata,
    /// And the body of the request.
    Request,
    /// And the body of the answer.
    RequestResponse,
}

/// When an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The request has come and is not yet looked at.
    RequestReceived,
    /// The head of the answer to a long request is sent.
    ResponseStarted,
    /// The answer is sent.
    ResponseComplete,
    /// The request panicked.
    Panic,
}

const LEVELS: [(&str, Level); 4] = [
    ("None", Level::None),
    ("Metadata", Level::Metadata),
    ("Request", Level::Request),
    ("RequestResponse", Level::RequestResponse),
];
const STAGES: [(&str, Stage); 4] = [
    ("RequestReceived", Stage::RequestReceived),
    ("ResponseStarted", Stage::ResponseStarted),
    ("ResponseComplete", Stage::ResponseComplete),
    ("Panic", Stage::Panic),
];

impl Level {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        LEVELS.iter().find(|(_, level)| *level == self).map_or("", |(text, _)| text)
    }
}

impl Stage {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        STAGES.iter().find(|(_, stage)| *stage == self).map_or("", |(text, _)| text)
    }
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    level: Level,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

/// What a policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How much.
    pub level: Level,
    /// Stages that write nothing.
    pub omit_stages: Vec<Stage>,
    /// Whether bodies lose their `managedFields`.
    pub omit_managed_fields: bool,
}

const RULE_FIELDS: [&str; 9] = [
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
];

impl Policy {
    /// Reads a policy from YAML or JSON.
    ///
    /// # Errors
    /// Every field that is wrong, in upstream's words.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let tree = yaml::decode_untyped(text).map_err(|error| format!("failed decoding: {error}"))?;
        let (version, kind) = (tree.str_at(&["apiVersion"]), tree.str_at(&["kind"]));
        if version != "audit.k8s.io/v1" || kind != "Policy" {
            return Err(format!("unknown group version field {version}, Kind={kind} in policy"));
        }
        let mut wrong = Vec::new();
        let rules = tree.list_at(&["rules"]);
        let omit_stages = stages(&tree, "omitStages", &mut wrong);
        let rules: Vec<Rule> =
            rules.iter().enumerate().map(|(at, rule)| Rule::parse(rule, &format!("rules[{at}]"), &mut wrong)).collect();
        match wrong.as_slice() {
            [] if rules.is_empty() => Err("loaded illegal policy with 0 rules".into()),
            [] => {
                let omit_managed_fields = tree.bool_at(&["omitManagedFields"]).unwrap_or(false);
                Ok(Self { rules, omit_stages, omit_managed_fields })
            }
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }

    /// What it says of a request.
    pub fn evaluate(&self, info: &RequestInfo, user: Option<&UserInfo>) -> Verdict {
        match self.rules.iter().find(|rule| rule.matches(info, user)) {
            Some(rule) => Verdict {
                level: rule.level,
                // A rule's stages come on top of the policy's.
                omit_stages: rule.omit_stages.iter().chain(&self.omit_stages).copied().collect(),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
            },
            None => Verdict { level: Level::None, omit_stages: Vec::new(), omit_managed_fields: false },
        }
    }
}

fn texts(tree: &Tree, field: &str) -> Vec<String> {
    tree.list_at(&[field]).iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

fn stages(tree: &Tree, path: &str, wrong: &mut Vec<String>) -> Vec<Stage> {
    let mut stages = Vec::new();
    for (at, text) in texts(tree, "omitStages").iter().enumerate() {
        match STAGES.iter().find(|(name, _)| name == text) {
            Some((_, stage)) => stages.push(*stage),
            None => {
                let all: Vec<&str> = STAGES.iter().map(|(name, _)| *name).collect();
                wrong.push(format!("{path}[{at}]: Invalid value: {text:?}: allowed stages are {}", all.join(",")));
            }
        }
    }
    stages
}

impl Rule {
    fn parse(tree: &Tree, path: &str, wrong: &mut Vec<String>) -> Self {
        if let Tree::Map(map) = tree {
            for key in map.keys().filter(|key| !RULE_FIELDS.contains(&key.as_str())) {
                // Upstream reads such a policy leniently, too, and says so in its log.
                tracing::warn!(field = format!("{path}.{}", key.as_str()), "unknown field in the audit policy");
            }
        }
        let level = match tree.str_at(&["level"]) {
            "" => {
                wrong.push(format!("{path}.level: Required value"));
                Level::None
            }
            text => LEVELS.iter().find(|(name, _)| *name == text).map_or_else(
                || {
                    wrong.push(format!(
                        "{path}.level: Unsupported value: {text:?}: supported values: \"Metadata\", \"None\", \
                         \"Request\", \"RequestResponse\""
                    ));
                    Level::None
                },
                |(_, level)| *level,
            ),
        };
        let urls = texts(tree, "nonResourceURLs");
        check_urls(&urls, path, wrong);
        let resources: Vec<GroupResources> = tree
            .list_at(&["resources"])
            .iter()
            .map(|one| GroupResources {
                group: one.str_at(&["group"]).to_owned(),
                resources: texts(one, "resources"),
                names: texts(one, "resourceNames"),
            })
            .collect();
        for one in &resources {
            check_resources(one, path, wrong);
        }
        let namespaces = texts(tree, "namespaces");
        let about_resources = !resources.is_empty() || !namespaces.is_empty();
        if !urls.is_empty() && about_resources {
            wrong.push(format!(
                "{path}.nonResourceURLs: Invalid value: {urls:?}: rules cannot apply to both regular resources and \
                 non-resource URLs"
            ));
        }
        Self {
            level,
            users: texts(tree, "users"),
            groups: texts(tree, "userGroups"),
            verbs: texts(tree, "verbs"),
            resources,
            namespaces,
            urls,
            omit_stages: stages(tree, &format!("{path}.omitStages"), wrong),
            omit_managed_fields: tree.bool_at(&["omitManagedFields"]),
        }
    }

    fn matches(&self, info: &RequestInfo, user: Option<&UserInfo>) -> bool {
        let names = |list: &[String], text: &str| list.is_empty() || list.iter().any(|one| one == text);
        let knows = |user: &UserInfo| {
            names(&self.users, &user.name)
                && (self.groups.is_empty() || user.groups.iter().any(|group| self.groups.contains(group)))
        };
        let who = user.map_or(self.users.is_empty() && self.groups.is_empty(), knows);
        if !who || !names(&self.verbs, info.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && names(&self.namespaces, &info.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|one| one.matches(info)));
        }
        self.urls.is_empty() || (!info.is_resource && self.urls.iter().any(|url| is_path(url, &info.path)))
    }
}

fn check_urls(urls: &[String], path: &str, wrong: &mut Vec<String>) {
    for (at, url) in urls.iter().enumerate().filter(|(_, url)| *url != "*") {
        let mut invalid =
            |why: &str| wrong.push(format!("{path}.nonResourceURLs[{at}]: Invalid value: {url:?}: {why}"));
        if !url.starts_with('/') {
            invalid("non-resource URL rules must begin with a '/' character");
        }
        if url.trim_end_matches('*').len() + 1 < url.len() || url.trim_end_matches('*').contains('*') {
            invalid("non-resource URL wildcards '*' must be the final character of the rule");
        }
    }
}

fn check_resources(one: &GroupResources, path: &str, wrong: &mut Vec<String>) {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    if !one.group.is_empty() && one.group != "*" && !one.group.bytes().all(is_name) {
        wrong.push(format!(
            "{path}.resources.group: Invalid value: {:?}: a lowercase RFC 1123 subdomain must consist of lower case \
             alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            one.group
        ));
    }
    if !one.names.is_empty() && one.resources.is_empty() {
        wrong.push(format!(
            "{path}.resources.resourceNames: Invalid value: {:?}: using resourceNames requires at least one resource",
            one.names
        ));
    }
}

fn is_path(url: &str, path: &str) -> bool {
    url == "*" || url == path || (url.ends_with('*') && path.starts_with(url.trim_end_matches('*')))
}

impl GroupResources {
    fn matches(&self, info: &RequestInfo) -> bool {
        if self.group != "*" && self.group != info.group {
            return false;
        }
        let is = |written: &str| match written.split_once('/') {
            None if written == "*" => true,
            None => info.subresource.is_empty() && written == info.resource,
            Some(("*", subresource)) => !info.subresource.is_empty() && subresource == info.subresource,
            Some((resource, "*")) => resource == info.resource,
            Some((resource, subresource)) => resource == info.resource && subresource == info.subresource,
        };
        self.resources.is_empty()
            || ((self.names.is_empty() || self.names.contains(&info.name))
                && self.resources.iter().any(|written| is(written)))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn policy(rules: &str) -> Result<Policy, String> {
        Policy::parse(format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}").as_bytes())
    }

    fn level(policy: &Policy, method: Method, path: &str, user: &UserInfo) -> Level {
        policy.evaluate(&RequestInfo::parse(&method, path, ""), Some(user)).level
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = policy(
            "omitStages: [RequestReceived]\nrules:\n\
             - {level: None, users: [quiet]}\n\
             - {level: None, nonResourceURLs: ['/healthz*', /version]}\n\
             - {level: Metadata, resources: [{group: '', resources: [secrets, 'pods/*', '*/status']}]}\n\
             - {level: Request, resources: [{group: apps}], verbs: [create, delete], namespaces: [a]}\n\
             - {level: RequestResponse, userGroups: [loud], omitStages: [Panic], omitManagedFields: true}\n",
        )
        .unwrap();
        let (alice, loud) = (UserInfo::new("alice", &[]), UserInfo::new("bob", &["loud"]));
        let secrets = "/api/v1/namespaces/a/secrets/x";
        assert_eq!(level(&policy, Method::GET, secrets, &UserInfo::new("quiet", &[])), Level::None);
        assert_eq!(level(&policy, Method::GET, "/healthz/ping", &loud), Level::None);
        assert_eq!(level(&policy, Method::GET, secrets, &loud), Level::Metadata);
        for (path, expected) in [
            ("/api/v1/namespaces/a/pods/x/log", Level::Metadata),
            ("/api/v1/namespaces/a/pods/x", Level::Metadata),
            ("/api/v1/nodes/x/status", Level::Metadata),
            ("/api/v1/nodes/x", Level::None),
            ("/apis/apps/v1/namespaces/a/deployments/x", Level::None),
        ] {
            assert_eq!(level(&policy, Method::GET, path, &alice), expected, "{path}");
        }
        let deployments = "/apis/apps/v1/namespaces/a/deployments";
        assert_eq!(level(&policy, Method::POST, deployments, &alice), Level::Request);
        let verdict = policy.evaluate(&RequestInfo::parse(&Method::GET, "/api", ""), Some(&loud));
        assert_eq!(verdict.level, Level::RequestResponse);
        assert_eq!(verdict.omit_stages, [Stage::Panic, Stage::RequestReceived]);
        assert!(verdict.omit_managed_fields);
        assert_eq!(policy.evaluate(&RequestInfo::parse(&Method::GET, secrets, ""), None).level, Level::Metadata);
    }

    #[test]
    fn wrong_policies_are_refused_in_upstreams_words() {
        for (rules, expected) in [
            ("rules: []", "loaded illegal policy with 0 rules"),
            ("rules: [{}]", "rules[0].level: Required value"),
            ("rules: [{level: Metadata, nonResourceURLs: ['/a*b']}]", "must be the final character"),
            ("rules: [{level: Metadata, nonResourceURLs: [/a], namespaces: [x]}]", "both regular resources"),
            ("rules: [{level: All}]", "rules[0].level: Unsupported value: \"All\""),
            ("omitStages: [Never]\nrules: [{level: None}]", "omitStages[0]: Invalid value: \"Never\""),
        ] {
            let error = policy(rules).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Policy::parse(b"kind: Policy").is_err());
    }
}
