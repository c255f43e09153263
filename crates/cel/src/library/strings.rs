//! Text.

use super::strings_format;
use super::{Function, failed, int, unsupported};
use crate::error::EvalError;
use crate::value::Value;

/// A text made by replacing is at most this long: an empty pattern multiplies. A request of 3 MiB has none as long.
const TEXT_BYTES_MAX: usize = 16 << 20;

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "contains",
        native: |_, args| test(args, |text, part| text.contains(part)),
        overloads: &["contains_string: string.(string) bool"],
    },
    Function {
        name: "startsWith",
        native: |_, args| test(args, |text, part| text.starts_with(part)),
        overloads: &["starts_with_string: string.(string) bool"],
    },
    Function {
        name: "endsWith",
        native: |_, args| test(args, |text, part| text.ends_with(part)),
        overloads: &["ends_with_string: string.(string) bool"],
    },
    Function {
        name: "charAt",
        native: |_, args| match args {
            [Value::Str(text), Value::Int(index)] => {
                let chars = text.chars().count();
                match usize::try_from(*index) {
                    Ok(index) if index == chars => Ok(Value::str("")),
                    Ok(index) if index < chars => Ok(Value::text(text.chars().skip(index).take(1).collect::<String>())),
                    _ => failed(format!("index out of range: {index}")),
                }
            }
            _ => unsupported(),
        },
        overloads: &["string_char_at_int: string.(int) string"],
    },
    Function {
        name: "lowerAscii",
        native: |_, args| map(args, |text| text.to_ascii_lowercase()),
        overloads: &["string_lower_ascii: string.() string"],
    },
    Function {
        name: "upperAscii",
        native: |_, args| map(args, |text| text.to_ascii_uppercase()),
        overloads: &["string_upper_ascii: string.() string"],
    },
    Function {
        name: "trim",
        native: |_, args| map(args, |text| text.trim_matches(is_space).to_owned()),
        overloads: &["string_trim: string.() string"],
    },
    Function {
        name: "replace",
        native: |_, args| match args {
            [Value::Str(text), Value::Str(from), Value::Str(to)] => replace(text, from, to, -1),
            [Value::Str(text), Value::Str(from), Value::Str(to), Value::Int(times)] => replace(text, from, to, *times),
            _ => unsupported(),
        },
        overloads: &[
            "string_replace_string_string: string.(string, string) string",
            "string_replace_string_string_int: string.(string, string, int) string",
        ],
    },
    Function {
        name: "split",
        native: |_, args| match args {
            [Value::Str(text), Value::Str(by)] => Ok(split(text, by, -1)),
            [Value::Str(text), Value::Str(by), Value::Int(parts)] => Ok(split(text, by, *parts)),
            _ => unsupported(),
        },
        overloads: &[
            "string_split_string: string.(string) list(string)",
            "string_split_string_int: string.(string, int) list(string)",
        ],
    },
    Function {
        name: "substring",
        native: |_, args| match args {
            [Value::Str(text), Value::Int(start)] => substring(text, *start, None),
            [Value::Str(text), Value::Int(start), Value::Int(end)] => substring(text, *start, Some(*end)),
            _ => unsupported(),
        },
        overloads: &["string_substring_int: string.(int) string", "string_substring_int_int: string.(int, int) string"],
    },
    Function {
        name: "join",
        native: |_, args| match args {
            [Value::List(list)] => join(list, ""),
            [Value::List(list), Value::Str(by)] => join(list, by),
            _ => unsupported(),
        },
        overloads: &["list_join: list(string).() string", "list_join_string: list(string).(string) string"],
    },
    Function {
        name: "strings.quote",
        native: |_, args| map(args, quote),
        overloads: &["strings_quote: (string) string"],
    },
    Function {
        name: "format",
        native: |_, args| match args {
            [Value::Str(template), Value::List(values)] => strings_format::format(template, values).map(Value::text),
            _ => unsupported(),
        },
        overloads: &["string_format: string.(list(dyn)) string"],
    },
    Function {
        name: "jsonpatch.escapeKey",
        native: |_, args| map(args, |text| text.replace('~', "~0").replace('/', "~1")),
        overloads: &["string_jsonpatch_escapeKey_string: (string) string"],
    },
];

fn test<'a>(args: &[Value<'a>], holds: fn(&str, &str) -> bool) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Str(text), Value::Str(part)] => Ok(Value::Bool(holds(text, part))),
        _ => unsupported(),
    }
}

fn map<'a>(args: &[Value<'a>], change: fn(&str) -> String) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Str(text)] => Ok(Value::text(change(text))),
        _ => unsupported(),
    }
}

/// What Go's `unicode.IsSpace` takes for blank.
fn is_space(c: char) -> bool {
    matches!(
        c,
        '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200a}' | '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    )
}

fn replace<'a>(text: &str, from: &str, to: &str, times: i64) -> Result<Value<'a>, EvalError> {
    let count = usize::try_from(times).unwrap_or(usize::MAX);
    let matches = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() }.min(count);
    if text.len().saturating_add(matches.saturating_mul(to.len())) > TEXT_BYTES_MAX {
        return Err(EvalError::CostExceeded);
    }
    Ok(Value::text(text.replacen(from, to, count)))
}

fn split<'a>(text: &str, by: &str, parts: i64) -> Value<'a> {
    let limit = usize::try_from(parts).unwrap_or(usize::MAX);
    let piece = |part: &str| Value::text(part);
    let pieces = if limit == 0 {
        Vec::new()
    } else if by.is_empty() {
        // Character by character, what is left over in the last.
        let chars = text.chars().count();
        let heads = chars.min(limit).saturating_sub(usize::from(chars > limit));
        let mut rest = text;
        let mut pieces = Vec::with_capacity(heads + 1);
        for _ in 0..heads {
            let len = rest.chars().next().map_or(0, char::len_utf8);
            pieces.push(piece(&rest[..len]));
            rest = &rest[len..];
        }
        if !rest.is_empty() {
            pieces.push(piece(rest));
        }
        pieces
    } else {
        text.splitn(limit, by).map(piece).collect()
    };
    Value::list(pieces)
}

fn substring<'a>(text: &str, start: i64, end: Option<i64>) -> Result<Value<'a>, EvalError> {
    let chars = text.chars().count();
    let length = i64::try_from(chars).unwrap_or(i64::MAX);
    let stop = end.unwrap_or(length);
    if end.is_some() && start > stop {
        return failed(format!("invalid substring range. start: {start}, end: {stop}"));
    }
    for bound in [start, stop] {
        if bound < 0 || bound > length {
            return failed(format!("index out of range: {bound}"));
        }
    }
    let (start, stop) = (usize::try_from(start).unwrap_or(0), usize::try_from(stop).unwrap_or(0));
    Ok(Value::text(text.chars().skip(start).take(stop - start).collect::<String>()))
}

fn join<'a>(list: &crate::value::List<'a>, by: &str) -> Result<Value<'a>, EvalError> {
    let mut out = String::new();
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            out.push_str(by);
        }
        match item? {
            Value::Str(text) => out.push_str(&text),
            _ => return unsupported(),
        }
        if out.len() > TEXT_BYTES_MAX {
            return Err(EvalError::CostExceeded);
        }
    }
    Ok(Value::text(out))
}

/// `text` between double quotes, control characters escaped.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// Where `part` is in `text`, in characters, looking from `start` on.
pub(crate) fn index_of<'a>(text: &str, part: &str, start: i64) -> Result<Value<'a>, EvalError> {
    let chars = text.chars().count();
    let Ok(start) = usize::try_from(start) else { return failed(format!("index out of range: {start}")) };
    if part.is_empty() {
        return Ok(int(start.min(chars)));
    }
    let Some((at, _)) = text.char_indices().nth(start) else { return Ok(Value::Int(-1)) };
    Ok(match text[at..].find(part) {
        Some(found) => int(start + text[at..at + found].chars().count()),
        None => Value::Int(-1),
    })
}

/// Where `part` last is in `text`, in characters, at `start` or before.
pub(crate) fn last_index_of<'a>(text: &str, part: &str, start: Option<i64>) -> Result<Value<'a>, EvalError> {
    let chars = text.chars().count();
    let start = match start.map(usize::try_from) {
        Some(Err(_)) => return failed(format!("index out of range: {}", start.unwrap_or(-1))),
        Some(Ok(start)) => {
            if part.is_empty() {
                return Ok(int(start.min(chars)));
            }
            if start >= chars {
                return Ok(Value::Int(-1));
            }
            start
        }
        None if part.is_empty() => return Ok(int(chars)),
        None => chars.saturating_sub(1),
    };
    // A match may begin at `start` and end after it, at the end of a character.
    let begin = text.char_indices().nth(start).map_or(text.len(), |(at, _)| at);
    let mut end = begin.saturating_add(part.len()).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Ok(match text[..end].rfind(part) {
        Some(found) if found <= begin => int(text[..found].chars().count()),
        _ => Value::Int(-1),
    })
}
