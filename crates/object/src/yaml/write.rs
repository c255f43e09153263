//! From the tree to YAML: block style, keys sorted, as Go's library writes what it read as JSON.

use crate::tree::{Map, Tree};
use crate::yaml::resolve::{is_sexagesimal, is_timestamp, resolve};

/// Writes any tree, keys sorted.
pub fn encode_untyped(tree: &Tree) -> Vec<u8> {
    let mut out = String::with_capacity(1_024);
    match tree {
        Tree::Map(map) if !map.is_empty() => write_map(&mut out, map, 0),
        Tree::List(items) if !items.is_empty() => list(&mut out, items, 0),
        other => {
            inline(&mut out, other, 2);
            out.push('\n');
        }
    }
    out.into_bytes()
}

/// A longer key is marked as one, as go-yaml does: readers look only so far (1,024 characters, YAML 1.2 § 7.4) for the
/// colon that makes a scalar a key.
const SIMPLE_KEY_BYTES_MAX: usize = 128;

fn write_map(out: &mut String, map: &Map, indent: usize) {
    let mut entries: Vec<(&str, &Tree)> = map.iter().map(|(key, value)| (key.as_str(), value)).collect();
    entries.sort_by_key(|(key, _)| *key);
    for (place, (key, value)) in entries.into_iter().enumerate() {
        // The first key of a map in a list stands behind the dash.
        if place > 0 || out.is_empty() || out.ends_with('\n') {
            pad(out, indent);
        }
        if key.len() > SIMPLE_KEY_BYTES_MAX {
            out.push_str("? ");
            scalar(out, key, Place::Key, indent);
            out.push('\n');
            pad(out, indent);
        } else {
            scalar(out, key, Place::Key, indent);
        }
        out.push(':');
        match value {
            Tree::Map(map) if !map.is_empty() => {
                out.push('\n');
                write_map(out, map, indent + 2);
            }
            Tree::List(items) if !items.is_empty() => {
                out.push('\n');
                list(out, items, indent);
            }
            other => {
                out.push(' ');
                inline(out, other, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn list(out: &mut String, items: &[Tree], indent: usize) {
    for (place, item) in items.iter().enumerate() {
        if place > 0 || out.is_empty() || out.ends_with('\n') {
            pad(out, indent);
        }
        out.push_str("- ");
        match item {
            Tree::Map(map) if !map.is_empty() => write_map(out, map, indent + 2),
            Tree::List(items) if !items.is_empty() => list(out, items, indent + 2),
            other => {
                inline(out, other, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn inline(out: &mut String, tree: &Tree, indent: usize) {
    match tree {
        Tree::Str(text) => scalar(out, text, Place::Value, indent),
        Tree::List(_) => out.push_str("[]"),
        Tree::Map(_) => out.push_str("{}"),
        other => out.push_str(&String::from_utf8_lossy(&crate::json::encode_untyped(other))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Key,
    Value,
}

fn scalar(out: &mut String, text: &str, place: Place, indent: usize) {
    let printable = text.chars().all(|c| c == '\n' || is_printable(c));
    let block_fits = printable && !text.contains(" \n") && !text.ends_with(' ') && !text.trim_matches('\n').is_empty();
    if text.contains('\n') && place == Place::Value && block_fits {
        return literal(out, text, indent);
    }
    let means_text =
        matches!(resolve(text), Tree::Str(_)) && !is_sexagesimal(text) && !is_timestamp(text) && text != "<<";
    if !printable || text.contains('\n') || !means_text {
        double_quoted(out, text);
    } else if is_plain(text) {
        out.push_str(text);
    } else {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    }
}

/// A block of lines, each indented.
fn literal(out: &mut String, text: &str, indent: usize) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    match text.strip_suffix('\n') {
        None => out.push('-'),
        Some(rest) if rest.ends_with('\n') => out.push('+'),
        Some(_) => {}
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent);
            out.push_str(line);
        }
    }
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..) && c != '\u{feff}'
}

/// Whether the text can stand without quotes in block style.
fn is_plain(text: &str) -> bool {
    let first = text.chars().next();
    let second = text.chars().nth(1);
    let starts_indicator = match first {
        Some('#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`') => true,
        Some('-' | '?' | ':') => second.is_none_or(|c| c == ' '),
        _ => false,
    };
    let document_mark = text.starts_with("---") || text.starts_with("...");
    !starts_indicator
        && !document_mark
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.ends_with(':')
        && !text.contains(": ")
        && !text.contains(" #")
}

fn double_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\u{1b}' => out.push_str("\\e"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::decode_untyped;

    #[test]
    fn what_is_written_reads_the_same() {
        for text in [
            "",
            "yes",
            "null",
            "1",
            "1.5",
            "a: b",
            "a #b",
            "- x",
            "-",
            "'",
            "\"",
            "one\ntwo\n",
            "one\n\ntwo",
            " lead\nx",
            "\n",
            "x\n\n",
            "tab\there",
            "2026-11-22T10:00:00Z",
            "12:30",
            "#",
            "%",
            "@x",
            "é",
            "\u{85}",
            "a:",
            "x \ny",
            "--- x",
            "{}",
            "[]",
            "~",
            "0x10",
            "trailing ",
            "\u{feff}",
            "=",
            "<<",
        ] {
            let mut tree = Tree::map();
            tree.set(&["value"], text);
            tree.set(&["list"], vec![Tree::from(text), Tree::map(), Tree::from(vec![Tree::from(text)])]);
            tree.set(&["map"], Tree::Map([(skiff_key(text), Tree::Null)].into_iter().collect()));
            let yaml = encode_untyped(&tree);
            let shown = String::from_utf8_lossy(&yaml).into_owned();
            assert_eq!(decode_untyped(&yaml), Ok(tree), "{text:?} as {shown}");
        }
    }

    #[test]
    fn a_text_alone_is_indented_like_any_other() {
        for text in ["one\ntwo", " lead\nx", "\n\n x\n"] {
            let yaml = encode_untyped(&text.into());
            assert_eq!(decode_untyped(&yaml), Ok(text.into()), "{}", String::from_utf8_lossy(&yaml));
        }
    }

    #[test]
    fn long_keys_are_read_again() {
        let key = |text: &str, value: Tree| Tree::Map([(skiff_key(text), value)].into_iter().collect());
        for text in ["k".repeat(128), "k".repeat(129), "\u{1}".repeat(300), "é ".repeat(2_000)] {
            let inner = key(&text, "x".into());
            for value in [inner.clone(), vec![inner.clone(), 1_i64.into()].into(), Tree::map(), "one\ntwo".into()] {
                let tree = Tree::from(vec![key(&text, value)]);
                let yaml = encode_untyped(&tree);
                assert_eq!(decode_untyped(&yaml), Ok(tree), "{}", String::from_utf8_lossy(&yaml));
            }
        }
    }

    fn skiff_key(text: &str) -> crate::Key {
        crate::Key::from(text.to_owned())
    }
}
