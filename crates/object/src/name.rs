//! The formats of names, labels, ports and keys, with upstream's messages.
//!
//! Every function gives the list of what is wrong; an empty list means the value is well formed.
//! The messages quote upstream's regular expressions, which clients and tests compare; the checks
//! themselves are written by hand and run in one pass.

use crate::errors::FieldError;
use crate::path::Path;
use crate::tree::{Map, Tree};

const LABEL_BYTES_MAX: usize = 63;
const SUBDOMAIN_BYTES_MAX: usize = 253;
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1_024;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1035_LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

fn is_lower(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn matches_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            is_lower(*first) && is_lower(*last) && bytes.iter().all(|c| is_lower(*c) || *c == b'-')
        }
        _ => false,
    }
}

fn matches_subdomain(text: &str) -> bool {
    text.split('.').all(matches_label)
}

fn matches_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

/// `must be no more than N bytes`.
pub fn max_len_error(bytes_max: usize) -> String {
    format!("must be no more than {bytes_max} bytes")
}

/// `must be between A and B, inclusive`.
pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// Upstream's wording of a failed match.
pub fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let mut out = format!("{message} (e.g. ");
    for (index, example) in examples.iter().enumerate() {
        if index > 0 {
            out.push_str(" or ");
        }
        out.push_str(&format!("'{example}', "));
    }
    out.push_str(&format!("regex used for validation is '{regex}')"));
    out
}

/// A DNS label after RFC 1123: names of namespaces, containers, volumes.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        errors.push(max_len_error(LABEL_BYTES_MAX));
    }
    if !matches_label(value) {
        if matches_subdomain(value) {
            errors.push("must not contain dots".to_owned());
        } else {
            errors.push(regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
                 and must start and end with an alphanumeric character",
                DNS1123_LABEL,
                &["my-name", "123-abc"],
            ));
        }
    }
    errors
}

/// A DNS subdomain after RFC 1123: names of most objects.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        errors.push(max_len_error(SUBDOMAIN_BYTES_MAX));
    }
    if !matches_subdomain(value) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
             and must start and end with an alphanumeric character",
            DNS1123_SUBDOMAIN,
            &["example.com"],
        ));
    }
    errors
}

/// A DNS subdomain with underscores allowed (relaxed search domains).
pub fn dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        errors.push(max_len_error(SUBDOMAIN_BYTES_MAX));
    }
    let label = |text: &str| {
        let rest = text.strip_prefix('_').unwrap_or(text).as_bytes();
        match (rest.first(), rest.last()) {
            (Some(first), Some(last)) => {
                is_lower(*first) && is_lower(*last) && rest.iter().all(|c| is_lower(*c) || matches!(c, b'-' | b'_'))
            }
            _ => false,
        }
    };
    if !value.split('.').all(label) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', \
             and must start and end with an alphanumeric character",
            r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    errors
}

/// `*.` and a DNS subdomain: hosts of an Ingress.
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        errors.push(max_len_error(SUBDOMAIN_BYTES_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(matches_subdomain) {
        errors.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
             consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{DNS1123_SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    errors
}

/// A DNS label after RFC 1035, which starts with a letter: names of Services.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        errors.push(max_len_error(LABEL_BYTES_MAX));
    }
    if !(matches_label(value) && value.as_bytes().first().is_some_and(u8::is_ascii_lowercase)) {
        errors.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            DNS1035_LABEL,
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// A label key: an optional DNS subdomain and `/`, then a name.
pub fn qualified_name(value: &str) -> Vec<String> {
    let wrong = || {
        regex_error(
            "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
             character",
            QUALIFIED,
            &["MyName", "my.name", "123-abc"],
        )
    };
    let mut errors = Vec::new();
    let mut parts = value.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(dns1123_subdomain(prefix).into_iter().map(|error| format!("prefix part {error}")));
            }
            name
        }
        _ => {
            let wrong = wrong();
            return vec![format!(
                "a valid label key {wrong} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES_MAX {
        errors.push(format!("name part {}", max_len_error(LABEL_BYTES_MAX)));
    }
    if !matches_qualified(name) {
        errors.push(format!("name part {}", wrong()));
    }
    errors
}

/// A label value: empty or a qualified name's last part.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        errors.push(max_len_error(LABEL_BYTES_MAX));
    }
    if !value.is_empty() && !matches_qualified(value) {
        errors.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            LABEL_VALUE,
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// A C identifier.
pub fn c_identifier(value: &str) -> Vec<String> {
    let mut bytes = value.bytes();
    let starts = bytes.next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_');
    if starts && bytes.all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
         characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// The name of an environment variable: printable ASCII without `=`.
pub fn env_var_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.is_empty() {
        errors.push("environment variable name must be non-empty".to_owned());
    }
    if value.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        errors.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    errors
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_BYTES_MAX {
        errors.push(max_len_error(SUBDOMAIN_BYTES_MAX));
    }
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    if value.is_empty() || !value.bytes().all(fits) {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    errors.extend(dots(value));
    errors
}

fn dots(value: &str) -> Option<String> {
    let text = match value {
        "." => "must not be '.'",
        ".." => "must not be '..'",
        other if other.starts_with("..") => "must not start with '..'",
        _ => return None,
    };
    Some(text.to_owned())
}

/// A port number.
pub fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65_535)
}

/// A number in an inclusive range.
pub fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) { Vec::new() } else { vec![range_error(low, high)] }
}

/// The name of a port after RFC 6335.
pub fn port_name(port: &str) -> Vec<String> {
    const PORT_NAME_BYTES_MAX: usize = 15;
    let mut errors = Vec::new();
    if port.len() > PORT_NAME_BYTES_MAX {
        errors.push(max_len_error(PORT_NAME_BYTES_MAX));
    }
    if port.is_empty() || !port.bytes().all(|c| is_lower(c) || c == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !port.bytes().any(|c| c.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if port.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if port.starts_with('-') || port.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// A percentage: digits and `%`.
pub fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A name that can stand in a URL path, nothing more: RBAC objects.
pub fn path_segment(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    match value {
        "." => errors.push("may not be '.'".to_owned()),
        ".." => errors.push("may not be '..'".to_owned()),
        _ => {}
    }
    if !errors.is_empty() {
        return errors;
    }
    for c in ["/", "%"] {
        if value.contains(c) {
            errors.push(format!("may not contain '{c}'"));
        }
    }
    errors
}

/// `example.com/controller-name`: a DNS subdomain, `/` and a path.
pub fn domain_prefixed_path(value: &str) -> Vec<String> {
    let Some((domain, rest)) = value.split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty())
    else {
        return vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()];
    };
    let mut errors = dns1123_subdomain(domain);
    if !rest.bytes().all(|c| c.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:%".contains(&c)) {
        errors.push(regex_error("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[]));
    }
    errors
}

/// A domain of at least three segments: the names of webhooks.
pub fn fully_qualified_name(value: &str) -> Vec<String> {
    let errors = dns1123_subdomain(value);
    if !errors.is_empty() {
        return vec![errors.join(",")];
    }
    if value.split('.').count() < 3 {
        return vec!["should be a domain with at least three segments separated by dots".to_owned()];
    }
    Vec::new()
}

/// A domain of at least two labels, with or without a dot at the end.
pub fn fully_qualified_domain(value: &str) -> Vec<String> {
    let value = value.strip_suffix('.').unwrap_or(value);
    let errors = dns1123_subdomain(value);
    if !errors.is_empty() {
        return vec![errors.join(",")];
    }
    if value.split('.').count() < 2 {
        return vec!["should be a domain with at least two segments separated by dots".to_owned()];
    }
    value.split('.').flat_map(dns1123_label).collect()
}

/// A name and the prefix it was generated from may end in a dash; upstream checks a prefix as if
/// one letter followed.
pub fn masked_prefix(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

/// The labels of an object: keys are qualified names, values label values.
pub fn labels(labels: Option<&Tree>, path: Path<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.and_then(Tree::as_map).into_iter().flat_map(Map::iter) {
        errors.extend(
            qualified_name(key.as_str()).into_iter().map(|error| FieldError::invalid(path, key.as_str(), error)),
        );
        let value = value.as_str().unwrap_or("");
        errors.extend(label_value(value).into_iter().map(|error| FieldError::invalid(path, value, error)));
    }
    errors
}

/// The annotations of an object: keys are qualified names, all of them within 256 KiB.
pub fn annotations(annotations: Option<&Tree>, path: Path<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut bytes = 0;
    for (key, value) in annotations.and_then(Tree::as_map).into_iter().flat_map(Map::iter) {
        // Upstream lower-cases the key first: mixed-case prefixes existed before the rule.
        errors.extend(
            qualified_name(&key.as_str().to_lowercase())
                .into_iter()
                .map(|error| FieldError::invalid(path, key.as_str(), error)),
        );
        bytes += key.as_str().len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_BYTES_MAX));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(run: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]) {
        for value in good {
            assert_eq!(run(value), Vec::<String>::new(), "{value:?} is fine");
        }
        for value in bad {
            assert!(!run(value).is_empty(), "{value:?} is not");
        }
    }

    #[test]
    fn names_are_told_apart_as_upstream_does() {
        let long = "a".repeat(64);
        check(dns1123_label, &["a", "a1", "1-a"], &["", "-a", "a-", "A", "a.b", "a_b", &long, "ä"]);
        check(dns1123_subdomain, &["a", "a.b-c.1"], &["", ".", "a.", ".a", "a..b", "A.b", "a/b"]);
        check(dns1035_label, &["a", "a-1"], &["1a", "a.b", "", "-"]);
        check(qualified_name, &["a", "A_b.c", "x.y/Z"], &["", "/a", "a/", "a/b/c", "-a", "X.y/a"]);
        check(label_value, &["", "A", "a_b.c-1"], &["-", "a/b", &long, "a b"]);
        check(config_map_key, &["a", ".a", "A_b-1"], &["", ".", "..", "..a", "a/b"]);
        check(port_name, &["http", "a-1"], &["", "1", "a--b", "-a", "toolongtoolongtool"]);
        check(env_var_name, &["A", "a.b", "1 a"], &["", "a=b", "ä"]);
        check(percent, &["0%", "100%"], &["%", "10", "-1%"]);
        check(domain_prefixed_path, &["a.b/c", "a/b/c"], &["", "a", "/a", "a/", "A/b", "a/b c"]);
        check(fully_qualified_name, &["a.b.c"], &["", "a.b", "A.b.c"]);
    }

    #[test]
    fn messages_quote_the_expression() {
        assert_eq!(
            dns1123_subdomain("A"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
              start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
    }
}
