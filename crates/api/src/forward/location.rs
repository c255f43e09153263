//! Paths of another server as they appear below a path of this one: redirects and links.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::{headers, html};
use crate::body::Body;

/// Where the other server's root appears, and how it is called.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// What stands before its paths; empty when they are the same as ours.
    pub prefix: String,
    /// The scheme that its absolute URLs are given, where they are made absolute.
    pub scheme: String,
    /// The host that its absolute URLs are given.
    pub host: String,
}

/// A [`Rewrite`] for one exchange.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    rewrite: Rewrite,
    /// `Host` of the destination's address.
    source_host: String,
    /// `Host` of the request.
    request_host: String,
}

impl Rewrite {
    /// Below `prefix` of this server.
    pub fn below(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// Tells the other server how it was asked.
    pub(super) fn describe(&self, headers: &mut HeaderMap, path: &str) {
        let uri = join(&self.prefix, path);
        for (name, text) in
            [("x-forwarded-uri", &uri), ("x-forwarded-host", &self.host), ("x-forwarded-proto", &self.scheme)]
        {
            if let Ok(value) = HeaderValue::try_from(text.as_str())
                && !text.is_empty()
            {
                headers.insert(name, value);
            }
        }
    }

    pub(super) fn between(&self, source_host: &str, request_host: &str) -> Exchange {
        Exchange { rewrite: self.clone(), source_host: source_host.to_owned(), request_host: request_host.to_owned() }
    }
}

impl Exchange {
    /// The answer as the client gets it.
    pub(super) fn answer(self, mut answer: Response<Body>) -> Response<Body> {
        headers::without_cors(answer.headers_mut());
        if let Some(location) = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()) {
            if let Ok(value) = HeaderValue::try_from(self.url(location)) {
                answer.headers_mut().insert(LOCATION, value);
            }
            return answer;
        }
        let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        if content_type.split(';').next().map(str::trim) != Some("text/html") {
            return answer;
        }
        let Some(encoding) = html::Encoding::of(answer.headers()) else { return answer };
        let (mut head, body) = answer.into_parts();
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(http::header::CONTENT_ENCODING);
        Response::from_parts(head, Body::Stream(html::rewrite(body.into_stream(), encoding, self)))
    }

    /// A URL that the other server gave, as the client has to ask for it.
    pub(super) fn url(&self, text: &str) -> String {
        let url = Url::split(text);
        let elsewhere = !url.host.is_empty() && url.host != self.source_host && url.host != self.request_host;
        if elsewhere || !url.path.starts_with('/') {
            return text.to_owned();
        }
        let Rewrite { prefix, scheme, host } = &self.rewrite;
        let as_asked = !url.host.is_empty() && url.host == self.request_host && scheme.is_empty() && host.is_empty();
        let origin = if as_asked {
            text[..text.len() - url.path.len() - url.rest.len()].to_owned()
        } else if host.is_empty() {
            String::new()
        } else {
            format!("{scheme}://{host}")
        };
        let path = if url.path.starts_with(prefix.as_str()) { url.path.to_owned() } else { join(prefix, url.path) };
        format!("{origin}{path}{}", url.rest)
    }
}

/// The parts of a URL that count here.
struct Url<'a> {
    host: &'a str,
    path: &'a str,
    /// Query and fragment.
    rest: &'a str,
}

impl<'a> Url<'a> {
    /// Splits what may be no URL at all: then it is a relative path.
    fn split(text: &'a str) -> Self {
        let end = text.find(['?', '#']).unwrap_or(text.len());
        let (before, rest) = text.split_at(end);
        let scheme = before.find(':').filter(|at| {
            let scheme = &before[..*at];
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.chars().all(|one| one.is_ascii_alphanumeric() || matches!(one, '+' | '-' | '.'))
        });
        let after = scheme.map_or(before, |at| &before[at + 1..]);
        match after.strip_prefix("//") {
            Some(after) => {
                let path = after.find('/').unwrap_or(after.len());
                let host = after[..path].rsplit('@').next().unwrap_or("");
                Self { host, path: &after[path..], rest }
            }
            // `mailto:jane` is no path.
            None if scheme.is_some() && !after.starts_with('/') => Self { host: "", path: "", rest },
            None => Self { host: "", path: after, rest },
        }
    }
}

/// Joins and cleans, as Go's `path.Join`, but keeps a slash at the end.
fn join(prefix: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in prefix.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut out = String::with_capacity(prefix.len() + path.len() + 1);
    for part in &parts {
        out.push('/');
        out.push_str(part);
    }
    if path.ends_with('/') || out.is_empty() {
        out.push('/');
    }
    out
}

/// Sends a client from an empty path to `/`, below which relative links work.
pub(super) fn to_slash(path: &str, query: &str) -> Response<Body> {
    let location = if query.is_empty() { format!("{path}/") } else { format!("{path}/?{query}") };
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(value) = HeaderValue::try_from(location) {
        answer.headers_mut().insert(LOCATION, value);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: &str) {
        let rewrite = Rewrite::below("/api/v1/namespaces/a/services/b/proxy");
        assert_eq!(rewrite.between("10.0.0.9:80", "kube:6443").url(url), expected, "{url}");
    }

    #[test]
    fn only_absolute_paths_of_the_same_server_move() {
        check("/x", "/api/v1/namespaces/a/services/b/proxy/x");
        check("/", "/api/v1/namespaces/a/services/b/proxy/");
        check("/x/../y/?q=1#f", "/api/v1/namespaces/a/services/b/proxy/y/?q=1#f");
        check("x/y", "x/y");
        check("?q", "?q");
        check("http://10.0.0.9:80/x", "/api/v1/namespaces/a/services/b/proxy/x");
        check("https://kube:6443/x", "https://kube:6443/api/v1/namespaces/a/services/b/proxy/x");
        check("//kube:6443/x", "//kube:6443/api/v1/namespaces/a/services/b/proxy/x");
        check("https://example.com/x", "https://example.com/x");
        check("//example.com/x", "//example.com/x");
        check("mailto:jane@example.com", "mailto:jane@example.com");
        check("/api/v1/namespaces/a/services/b/proxy/x", "/api/v1/namespaces/a/services/b/proxy/x");
    }

    #[test]
    fn nothing_escapes_upwards() {
        check("/../../../x", "/api/v1/namespaces/a/x");
        assert_eq!(join("", "/a//b/"), "/a/b/");
        assert_eq!(join("", ""), "/");
    }
}
