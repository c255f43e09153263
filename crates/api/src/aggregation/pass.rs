//! A request passed on to the server that an APIService names.

use std::sync::Arc;

use futures::StreamExt;
use http::header::{CONNECTION, HeaderMap, HeaderName, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyDataStream, BodyExt, Full};

use super::Service;
use crate::authn::UserInfo;
use crate::body::{Body, BodyError, RequestBody};
use crate::chain::Call;
use crate::errors::ApiResult;
use crate::forward;
use crate::outbound::{self, RequestStream};
use crate::respond;
use crate::server::ApiServer;

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA_PREFIX: &str = "x-remote-extra-";

/// Passes a request on; every failure is upstream's plain text, not a `Status`.
///
/// # Errors
/// None of its own: the signature is that of all answers.
pub(crate) async fn pass(server: &Arc<ApiServer>, call: Call, service: &Service) -> ApiResult<Response<Body>> {
    let Some(remote) = service.remote.as_ref().filter(|_| service.available) else {
        return Ok(unavailable("service unavailable"));
    };
    let mut call = call;
    let upgrade = forward::is_upgrade(&call.headers).then(|| call.upgrade.take()).flatten();
    let request = match request(&mut call, upgrade.is_some()) {
        Ok(request) => request,
        Err(error) => return Ok(respond::text(StatusCode::BAD_REQUEST, format!("{error}\n"))),
    };
    let outbound = server.outbound();
    let sent = match upgrade {
        None => outbound.stream(&remote.target, request).await,
        Some(_) => outbound.upgrade(&remote.target, request).await,
    };
    let response = match sent {
        Ok(response) => response,
        // The Service went away after the last look.
        Err(outbound::Error::Service(_) | outbound::Error::NoEndpoints(_)) => {
            return Ok(unavailable("service unavailable"));
        }
        Err(outbound::Error::Target(why)) => {
            return Ok(respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")));
        }
        Err(error) => return Ok(unavailable(&format!("error trying to reach service: {error}"))),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(downstream) = upgrade
    {
        return Ok(forward::pipe(server, response, downstream));
    }
    let (head, body) = response.into_parts();
    let chunks = BodyDataStream::new(body).map(|chunk| chunk.map_err(|error| BodyError(error.to_string())));
    let mut answer = Response::new(Body::Stream(chunks.boxed()));
    *answer.status_mut() = head.status;
    *answer.headers_mut() = forward::answered(&head.headers);
    Ok(answer)
}

fn unavailable(text: &str) -> Response<Body> {
    respond::text(StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n"))
}

fn request(call: &mut Call, upgrade: bool) -> Result<Request<RequestStream>, http::Error> {
    let body: RequestStream = match call.body.take() {
        Some(RequestBody::Incoming(incoming)) => incoming.map_err(Into::into).boxed_unsync(),
        Some(RequestBody::Whole(bytes)) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
        None => Full::default().map_err(|never| match never {}).boxed_unsync(),
    };
    let target =
        if call.query.is_empty() { call.info.path.clone() } else { format!("{}?{}", call.info.path, call.query) };
    let mut request = Request::builder().method(call.method.clone()).uri(target).body(body)?;
    let mut headers = forward::passed(&call.headers);
    if upgrade && let Some(protocol) = call.headers.get(UPGRADE) {
        headers.insert(UPGRADE, protocol.clone());
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    if let Some(address) = call.remote {
        forward::forwarded_for(&mut headers, address);
    }
    speak_for(&mut headers, &call.user);
    *request.headers_mut() = headers;
    Ok(request)
}

/// Says who asks, in the headers that a front proxy is believed. What the client said under these
/// names has been taken out before.
pub(crate) fn speak_for(headers: &mut HeaderMap, user: &UserInfo) {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).ok();
    if let Some(name) = value(&user.name) {
        headers.insert(USER, name);
    }
    if let Some(uid) = value(&user.uid).filter(|_| !user.uid.is_empty()) {
        headers.insert(UID, uid);
    }
    for group in user.groups.iter().filter_map(|group| value(group)) {
        headers.append(GROUP, group);
    }
    for (key, values) in &user.extra {
        let Ok(name) = HeaderName::try_from(format!("{EXTRA_PREFIX}{}", escape(key))) else { continue };
        for one in values.iter().filter_map(|one| value(one)) {
            headers.append(name.clone(), one);
        }
    }
}

/// A key as part of a header's name: what may not stand there, and `%`, as `%XX`.
fn escape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_proxy_names_the_user() {
        let mut user = UserInfo::new("jane", &["devs"]);
        user.uid = "7".into();
        user.extra.insert("example.com/scopes%".into(), vec!["a".into(), "b".into()]);
        let mut headers = HeaderMap::new();
        speak_for(&mut headers, &user);
        let lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        assert_eq!(
            lines,
            [
                "x-remote-user: jane",
                "x-remote-uid: 7",
                "x-remote-group: devs",
                "x-remote-group: system:authenticated",
                "x-remote-extra-example.com%2fscopes%25: a",
                "x-remote-extra-example.com%2fscopes%25: b",
            ]
        );
    }
}
