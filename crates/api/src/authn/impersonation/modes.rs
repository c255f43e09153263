//! The ways in which somebody may be allowed to act as somebody else.
//!
//! A constrained way takes two rights: `impersonate-on:<mode>:<verb>` for the request itself and
//! `impersonate:<mode>` for the user, uid, groups and extras (KEP-5284). The legacy way takes
//! `impersonate` for the latter and allows every request. The first way that is open is taken; when
//! none is, the answer is the refusal of the first one that was tried.

use crate::authn::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, UserInfo};
use crate::authz::{self, Attributes, Decision, Target};
use crate::errors::{ApiError, ApiResult};
use crate::server::ApiServer;

/// From so many groups or extras on, the right to impersonate all of them is asked for first.
const MANY: usize = 4;
const GROUP: &str = "authentication.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// An impersonation that is allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Who the request counts as.
    pub user: UserInfo,
    /// The verb that allowed it; empty for the legacy way.
    pub constraint: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

impl Mode {
    const fn verb(self) -> &'static str {
        match self {
            Self::AssociatedNode => "impersonate:associated-node",
            Self::ArbitraryNode => "impersonate:arbitrary-node",
            Self::ServiceAccount => "impersonate:serviceaccount",
            Self::UserInfo => "impersonate:user-info",
            Self::Legacy => "impersonate",
        }
    }

    /// The verb for the request itself, without that of the request.
    const fn on(self) -> &'static str {
        match self {
            Self::AssociatedNode => "impersonate-on:associated-node:",
            Self::ArbitraryNode => "impersonate-on:arbitrary-node:",
            Self::ServiceAccount => "impersonate-on:serviceaccount:",
            Self::UserInfo => "impersonate-on:user-info:",
            Self::Legacy => "",
        }
    }

    const fn constraint(self) -> &'static str {
        match self {
            Self::Legacy => "",
            constrained => constrained.verb(),
        }
    }

    /// Whether this way is for such a user at all.
    fn is_for(self, wanted: &UserInfo, requestor: &UserInfo) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node_of(&wanted.name);
        match self {
            Self::AssociatedNode => {
                let own = requestor.extra.get(NODE_NAME).map(Vec::as_slice);
                only_name
                    && requestor.service_account().is_some()
                    && node.is_some_and(|node| matches!(own, Some([own]) if own == node))
            }
            Self::ArbitraryNode => only_name && node.is_some(),
            Self::ServiceAccount => only_name && wanted.service_account().is_some(),
            Self::UserInfo => node.is_none() && wanted.service_account().is_none(),
            Self::Legacy => true,
        }
    }
}

/// Whether the user of `attributes` may make that request as `wanted`.
///
/// # Errors
/// 403 that names what is missing.
pub async fn check(server: &ApiServer, wanted: &UserInfo, attributes: &Attributes<'_>) -> ApiResult<Allowed> {
    let mut refusal = None;
    for mode in MODES.into_iter().filter(|mode| mode.is_for(wanted, attributes.user)) {
        match (Attempt { server, mode, wanted, attributes }).run().await {
            Ok(user) => return Ok(Allowed { user, constraint: mode.constraint() }),
            Err(error) => _ = refusal.get_or_insert(error),
        }
    }
    Err(refusal.unwrap_or_else(|| ApiError::internal("all impersonation modes failed")))
}

struct Attempt<'a> {
    server: &'a ApiServer,
    mode: Mode,
    wanted: &'a UserInfo,
    attributes: &'a Attributes<'a>,
}

impl Attempt<'_> {
    async fn run(&self) -> ApiResult<UserInfo> {
        // Which node it is has been checked; what else is known about the caller does not count.
        let mut requestor = self.attributes.user.clone();
        if self.mode == Mode::AssociatedNode {
            let keys = requestor.extra.keys().cloned().collect();
            requestor.extra = [("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)].into();
        }
        if self.mode != Mode::Legacy {
            let verb = format!("{}{}", self.mode.on(), self.attributes.verb);
            self.permit(&Attributes { user: &requestor, verb: &verb, ..*self.attributes }).await?;
        }
        let mut user = self.name(&requestor).await?;
        if !self.wanted.uid.is_empty() {
            self.may(&requestor, GROUP, "uids", "", &self.wanted.uid).await?;
        }
        self.groups(&requestor).await?;
        self.extra(&requestor).await?;
        let automatic = match user.name.as_str() {
            ANONYMOUS => Some(UNAUTHENTICATED),
            _ => (!user.in_group(UNAUTHENTICATED)).then_some(AUTHENTICATED),
        };
        if let Some(group) = automatic.filter(|group| !user.in_group(group)) {
            user.groups.push(group.to_owned());
        }
        Ok(user)
    }

    /// Users and groups belong to the core group in the legacy way only.
    fn group(&self) -> &'static str {
        if self.mode == Mode::Legacy { "" } else { GROUP }
    }

    async fn name(&self, requestor: &UserInfo) -> ApiResult<UserInfo> {
        let mut user = self.wanted.clone();
        let constrained = self.mode != Mode::Legacy;
        if let Some(node) = node_of(&self.wanted.name).filter(|_| constrained) {
            let name = if self.mode == Mode::AssociatedNode { "*" } else { node };
            user.groups = vec!["system:nodes".to_owned()];
            self.may(requestor, self.group(), "nodes", "", name).await?;
        } else if let Some((namespace, name)) = self.wanted.service_account() {
            if self.wanted.groups.is_empty() {
                user.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
            }
            let target = target(self.group(), "serviceaccounts", "", namespace, name);
            self.permit(&Attributes::new(requestor, self.mode.verb(), target)).await?;
        } else {
            self.may(requestor, self.group(), "users", "", &self.wanted.name).await?;
        }
        Ok(user)
    }

    async fn groups(&self, requestor: &UserInfo) -> ApiResult<()> {
        let groups = &self.wanted.groups;
        if self.mode != Mode::Legacy {
            let refuse = |name: &str, why: &str| {
                let target = target(self.group(), "groups", "", "", name);
                Err(authz::forbidden(&Attributes::new(requestor, self.mode.verb(), target), why))
            };
            if groups.iter().any(String::is_empty) {
                return refuse("", "impersonating the empty string group is not allowed");
            }
            if groups.iter().any(|group| group == MASTERS) {
                return refuse(MASTERS, "impersonating the system:masters group is not allowed");
            }
            if groups.len() >= MANY && self.may(requestor, self.group(), "groups", "", "*").await.is_ok() {
                return Ok(());
            }
        }
        for group in groups {
            self.may(requestor, self.group(), "groups", "", group).await?;
        }
        Ok(())
    }

    async fn extra(&self, requestor: &UserInfo) -> ApiResult<()> {
        let extra = &self.wanted.extra;
        if self.mode != Mode::Legacy {
            if let Some(why) = extra.iter().find_map(|(key, values)| unfit(key, values)) {
                let target = target(GROUP, "userextras", "", "", "");
                return Err(authz::forbidden(&Attributes::new(requestor, self.mode.verb(), target), &why));
            }
            let many = extra.len() >= MANY || extra.values().map(Vec::len).sum::<usize>() >= MANY;
            if many && self.may(requestor, GROUP, "userextras", "*", "*").await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.may(requestor, GROUP, "userextras", key, value).await?;
            }
        }
        Ok(())
    }

    async fn may(&self, user: &UserInfo, group: &str, resource: &str, sub: &str, name: &str) -> ApiResult<()> {
        self.permit(&Attributes::new(user, self.mode.verb(), target(group, resource, sub, "", name))).await
    }

    async fn permit(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        match authz::decide(self.server.config.authorizer.as_ref(), attributes).await {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(authz::forbidden(attributes, &reason)),
        }
    }
}

fn target<'a>(
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
) -> Target<'a> {
    Target::Resource { group, version: "v1", resource, subresource, namespace, name }
}

/// The node that a user name is the kubelet of.
fn node_of(name: &str) -> Option<&str> {
    name.strip_prefix("system:node:").filter(|node| skiff_object::name::dns1123_subdomain(node).is_empty())
}

fn unfit(key: &str, values: &[String]) -> Option<String> {
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".into());
    }
    if let Some(why) = domain_prefixed_path(key) {
        return Some(format!(
            "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {key:?}: {why}"
        ));
    }
    if key.chars().any(char::is_uppercase) {
        return Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"));
    }
    values
        .iter()
        .any(String::is_empty)
        .then(|| "impersonating the empty string value in extra is not allowed".to_owned())
}

/// What is wrong with `key` as `domain/path`.
pub(in crate::authn) fn domain_prefixed_path(key: &str) -> Option<String> {
    let Some((domain, path)) = key.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        return Some("must be a domain-prefixed path (such as \"acme.io/foo\")".into());
    };
    if let Some(why) = skiff_object::name::dns1123_subdomain(domain).into_iter().next() {
        return Some(why);
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "/:@&=+$,-_.!~*'()%;".contains(c);
    (!path.chars().all(fits))
        .then(|| "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')".to_owned())
}
