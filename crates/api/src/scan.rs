//! Values in JSON, found without building a tree: what selectors look at in objects as they are
//! stored.
//!
//! Stored JSON is canonical, so nothing is checked here; what is not well formed has no values.

use skiff_object::{Tree, json};

/// The value at a path of keys, up to the end of the text that it begins.
pub(crate) fn at<'a>(json: &'a [u8], path: &[&str]) -> Option<&'a [u8]> {
    path.iter().try_fold(json, |rest, key| {
        Entries::new(rest).find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| value)
    })
}

/// Every label of an object.
pub(crate) fn labels(json: &[u8], tell: &mut dyn FnMut(&str, &str)) {
    let labels = at(json, &["metadata", "labels"]);
    for (key, value) in labels.into_iter().flat_map(Entries::new) {
        if let (Ok(key), Some(value)) = (std::str::from_utf8(key), text(value)) {
            tell(key, value);
        }
    }
}

/// One label of an object whose labels begin `labels`.
pub(crate) fn label<'a>(labels: &'a [u8], key: &str) -> Option<&'a str> {
    Entries::new(labels).find(|(name, _)| *name == key.as_bytes()).and_then(|(_, value)| text(value))
}

/// The text that `value` begins with, if it is one without escapes: labels have none.
fn text(value: &[u8]) -> Option<&str> {
    let inside = value.get(1..string_length(value)?.checked_sub(1)?)?;
    std::str::from_utf8(inside).ok().filter(|text| !text.contains('\\'))
}

/// The text, number or truth value that `value` begins with.
pub(crate) fn scalar(value: &[u8]) -> Option<Tree> {
    match value.first()? {
        b'{' | b'[' => None,
        _ => json::decode_untyped(value.get(..length(value)?)?).ok(),
    }
}

/// The keys of an object with what begins with their values.
struct Entries<'a> {
    rest: &'a [u8],
    /// Whether `rest` begins with a value that has been given out.
    in_value: bool,
}

impl<'a> Entries<'a> {
    /// Of the object that `json` begins with.
    fn new(json: &'a [u8]) -> Self {
        Self { rest: skip_space(json).strip_prefix(b"{").unwrap_or_default(), in_value: false }
    }

    fn advance(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        if self.in_value {
            self.rest = self.rest.get(length(self.rest)?..)?;
        }
        let rest = skip_space(self.rest);
        let rest = skip_space(rest.strip_prefix(b",").unwrap_or(rest));
        let end = string_length(rest)?;
        let key = rest.get(1..end.checked_sub(1)?)?;
        self.rest = skip_space(skip_space(&rest[end..]).strip_prefix(b":")?);
        self.in_value = true;
        Some((key, self.rest))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_none() {
            *self = Self { rest: &[], in_value: false };
        }
        next
    }
}

fn skip_space(json: &[u8]) -> &[u8] {
    json.trim_ascii_start()
}

/// How long the value is that `json` begins with.
fn length(json: &[u8]) -> Option<usize> {
    match json.first()? {
        b'"' => string_length(json),
        b'{' | b'[' => nested_length(json),
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
            Some(json.iter().position(ends).unwrap_or(json.len()))
        }
    }
}

fn string_length(json: &[u8]) -> Option<usize> {
    if json.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

fn nested_length(json: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        match json.get(at)? {
            b'"' => {
                at += string_length(&json[at..])?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_path() {
        let json = br#"{"kind":"Pod","metadata":{"name":"a","labels":{"app":"web","t":"x"},"z":[{"labels":1}]},
            "spec":{"containers":[{"nodeName":"no\"pe"}],"nodeName":"n\"1","hostNetwork":true,"n":-7}}"#;
        let found = |path: &[&str]| at(json, path).and_then(scalar).map(|tree| json::encode_untyped(&tree));
        let text = |path: &[&str]| found(path).map(|json| String::from_utf8(json).unwrap());
        assert_eq!(text(&["spec", "nodeName"]).as_deref(), Some(r#""n\"1""#));
        assert_eq!(text(&["spec", "hostNetwork"]).as_deref(), Some("true"));
        assert_eq!(text(&["spec", "n"]).as_deref(), Some("-7"));
        assert_eq!(text(&["kind"]).as_deref(), Some("\"Pod\""));
        for path in [&["spec", "none"][..], &["none"], &["kind", "x"], &["spec"], &["spec", "containers", "nodeName"]] {
            assert_eq!(text(path), None, "{path:?}");
        }
        let mut all = Vec::new();
        labels(json, &mut |key, value| all.push(format!("{key}={value}")));
        assert_eq!(all, ["app=web", "t=x"]);
        let labels = at(json, &["metadata", "labels"]).unwrap();
        assert_eq!((label(labels, "t"), label(labels, "none")), (Some("x"), None));
    }

    #[test]
    fn what_is_cut_short_has_no_values_and_harms_nobody() {
        let json = br#"{"a":{"b":["c\"d",{"e":1}]},"metadata":{"labels":{"k":"v\\"}},"f":"g"}"#;
        for end in 0..json.len() {
            let _ = at(&json[..end], &["f"]).and_then(scalar);
            let _ = at(&json[..end], &["metadata", "none"]);
            labels(&json[..end], &mut |_, _| {});
        }
        for junk in [&b"}"[..], b"]", b"{]", b"{\"a\"", b"{\"a\":}", b"{\"a\":]]]}", b"[1]", b""] {
            assert_eq!(at(junk, &["x"]), None);
            let _ = at(junk, &["a"]).and_then(scalar);
        }
    }
}
