//! Which headers go through.

use std::net::IpAddr;

use http::HeaderValue;
use http::header::{CONNECTION, HeaderMap, HeaderName, TE};

/// Headers that concern one connection only (RFC 9110 §7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the client told this server alone: who it is, and how its body is framed.
const NOT_PASSED: [&str; 4] = ["authorization", "content-length", "expect", "x-remote-uid"];
const NOT_PASSED_PREFIXES: [&str; 2] = ["impersonate-", "x-remote-"];

/// Headers by which a pod could speak for the API server's origin in a browser.
const CORS: [&str; 6] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
];

const PROTOCOLS: HeaderName = HeaderName::from_static("sec-websocket-protocol");
/// The subprotocol in which a browser carries its token.
const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whether the client asks for another protocol on its connection.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')).map(str::trim)
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = tokens(headers, &CONNECTION).map(str::to_ascii_lowercase).collect();
    let dropped = |name: &str| HOP_BY_HOP.contains(&name) || named.iter().any(|one| one == name);
    let kept = headers.iter().filter(|(name, _)| !dropped(name.as_str()));
    let mut out = HeaderMap::with_capacity(headers.len());
    for (name, value) in kept {
        out.append(name, value.clone());
    }
    out
}

/// A request's headers as the destination gets them.
pub(crate) fn passed(headers: &HeaderMap) -> HeaderMap {
    let mut out = end_to_end(headers);
    let secret =
        |name: &str| NOT_PASSED.contains(&name) || NOT_PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let secrets: Vec<HeaderName> = out.keys().filter(|name| secret(name.as_str())).cloned().collect();
    for name in secrets {
        out.remove(name);
    }
    if tokens(headers, &TE).any(|token| token == "trailers") {
        out.insert(TE, HeaderValue::from_static("trailers"));
    }
    without_token(&mut out);
    out
}

/// Takes the token out of the WebSocket protocols.
fn without_token(headers: &mut HeaderMap) {
    if !tokens(headers, &PROTOCOLS).any(|protocol| protocol.starts_with(BEARER_PROTOCOL)) {
        return;
    }
    let kept: Vec<&str> = tokens(headers, &PROTOCOLS).filter(|one| !one.starts_with(BEARER_PROTOCOL)).collect();
    let kept = HeaderValue::try_from(kept.join(", ")).ok().filter(|value| !value.is_empty());
    match kept {
        Some(value) => headers.insert(PROTOCOLS, value),
        None => headers.remove(PROTOCOLS),
    };
}

/// An answer's headers as the client gets them. The length stays: the body does, too.
pub(crate) fn answered(headers: &HeaderMap) -> HeaderMap {
    end_to_end(headers)
}

/// Takes out what only the API server itself may say.
pub(super) fn without_cors(headers: &mut HeaderMap) {
    for name in CORS {
        headers.remove(name);
    }
}

/// Adds the client to those for whom the request was passed on.
pub(crate) fn forwarded_for(headers: &mut HeaderMap, client: IpAddr) {
    let before: Vec<&str> = tokens(headers, &FORWARDED_FOR).collect();
    let all = if before.is_empty() { client.to_string() } else { format!("{}, {client}", before.join(", ")) };
    if let Ok(value) = HeaderValue::try_from(all) {
        headers.insert(FORWARDED_FOR, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn what_concerns_one_connection_or_the_client_s_credentials_stays_here() {
        let headers = map(&[
            ("accept", "a"),
            ("accept", "b"),
            ("connection", "keep-alive, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("authorization", "Bearer x"),
            ("impersonate-user", "jane"),
            ("x-remote-user", "root"),
            ("x-remote-extra-a", "b"),
            ("content-length", "4"),
            ("te", "gzip, trailers"),
        ]);
        assert_eq!(text(&passed(&headers)), ["accept: a", "accept: b", "te: trailers"]);
    }

    #[test]
    fn a_token_among_the_protocols_stays_here() {
        let headers =
            map(&[("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.dG9r, v5.channel.k8s.io")]);
        assert_eq!(text(&passed(&headers)), ["sec-websocket-protocol: v5.channel.k8s.io"]);
    }

    #[test]
    fn clients_are_listed_in_order() {
        let mut headers = map(&[("x-forwarded-for", "192.0.2.1")]);
        forwarded_for(&mut headers, [10, 0, 0, 1].into());
        assert_eq!(text(&headers), ["x-forwarded-for: 192.0.2.1, 10.0.0.1"]);
    }
}
