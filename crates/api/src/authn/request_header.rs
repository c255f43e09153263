//! A proxy that has authenticated somebody and says in headers whom (`--requestheader-*`).
//!
//! The proxy proves itself by a certificate of an authority of its own. Whoever is not it and
//! sends such headers is not believed.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;

use super::chain::{Credentials, Refusal};
use super::{UserInfo, header_text};
use crate::server::ApiServer;

/// Which proxies are believed and in which headers they speak.
#[derive(Clone, Debug)]
pub struct RequestHeader {
    /// Their authorities, PEM.
    pub client_ca: String,
    /// The common names they may have; empty for any.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name; the first that is not empty counts.
    pub username_headers: Vec<String>,
    /// Headers with the user's uid; the first that is not empty counts.
    pub uid_headers: Vec<String>,
    /// Headers with groups; all count.
    pub group_headers: Vec<String>,
    /// What the names of headers with extras begin with.
    pub extra_header_prefixes: Vec<String>,
}

impl Default for RequestHeader {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            client_ca: String::new(),
            allowed_names: Vec::new(),
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_header_prefixes: one("X-Remote-Extra-"),
        }
    }
}

/// Who the proxy speaks for, if it is one.
pub(super) fn authenticate(
    proxies: &RequestHeader,
    server: &ApiServer,
    shown: &Credentials<'_>,
) -> Result<Option<Arc<UserInfo>>, Refusal> {
    let Some(certificate) = shown.certificate else { return Ok(None) };
    let Some(common_name) = certificate.proxy(server.clock().now())? else { return Ok(None) };
    if !proxies.allowed_names.is_empty() && !proxies.allowed_names.iter().any(|name| name == common_name) {
        return Err(Refusal(format!("x509: subject with cn={common_name} is not in the allowed list")));
    }
    Ok(user(proxies, shown.headers).map(|user| Arc::new(user.authenticated())))
}

fn user(proxies: &RequestHeader, headers: &HeaderMap) -> Option<UserInfo> {
    let first = |names: &[String]| {
        names.iter().filter_map(|name| headers.get(name)).map(header_text).find(|text| !text.is_empty())
    };
    let name = first(&proxies.username_headers)?;
    let groups = proxies.group_headers.iter().flat_map(|name| headers.get_all(name)).map(header_text);
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for prefix in &proxies.extra_header_prefixes {
        let prefix = prefix.to_ascii_lowercase();
        for (header, value) in headers {
            if let Some(key) = header.as_str().strip_prefix(&prefix) {
                extra.entry(super::unescape_extra_key(key)).or_default().push(header_text(value));
            }
        }
    }
    Some(UserInfo {
        name,
        uid: first(&proxies.uid_headers).unwrap_or_default(),
        groups: groups.filter(|group| !group.is_empty()).collect(),
        extra,
    })
}

/// Removes the standard headers and those of `proxies`.
pub(super) fn forget(proxies: Option<&RequestHeader>, headers: &mut HeaderMap) {
    let standard = |name: &str| name.starts_with("x-remote-");
    if proxies.is_none() && !headers.keys().any(|name| standard(name.as_str())) {
        return;
    }
    let lists = |proxies: &RequestHeader, name: &str| {
        let exact = [&proxies.username_headers, &proxies.uid_headers, &proxies.group_headers];
        exact.into_iter().flatten().any(|one| one.eq_ignore_ascii_case(name))
            || proxies.extra_header_prefixes.iter().any(|prefix| name.starts_with(&prefix.to_ascii_lowercase()))
    };
    super::remove_headers(headers, |name| {
        matches!(name, "x-remote-user" | "x-remote-uid" | "x-remote-group")
            || name.starts_with("x-remote-extra-")
            || proxies.is_some_and(|proxies| lists(proxies, name))
    });
}
