//! URLs, as Go's `url.ParseRequestURI` reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Function, failed, unsupported};
use crate::opaque::Opaque;
use crate::value::{Map, MapKey, Value};

/// The parts of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: Box<str>,
    /// With its port, an IPv6 address in brackets.
    host: Box<str>,
    /// Percent-encoded, as given.
    path: Box<str>,
    query: Box<str>,
}

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "url",
        native: |_, args| match args {
            [Value::Str(text)] => match Url::parse(text) {
                Ok(url) => Ok(Value::Opaque(Opaque::Url(Arc::new(url)))),
                Err(message) => {
                    failed(format!("URL parse error during conversion from string: parse {:?}: {message}", &**text))
                }
            },
            _ => unsupported(),
        },
        overloads: &["string_to_url: (string) kubernetes.URL"],
    },
    Function {
        name: "isURL",
        native: |_, args| match args {
            [Value::Str(text)] => Ok(Value::Bool(Url::parse(text).is_ok())),
            _ => unsupported(),
        },
        overloads: &["is_url_string: (string) bool"],
    },
    Function {
        name: "getScheme",
        native: |_, args| part(args, |url| Value::text(&*url.scheme)),
        overloads: &["url_get_scheme: kubernetes.URL.() string"],
    },
    Function {
        name: "getHost",
        native: |_, args| part(args, |url| Value::text(&*url.host)),
        overloads: &["url_get_host: kubernetes.URL.() string"],
    },
    Function {
        name: "getHostname",
        native: |_, args| part(args, |url| Value::text(url.split_host().0)),
        overloads: &["url_get_hostname: kubernetes.URL.() string"],
    },
    Function {
        name: "getPort",
        native: |_, args| part(args, |url| Value::text(url.split_host().1)),
        overloads: &["url_get_port: kubernetes.URL.() string"],
    },
    Function {
        name: "getEscapedPath",
        native: |_, args| part(args, |url| Value::text(&*url.path)),
        overloads: &["url_get_escaped_path: kubernetes.URL.() string"],
    },
    Function {
        name: "getQuery",
        native: |_, args| part(args, |url| url.query_values()),
        overloads: &["url_get_query: kubernetes.URL.() map(string, list(string))"],
    },
];

fn part<'a>(args: &[Value<'a>], get: fn(&Url) -> Value<'a>) -> Result<Value<'a>, crate::error::EvalError> {
    match args {
        [Value::Opaque(Opaque::Url(url))] => Ok(get(url)),
        _ => unsupported(),
    }
}

impl Url {
    /// Reads an absolute URI or an absolute path.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const INVALID: &str = "invalid URI for request";
        if text.is_empty() {
            return Err("empty url");
        }
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err("net/url: invalid control character in URL");
        }
        let (scheme, rest) = split_scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match rest.strip_prefix("//") {
            Some(authority) if !scheme.is_empty() => authority.split_at(authority.find('/').unwrap_or(authority.len())),
            _ if rest.starts_with('/') => ("", rest),
            // `mailto:x` has neither host nor path.
            _ if !scheme.is_empty() && !rest.is_empty() => ("", ""),
            _ => return Err(INVALID),
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        check_host(host)?;
        check_escapes(path)?;
        Ok(Self {
            scheme: scheme.to_lowercase().into(),
            host: host.into(),
            path: escape_path(path),
            query: query.into(),
        })
    }

    /// Host name without brackets, and port.
    fn split_host(&self) -> (&str, &str) {
        let host = &*self.host;
        if let Some(rest) = host.strip_prefix('[')
            && let Some((address, port)) = rest.split_once(']')
        {
            return (address, port.strip_prefix(':').unwrap_or(""));
        }
        host.rsplit_once(':').unwrap_or((host, ""))
    }

    fn query_values<'a>(&self) -> Value<'a> {
        let mut values: BTreeMap<MapKey, Vec<Value<'a>>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (unescape(key), unescape(value)) {
                values.entry(MapKey::Str(key.into())).or_default().push(Value::text(value));
            }
        }
        let values = values.into_iter().map(|(key, values)| (key, Value::list(values))).collect();
        Value::Map(Map::Values(Arc::new(values)))
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme"),
            b':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let port = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or("missing ']' in host")?.1,
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    if let Some(digits) = port.strip_prefix(':') {
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err("invalid port after host");
        }
    } else if !port.is_empty() {
        return Err("invalid port after host");
    }
    let allowed = |b: u8| b >= 0x80 || b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"%".contains(&b);
    if host.bytes().all(allowed) { Ok(()) } else { Err("invalid character in host name") }
}

fn check_escapes(path: &str) -> Result<(), &'static str> {
    match unescape_with(path, false) {
        Some(_) => Ok(()),
        None => Err("invalid URL escape"),
    }
}

/// What a path may not hold as it is, percent-encoded.
fn escape_path(path: &str) -> Box<str> {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]%".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out.into()
}

fn unescape(text: &str) -> Option<String> {
    unescape_with(text, true)
}

fn unescape_with(text: &str, plus: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' if plus => out.push(b' '),
            other => out.push(other),
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}
