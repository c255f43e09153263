//! Field errors: what is wrong with which field, in upstream's words and types.
//!
//! A validator collects them all; [`FieldErrors`] turns them into the message and the causes of a
//! `Status` with reason `Invalid`.

use std::fmt::{self, Write as _};

use crate::tree::{Map, Tree};

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Which kind of wrong.
    pub kind: ErrorKind,
    /// The field, as [`crate::path::Path`] prints it.
    pub field: String,
    /// The offending value, as the message shows it.
    pub value: BadValue,
    /// What was expected; may be empty.
    pub detail: String,
}

/// The kinds of field errors. Also the `reason` of a `Status` cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// A referenced value does not exist.
    NotFound,
    /// A value is missing.
    Required,
    /// A value that must be unique is not.
    Duplicate,
    /// A malformed or out-of-range value.
    Invalid,
    /// A value outside of an enumeration.
    NotSupported,
    /// Well-formed, but not allowed here and now.
    Forbidden,
    /// Longer than allowed; the value is not repeated.
    TooLong,
    /// More items than allowed.
    TooMany,
    /// Not the user's fault.
    Internal,
    /// Not of the type the schema asks for.
    TypeInvalid,
}

/// A value as a message shows it.
#[derive(Clone, Debug, PartialEq)]
pub enum BadValue {
    /// Not shown.
    Omitted,
    /// `null`
    Null,
    /// A string; shown quoted.
    Text(String),
    /// A number, a truth value or anything already printed; shown as it is.
    Bare(String),
}

impl From<&str> for BadValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for BadValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for BadValue {
    fn from(number: i64) -> Self {
        Self::Bare(number.to_string())
    }
}

impl From<bool> for BadValue {
    fn from(value: bool) -> Self {
        Self::Bare(value.to_string())
    }
}

/// Scalars as they are, strings quoted, everything else as JSON: upstream prints Go syntax there,
/// which nobody can act on.
impl From<&Tree> for BadValue {
    fn from(tree: &Tree) -> Self {
        match tree {
            Tree::Null => Self::Null,
            Tree::Str(text) => Self::Text(text.to_string()),
            other => Self::Bare(show(other)),
        }
    }
}

impl From<Option<&Tree>> for BadValue {
    fn from(tree: Option<&Tree>) -> Self {
        tree.map_or(Self::Null, Self::from)
    }
}

impl ErrorKind {
    /// The `reason` of the cause in a `Status`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    const fn hides_value(self) -> bool {
        matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

impl FieldError {
    fn new(kind: ErrorKind, field: impl fmt::Display, value: BadValue, detail: impl Into<String>) -> Self {
        Self { kind, field: field.to_string(), value, detail: detail.into() }
    }

    /// A value is missing.
    pub fn required(field: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Required, field, BadValue::Omitted, detail)
    }

    /// A malformed or out-of-range value.
    pub fn invalid(field: impl fmt::Display, value: impl Into<BadValue>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, field, value.into(), detail)
    }

    /// A value of the wrong type.
    pub fn type_invalid(field: impl fmt::Display, value: impl Into<BadValue>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::TypeInvalid, field, value.into(), detail)
    }

    /// A value outside of the enumeration `supported`.
    pub fn not_supported(field: impl fmt::Display, value: impl Into<BadValue>, supported: &[&str]) -> Self {
        let mut detail = String::new();
        for (index, one) in supported.iter().enumerate() {
            detail.push_str(if index == 0 { "supported values: " } else { ", " });
            detail.push_str(&quote(one));
        }
        Self::new(ErrorKind::NotSupported, field, value.into(), detail)
    }

    /// A value that must be unique is not.
    pub fn duplicate(field: impl fmt::Display, value: impl Into<BadValue>) -> Self {
        Self::new(ErrorKind::Duplicate, field, value.into(), "")
    }

    /// A referenced value does not exist.
    pub fn not_found(field: impl fmt::Display, value: impl Into<BadValue>) -> Self {
        Self::new(ErrorKind::NotFound, field, value.into(), "")
    }

    /// Well-formed, but not allowed here and now.
    pub fn forbidden(field: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, field, BadValue::Omitted, detail)
    }

    /// Longer than `bytes_max`.
    pub fn too_long(field: impl fmt::Display, bytes_max: usize) -> Self {
        let unit = if bytes_max == 1 { "byte" } else { "bytes" };
        Self::new(ErrorKind::TooLong, field, BadValue::Omitted, format!("may not be more than {bytes_max} {unit}"))
    }

    /// More than `items_max` items.
    pub fn too_many(field: impl fmt::Display, items: usize, items_max: usize) -> Self {
        let unit = if items_max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {items_max} {unit}");
        Self::new(ErrorKind::TooMany, field, BadValue::Bare(items.to_string()), detail)
    }

    /// Something failed that the user did not cause.
    pub fn internal(field: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, field, BadValue::Omitted, detail)
    }

    /// The message without the field: the `message` of a cause.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if !self.kind.hides_value() {
            match &self.value {
                BadValue::Omitted => {}
                BadValue::Null => text.push_str(": null"),
                BadValue::Text(value) => {
                    text.push_str(": ");
                    text.push_str(&quote(value));
                }
                BadValue::Bare(value) => {
                    text.push_str(": ");
                    text.push_str(value);
                }
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// The cause as it stands in `details.causes` of a `Status`.
    pub fn cause(&self) -> Tree {
        let mut cause = Map::new();
        cause.insert("reason", self.kind.reason());
        cause.insert("message", self.body());
        cause.insert("field", self.field.as_str());
        Tree::Map(cause)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for FieldError {}

/// A list of field errors as one message: alone as it is, several as `[a, b]`, repetitions once.
pub fn message(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.len() {
        1 => texts.remove(0),
        _ => format!("[{}]", texts.join(", ")),
    }
}

/// The causes of a `Status`, one for each error.
pub fn causes(errors: &[FieldError]) -> Tree {
    Tree::List(errors.iter().map(FieldError::cause).collect())
}

/// `text` in quotes as Go's `%q` writes it.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// How much of a value a message repeats: whole objects in errors help nobody.
const SHOWN_BYTES_MAX: usize = 1_024;

/// A tree as compact JSON, cut at [`SHOWN_BYTES_MAX`].
pub fn show(tree: &Tree) -> String {
    let mut out = String::new();
    show_into(tree, &mut out);
    if out.len() > SHOWN_BYTES_MAX {
        let cut = (0..=SHOWN_BYTES_MAX).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
        out.truncate(cut);
        out.push_str("...");
    }
    out
}

fn show_into(tree: &Tree, out: &mut String) {
    if out.len() > SHOWN_BYTES_MAX {
        return;
    }
    match tree {
        Tree::Null => out.push_str("null"),
        Tree::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Tree::Int(number) => {
            let _ = write!(out, "{number}");
        }
        Tree::Float(number) => {
            let _ = write!(out, "{number}");
        }
        Tree::Str(text) => out.push_str(&quote(text)),
        Tree::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                show_into(item, out);
            }
            out.push(']');
        }
        Tree::Map(map) => {
            out.push('{');
            for (index, (key, value)) in map.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&quote(key.as_str()));
                out.push(':');
                show_into(value, out);
            }
            out.push('}');
        }
    }
}

/// A value as Go's `%v` prints it.
pub fn go(tree: &Tree) -> String {
    match tree {
        Tree::Null => "<nil>".to_owned(),
        Tree::Bool(value) => value.to_string(),
        Tree::Int(number) => number.to_string(),
        Tree::Float(number) => number.to_string(),
        Tree::Str(text) => text.to_string(),
        Tree::List(items) => go_list(items),
        Tree::Map(map) => {
            let mut entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{}:{}", key.as_str(), go(value))).collect();
            entries.sort_unstable();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// A list as Go's `%v` prints it.
pub fn go_list(items: &[Tree]) -> String {
    let items: Vec<String> = items.iter().map(go).collect();
    format!("[{}]", items.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Path;

    #[test]
    fn errors_read_as_upstream_writes_them() {
        let path = Path::new("spec");
        let replicas = path.child("replicas");
        let one = FieldError::invalid(replicas, -1_i64, "must be greater than or equal to 0");
        assert_eq!(one.to_string(), "spec.replicas: Invalid value: -1: must be greater than or equal to 0");
        let two = FieldError::not_supported("spec.dnsPolicy", "x", &["Default", "None"]);
        assert_eq!(two.to_string(), r#"spec.dnsPolicy: Unsupported value: "x": supported values: "Default", "None""#);
        assert_eq!(FieldError::required("spec.selector", "").to_string(), "spec.selector: Required value");
        let long = FieldError::too_long("data", 3);
        assert_eq!(long.to_string(), "data: Too long: may not be more than 3 bytes");
        assert_eq!(message(std::slice::from_ref(&one)), one.to_string());
        assert_eq!(message(&[one.clone(), two.clone(), one.clone()]), format!("[{one}, {two}]"));
    }
}
