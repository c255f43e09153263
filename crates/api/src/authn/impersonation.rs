//! Acting as somebody else: the `Impersonate-*` headers.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo};
use crate::errors::{ApiError, ApiResult};
use crate::request::percent_decode;

/// One right that the caller needs, and the user it would become.
#[derive(Debug, PartialEq, Eq)]
pub struct Impersonation {
    /// Who the request becomes.
    pub user: UserInfo,
    /// What the real user must be allowed to `impersonate`.
    pub needs: Vec<Need>,
}

/// A right to `impersonate`.
#[derive(Debug, PartialEq, Eq)]
pub struct Need {
    /// `""` or `authentication.k8s.io`
    pub group: &'static str,
    /// `users`, `groups`, `serviceaccounts`, `uids`, `userextras`
    pub resource: &'static str,
    /// The extra key of `userextras`.
    pub subresource: String,
    /// The namespace of a service account.
    pub namespace: String,
    /// The name.
    pub name: String,
}

const EXTRA_PREFIX: &str = "impersonate-extra-";

/// Reads the headers; `None` when there are none.
///
/// # Errors
/// 400 when groups, uid or extras come without a user.
pub fn requested(headers: &HeaderMap) -> ApiResult<Option<Impersonation>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let name = text("impersonate-user");
    let uid = text("impersonate-uid");
    let groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        if let (Some(key), Ok(value)) = (header.as_str().strip_prefix(EXTRA_PREFIX), value.to_str()) {
            extra.entry(percent_decode(key).into_owned()).or_default().push(value.to_owned());
        }
    }
    if name.is_empty() {
        if groups.is_empty() && extra.is_empty() && uid.is_empty() {
            return Ok(None);
        }
        return Err(ApiError::bad_request(
            "requested impersonation of groups, uid or extra without impersonating a user",
        ));
    }
    let needs = needs(&name, &uid, &groups, &extra);
    Ok(Some(Impersonation { user: become_user(name, uid, groups, extra), needs }))
}

fn needs(name: &str, uid: &str, groups: &[String], extra: &BTreeMap<String, Vec<String>>) -> Vec<Need> {
    let need = |group, resource, name: &str| Need {
        group,
        resource,
        subresource: String::new(),
        namespace: String::new(),
        name: name.to_owned(),
    };
    let mut needs = Vec::new();
    match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => {
            needs.push(Need { namespace: namespace.to_owned(), ..need("", "serviceaccounts", account) });
        }
        None => needs.push(need("", "users", name)),
    }
    needs.extend(groups.iter().map(|group| need("", "groups", group)));
    if !uid.is_empty() {
        needs.push(need("authentication.k8s.io", "uids", uid));
    }
    for (key, values) in extra {
        needs.extend(
            values
                .iter()
                .map(|value| Need { subresource: key.clone(), ..need("authentication.k8s.io", "userextras", value) }),
        );
    }
    needs
}

fn become_user(name: String, uid: String, mut groups: Vec<String>, extra: BTreeMap<String, Vec<String>>) -> UserInfo {
    if groups.is_empty()
        && let Some((namespace, _)) = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
    {
        groups.push("system:serviceaccounts".into());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    let automatic = if name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        groups.push(automatic.into());
    }
    UserInfo { name, uid, groups, extra }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_brings_its_groups() {
        let mut headers = HeaderMap::new();
        headers.insert("impersonate-user", "system:serviceaccount:a:b".parse().unwrap());
        let found = requested(&headers).unwrap().unwrap();
        assert_eq!(found.user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        assert_eq!((found.needs[0].resource, found.needs[0].name.as_str()), ("serviceaccounts", "b"));
    }

    #[test]
    fn groups_need_a_user() {
        let mut headers = HeaderMap::new();
        headers.insert("impersonate-group", "x".parse().unwrap());
        assert!(requested(&headers).is_err());
        assert_eq!(requested(&HeaderMap::new()).unwrap(), None);
    }
}
