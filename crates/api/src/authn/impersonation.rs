//! Acting as somebody else: the `Impersonate-*` headers and who may use them.
//!
//! Since v1.36 there are five ways to be allowed ([`modes`]): four that say for which requests, and
//! the one from before that does not.

use std::fmt::Write;

use http::{HeaderMap, HeaderName};

use super::UserInfo;
use crate::errors::{ApiError, ApiResult};

mod modes;

pub(super) use modes::domain_prefixed_path;
pub use modes::{Allowed, check};

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const EXTRA_PREFIX: &str = "impersonate-extra-";
/// What all of them begin with.
const PREFIX: &str = "impersonate-";

/// Who a request wants to count as, exactly as its headers say it; `None` when they do not. The
/// headers are gone afterwards: nothing behind this is to act on them.
///
/// # Errors
/// 400 when groups, uid or extras come without a user.
pub fn requested(headers: &mut HeaderMap) -> ApiResult<Option<UserInfo>> {
    if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
        return Ok(None);
    }
    let first = |name: HeaderName| headers.get(name).map(super::header_text).unwrap_or_default();
    let mut wanted = UserInfo { name: first(USER), uid: first(UID), ..UserInfo::default() };
    wanted.groups = headers.get_all(GROUP).iter().map(super::header_text).collect();
    for (header, value) in &*headers {
        if let Some(key) = header.as_str().strip_prefix(EXTRA_PREFIX) {
            wanted.extra.entry(super::unescape_extra_key(key)).or_default().push(super::header_text(value));
        }
    }
    if wanted.name.is_empty() {
        if wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty() {
            return Ok(None);
        }
        let wanted = described(&wanted);
        return Err(ApiError::bad_request(format!("requested {wanted} without impersonating a user name")));
    }
    super::remove_headers(headers, |name| {
        name == USER.as_str() || name == UID.as_str() || name == GROUP.as_str() || name.starts_with(EXTRA_PREFIX)
    });
    Ok(Some(wanted))
}

/// The user as Go prints the value, which is what upstream's message holds.
fn described(user: &UserInfo) -> String {
    let list = |items: &[String]| {
        let items: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
        format!("[]string{{{}}}", items.join(", "))
    };
    let groups = if user.groups.is_empty() { "[]string(nil)".to_owned() } else { list(&user.groups) };
    let mut extra = String::from("map[string][]string");
    if user.extra.is_empty() {
        extra.push_str("(nil)");
    } else {
        let entries: Vec<String> = user.extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values))).collect();
        let _ = write!(extra, "{{{}}}", entries.join(", "));
    }
    format!("&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:{extra}}}", user.name, user.uid)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_headers_become_a_user_and_disappear() {
        let mut headers = headers(&[
            ("impersonate-user", "jane"),
            ("impersonate-group", "a"),
            ("impersonate-group", "b"),
            ("impersonate-extra-acme.com%2fproject", "x"),
            ("accept", "y"),
        ]);
        let wanted = requested(&mut headers).unwrap().unwrap();
        assert_eq!((wanted.name.as_str(), wanted.groups.as_slice()), ("jane", &["a".to_owned(), "b".to_owned()][..]));
        assert_eq!(wanted.extra, BTreeMap::from([("acme.com/project".to_owned(), vec!["x".to_owned()])]));
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn groups_need_a_user() {
        let error = requested(&mut headers(&[("impersonate-group", "x")])).unwrap_err();
        assert_eq!(
            error.message,
            "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"x\"}, \
             Extra:map[string][]string(nil)} without impersonating a user name"
        );
        assert_eq!(requested(&mut HeaderMap::new()).unwrap(), None);
    }
}
