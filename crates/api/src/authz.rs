//! What a request wants to do, and the seam to whoever decides whether it may.

pub mod abac;
pub mod changing;
pub mod conditions;
pub mod config;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod reconcile;
pub mod selectors;
pub mod union;
pub mod webhook;

use futures::future::BoxFuture;

use crate::authn::{MASTERS, UserInfo};
use crate::errors::{ApiError, Qualified};
use crate::request::RequestInfo;

pub use selectors::Selectors;

/// What is asked to be allowed.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a UserInfo,
    /// The verb; for non-resource paths the lower-case method.
    pub verb: &'a str,
    /// What is asked for.
    pub target: Target<'a>,
    /// What a list, watch or deletecollection is limited to.
    pub selectors: Option<&'a Selectors>,
}

/// A resource or a path.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// A resource of an API group.
    Resource {
        /// The API group.
        group: &'a str,
        /// The API version.
        version: &'a str,
        /// The plural name.
        resource: &'a str,
        /// The subresource, empty for none.
        subresource: &'a str,
        /// The namespace, empty for all or none.
        namespace: &'a str,
        /// The object, empty for all.
        name: &'a str,
    },
    /// Any other path.
    Path(&'a str),
}

/// The answer of an authorizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why.
    Allow(String),
    /// No, whatever others say, and why.
    Deny(String),
    /// Not that this authorizer knows of; why it does not, if there is anything to say.
    NoOpinion(String),
}

impl Decision {
    /// Whether it is a yes.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// The reason given.
    pub fn reason(&self) -> &str {
        match self {
            Self::Allow(reason) | Self::Deny(reason) | Self::NoOpinion(reason) => reason,
        }
    }
}

/// A rule about resources, as `SelfSubjectRulesReview` lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// API groups, `*` for all.
    pub api_groups: Vec<String>,
    /// Resources, `*` for all.
    pub resources: Vec<String>,
    /// Names; empty for all.
    pub resource_names: Vec<String>,
}

/// A rule about other paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NonResourceRule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// Paths, with `*` at the end.
    pub urls: Vec<String>,
}

/// All that a user may do in a namespace, as far as it can be listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// About resources.
    pub resource: Vec<ResourceRule>,
    /// About other paths.
    pub non_resource: Vec<NonResourceRule>,
    /// Whether there may be more than is listed.
    pub incomplete: bool,
    /// Why, and other things that went wrong.
    pub evaluation_error: String,
}

/// Decides what is allowed. Most decide from memory and keep a snapshot of their rules.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether this is allowed, from memory. One that has to ask somebody else has no opinion here.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;

    /// Whether deciding about `user` may take asking somebody else.
    fn asks(&self, user: &UserInfo) -> bool {
        let _ = user;
        false
    }

    /// The same by asking somebody else; `None` from those that decide from memory.
    fn ask<'a>(&'a self, attributes: Attributes<'a>) -> Option<BoxFuture<'a, Decision>> {
        let _ = attributes;
        None
    }

    /// What `user` may do in `namespace`.
    fn rules(&self, user: &UserInfo, namespace: &str) -> Rules;

    /// The roles and bindings, where they decide: who may grant what is measured by them.
    fn roles(&self) -> Option<&rbac::Rbac> {
        None
    }
}

/// Says yes to everything: for tests and for stores that hold no roles.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn authorize(&self, _: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }

    fn rules(&self, _: &UserInfo, _: &str) -> Rules {
        self.rules_of_everybody()
    }
}

/// Says no to everything but `system:masters`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DenyAll;

impl Authorizer for DenyAll {
    fn authorize(&self, _: &Attributes<'_>) -> Decision {
        Decision::NoOpinion("Everything is forbidden.".into())
    }

    fn rules(&self, _: &UserInfo, _: &str) -> Rules {
        Rules::default()
    }
}

impl AllowAll {
    /// Everything, for everybody.
    pub fn rules_of_everybody(self) -> Rules {
        let all = || vec!["*".to_owned()];
        Rules {
            resource: vec![ResourceRule {
                verbs: all(),
                api_groups: all(),
                resources: all(),
                resource_names: Vec::new(),
            }],
            non_resource: vec![NonResourceRule { verbs: all(), urls: all() }],
            ..Rules::default()
        }
    }
}

impl<'a> Attributes<'a> {
    /// What a parsed request asks for.
    pub fn of(user: &'a UserInfo, info: &'a RequestInfo) -> Self {
        let target = if info.is_resource {
            Target::Resource {
                group: &info.group,
                version: &info.version,
                resource: &info.resource,
                subresource: &info.subresource,
                namespace: &info.namespace,
                name: &info.name,
            }
        } else {
            Target::Path(&info.path)
        };
        Self::new(user, info.verb, target)
    }

    /// Without selectors.
    pub const fn new(user: &'a UserInfo, verb: &'a str, target: Target<'a>) -> Self {
        Self { user, verb, target, selectors: None }
    }
}

/// Asks `authorizer`; members of `system:masters` are never refused.
pub async fn decide(authorizer: &dyn Authorizer, attributes: &Attributes<'_>) -> Decision {
    if attributes.user.in_group(MASTERS) {
        return Decision::Allow(String::new());
    }
    match authorizer.ask(*attributes) {
        Some(answer) => answer.await,
        None => authorizer.authorize(attributes),
    }
}

/// The 403 for a refused request, in upstream's words.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> ApiError {
    let why = |sentence: String| if reason.is_empty() { sentence } else { format!("{sentence}: {reason}") };
    let user = &attributes.user.name;
    match attributes.target {
        Target::Path(path) => {
            ApiError::forbidden_path(&why(format!("User {user:?} cannot {} path {path:?}", attributes.verb)))
        }
        Target::Resource { group, resource, subresource, namespace, name, .. } => {
            let full = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            let sentence =
                format!("User {user:?} cannot {} resource {full:?} in API group {group:?} {place}", attributes.verb);
            ApiError::forbidden(Qualified { group, name: resource }, name, &why(sentence))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn refusals_read_as_upstreams() {
        let user = UserInfo::new("jane", &[]);
        let info = RequestInfo::parse(&Method::GET, "/apis/apps/v1/namespaces/y/deployments", "");
        assert_eq!(
            forbidden(&Attributes::of(&user, &info), "").message,
            "deployments.apps is forbidden: User \"jane\" cannot list resource \"deployments\" in API group \
             \"apps\" in the namespace \"y\""
        );
        let info = RequestInfo::parse(&Method::GET, "/metrics", "");
        assert_eq!(
            forbidden(&Attributes::of(&user, &info), "").message,
            "forbidden: User \"jane\" cannot get path \"/metrics\""
        );
    }
}
