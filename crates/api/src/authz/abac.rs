//! Attribute-based access control: one policy a line, as `--authorization-policy-file` has it.
//!
//! The file is read once, at the start. Both of upstream's forms are read: objects of
//! `abac.authorization.kubernetes.io/v1beta1`, and lines of old without a version.

use skiff_object::{Tree, json};

use super::{Attributes, Authorizer, Decision, NonResourceRule, ResourceRule, Rules, Target};
use crate::authn::UserInfo;

const GROUP: &str = "abac.authorization.kubernetes.io";
const AUTHENTICATED: &str = "system:authenticated";
/// Policies of one file: each request looks at all of them.
const POLICIES_MAX: usize = 10_000;

/// The policies of a file.
#[derive(Debug, Default)]
pub struct Abac {
    policies: Vec<Policy>,
}

#[derive(Debug, PartialEq, Eq)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    namespace: String,
    resource: String,
    path: String,
}

impl Abac {
    /// Reads the text of a policy file; empty lines and comments are passed over.
    ///
    /// # Errors
    /// The first line that is no policy.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut policies = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let policy = Policy::read(line).map_err(|why| format!("line {}: {line}: {why}", at + 1))?;
            if policies.len() == POLICIES_MAX {
                return Err(format!("line {}: more than {POLICIES_MAX} policies", at + 1));
            }
            policies.push(policy);
        }
        Ok(Self { policies })
    }
}

impl Policy {
    fn read(line: &str) -> Result<Self, String> {
        let tree = json::decode_untyped(line.as_bytes()).map_err(|error| error.to_string())?;
        if tree.as_map().is_none() {
            return Err("a policy is an object".into());
        }
        let (version, kind) = (tree.str_at(&["apiVersion"]), tree.str_at(&["kind"]));
        if version.is_empty() && kind.is_empty() {
            return Ok(Self::of_old(&tree));
        }
        let known = version.strip_prefix(GROUP).is_some_and(|rest| matches!(rest, "/v1beta1" | "/v0"));
        if !known || kind != "Policy" {
            return Err(format!("no kind {kind:?} is registered for version {version:?}"));
        }
        if version.ends_with("/v0") {
            return Ok(Self::of_old(&tree));
        }
        let text = |field: &str| tree.str_at(&["spec", field]).to_owned();
        let mut policy = Self {
            user: text("user"),
            group: text("group"),
            readonly: tree.bool_at(&["spec", "readonly"]).unwrap_or(false),
            api_group: text("apiGroup"),
            namespace: text("namespace"),
            resource: text("resource"),
            path: text("nonResourcePath"),
        };
        policy.everybody_is_authenticated();
        Ok(policy)
    }

    /// What a line without a version means: what it does not say is anything.
    fn of_old(tree: &Tree) -> Self {
        let text = |field: &str| tree.str_at(&[field]).to_owned();
        let anything = |text: String| if text.is_empty() { "*".to_owned() } else { text };
        let (user, group) = (text("user"), text("group"));
        let is_for_all = user.is_empty() && group.is_empty();
        let says_nothing = text("namespace").is_empty() && text("resource").is_empty();
        let mut policy = Self {
            group: if is_for_all { AUTHENTICATED.to_owned() } else { group },
            user,
            readonly: tree.bool_at(&["readonly"]).unwrap_or(false),
            api_group: "*".to_owned(),
            namespace: anything(text("namespace")),
            resource: anything(text("resource")),
            path: if says_nothing { "*".to_owned() } else { String::new() },
        };
        policy.everybody_is_authenticated();
        policy
    }

    /// Everybody is everybody who has shown who they are.
    fn everybody_is_authenticated(&mut self) {
        if self.user == "*" || self.group == "*" {
            self.user.clear();
            AUTHENTICATED.clone_into(&mut self.group);
        }
    }

    fn is_about(&self, user: &UserInfo) -> bool {
        (!self.user.is_empty() || !self.group.is_empty())
            && (self.user.is_empty() || self.user == user.name)
            && (self.group.is_empty() || user.in_group(&self.group))
    }

    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let is = |own: &str, asked: &str| own == "*" || own == asked;
        let target = match attributes.target {
            Target::Resource { group, resource, namespace, .. } => {
                is(&self.namespace, namespace) && is(&self.resource, resource) && is(&self.api_group, group)
            }
            Target::Path(path) => {
                is(&self.path, path) || self.path.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
            }
        };
        target
            && (!self.readonly || matches!(attributes.verb, "get" | "list" | "watch"))
            && self.is_about(attributes.user)
    }
}

impl Authorizer for Abac {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if self.policies.iter().any(|policy| policy.allows(attributes)) {
            return Decision::Allow(String::new());
        }
        Decision::NoOpinion("No policy matched.".into())
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut rules = Rules::default();
        for policy in self.policies.iter().filter(|policy| policy.is_about(user)) {
            let verbs: Vec<String> = if policy.readonly { vec!["get", "list", "watch"] } else { vec!["*"] }
                .into_iter()
                .map(str::to_owned)
                .collect();
            if !policy.resource.is_empty() && (policy.namespace == "*" || policy.namespace == namespace) {
                rules.resource.push(ResourceRule {
                    verbs: verbs.clone(),
                    api_groups: vec![policy.api_group.clone()],
                    resources: vec![policy.resource.clone()],
                    resource_names: Vec::new(),
                });
            }
            if !policy.path.is_empty() {
                rules.non_resource.push(NonResourceRule { verbs, urls: vec![policy.path.clone()] });
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: &str = r#"
        # Who reads what
        {"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"alice","namespace":"*","resource":"*","apiGroup":"*"}}
        {"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"group":"ops","namespace":"kube-system","resource":"pods","readonly":true}}
        {"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"*","readonly":true,"nonResourcePath":"/version*"}}
        {"user":"old","resource":"pods","namespace":"default"}
        {"user":"older","readonly":true}
    "#;

    #[track_caller]
    fn check(user: &UserInfo, verb: &str, place: &str, expected: bool) {
        let abac = Abac::read(POLICIES).unwrap();
        let parts: Vec<&str> = place.split(' ').collect();
        let target = match parts.as_slice() {
            [namespace, group, resource] => Target::Resource {
                group: group.strip_prefix("core").unwrap_or(group),
                version: "v1",
                resource,
                subresource: "",
                namespace,
                name: "",
            },
            _ => Target::Path(place),
        };
        assert_eq!(abac.authorize(&Attributes::new(user, verb, target)).is_allowed(), expected, "{verb} {place}");
    }

    #[test]
    fn a_policy_that_fits_allows() {
        let authenticated = [AUTHENTICATED];
        let alice = UserInfo::new("alice", &authenticated);
        check(&alice, "delete", "default apps deployments", true);
        check(&alice, "get", "/metrics", false);
        check(&alice, "get", "/version/", true);
        let ops = UserInfo::new("bob", &["ops"]);
        check(&ops, "list", "kube-system core pods", true);
        check(&ops, "delete", "kube-system core pods", false);
        check(&ops, "list", "default core pods", false);
        check(&ops, "list", "kube-system metrics.k8s.io pods", false);
        let old = UserInfo::new("old", &authenticated);
        check(&old, "delete", "default core pods", true);
        check(&old, "delete", "default metrics.k8s.io pods", true);
        check(&old, "get", "/metrics", false);
        let older = UserInfo::new("older", &authenticated);
        check(&older, "watch", "any any things", true);
        check(&older, "create", "any any things", false);
        check(&older, "get", "/metrics", true);
        check(&UserInfo::new("nobody", &[]), "get", "default core pods", false);
    }

    #[test]
    fn a_line_that_is_no_policy_is_named() {
        let error = |text: &str| Abac::read(text).unwrap_err();
        assert!(error("\n{").starts_with("line 2: {: "), "{}", error("\n{"));
        let other = r#"{"apiVersion":"v1","kind":"Pod"}"#;
        assert!(error(other).ends_with("no kind \"Pod\" is registered for version \"v1\""));
        assert!(error("[]").ends_with("a policy is an object"));
    }

    #[test]
    fn rules_are_those_about_the_user() {
        let rules = Abac::read(POLICIES).unwrap().rules(&UserInfo::new("bob", &["ops"]), "kube-system");
        assert_eq!((rules.resource.len(), rules.non_resource.len()), (1, 1));
        assert_eq!(rules.resource[0].verbs, ["get", "list", "watch"]);
        // A policy for everybody is about this user too.
        assert_eq!(rules.non_resource[0].urls, ["/version*"]);
    }
}
