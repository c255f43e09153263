//! Answers that are no success, in the words of Go's REST client.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};

/// What is shown of such an answer.
const SHOWN_BYTES_MAX: usize = 1024;

/// What Go's REST client says about an answer that is no success.
pub(crate) fn refusal(answer: &Response<Bytes>) -> String {
    let content = answer.headers().get(CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
    let shown = &answer.body()[..answer.body().len().min(SHOWN_BYTES_MAX)];
    let text = String::from_utf8_lossy(shown).trim().to_owned();
    let said = if content.is_empty() || content.starts_with(b"text/") { text } else { "unknown".to_owned() };
    match answer.status() {
        StatusCode::CONFLICT => "the server reported a conflict".into(),
        StatusCode::NOT_FOUND => "the server could not find the requested resource".into(),
        StatusCode::BAD_REQUEST => "the server rejected our request for an unknown reason".into(),
        StatusCode::UNAUTHORIZED => "the server has asked for the client to provide credentials".into(),
        StatusCode::FORBIDDEN => said,
        StatusCode::METHOD_NOT_ALLOWED => "the server does not allow this method on the requested resource".into(),
        StatusCode::UNPROCESSABLE_ENTITY => "the server rejected our request due to an error in our request".into(),
        StatusCode::SERVICE_UNAVAILABLE => "the server is currently unable to handle the request".into(),
        StatusCode::GATEWAY_TIMEOUT => "the server was unable to return a response in the time allotted, but may \
                                        still be processing the request"
            .into(),
        StatusCode::TOO_MANY_REQUESTS => {
            "the server has received too many requests and has asked us to try again later".into()
        }
        status if status.is_server_error() => {
            format!("an error on the server ({said:?}) has prevented the request from succeeding")
        }
        status => {
            let code = status.as_u16();
            format!("the server responded with the status code {code} but did not return more information")
        }
    }
}
