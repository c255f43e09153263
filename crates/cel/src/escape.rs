//! Field names of schemas as identifiers of the language, and back.

use crate::parser::RESERVED;

/// Words with a meaning of their own; with those that the parser keeps free, no identifier may be one. A field of that
/// name is spelled `__word__`.
const MEANINGFUL: &[&str] = &["true", "false", "null", "in"];

fn is_reserved(name: &str) -> bool {
    MEANINGFUL.contains(&name) || RESERVED.contains(&name)
}

const SEQUENCES: &[(&str, &str)] =
    &[("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];

/// The identifier for a field name: `a-b` is `a__dash__b`. `None` when no identifier can spell it.
pub fn escape(name: &str) -> Option<String> {
    if name.bytes().next().is_none_or(|first| first.is_ascii_digit()) {
        return None;
    }
    if is_reserved(name) {
        return Some(format!("__{name}__"));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-/".contains(&b)) {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        match SEQUENCES.iter().find(|(plain, _)| rest.starts_with(plain)) {
            Some((plain, escaped)) => {
                out.push_str(escaped);
                rest = &rest[plain.len()..];
            }
            None => {
                out.push(first);
                rest = &rest[1..];
            }
        }
    }
    Some(out)
}

/// The field name an identifier stands for; `None` when it has an escape that means nothing.
pub fn unescape(identifier: &str) -> Option<String> {
    let mut out = String::with_capacity(identifier.len());
    let mut rest = identifier;
    while let Some(start) = rest.find("__") {
        let after = &rest[start + 2..];
        let word_len = after.bytes().take_while(|b| *b != b'_').count();
        if word_len == 0 || !after[word_len..].starts_with("__") {
            // Not an escape: an underscore stands for itself, and the next may begin one.
            out.push_str(&rest[..=start]);
            rest = &rest[start + 1..];
            continue;
        }
        out.push_str(&rest[..start]);
        let word = &after[..word_len];
        let escape_len = word_len + 4;
        match SEQUENCES.iter().find(|(_, escaped)| escaped[2..escaped.len() - 2] == *word) {
            Some((plain, _)) => out.push_str(plain),
            None if is_reserved(word) && escape_len == identifier.len() => out.push_str(word),
            None => return None,
        }
        rest = &rest[start + escape_len..];
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_way_there_and_back() {
        for (name, escaped) in [
            ("a", Some("a")),
            ("a-b", Some("a__dash__b")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("a__b", Some("a__underscores__b")),
            ("namespace", Some("__namespace__")),
            ("int", Some("int")),
            ("1a", None),
            ("", None),
            ("ä", None),
        ] {
            assert_eq!(escape(name).as_deref(), escaped, "{name}");
            if let Some(escaped) = escaped {
                assert_eq!(unescape(escaped).as_deref(), Some(name), "{escaped}");
            }
        }
        assert_eq!(unescape("a__nothing__b"), None);
        assert_eq!(unescape("a__b").as_deref(), Some("a__b"));
    }
}
