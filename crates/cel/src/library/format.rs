//! Formats of text by name: `format.dns1123Label().validate(x)`.

use base64::Engine as _;
use skiff_object::name;

use super::url::Url;
use super::{Function, unsupported};
use crate::opaque::Opaque;
use crate::time::Timestamp;
use crate::value::Value;

/// A format texts can be checked against.
#[derive(Debug)]
pub struct Format {
    name: &'static str,
    /// What is wrong with a text.
    validate: fn(&str) -> Vec<String>,
    /// How long a pattern for it would be, which is what checking costs.
    pub(crate) pattern_size: u64,
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The formats there are.
static FORMATS: &[Format] = &[
    Format { name: "dns1123Label", validate: name::dns1123_label, pattern_size: 30 },
    Format { name: "dns1123Subdomain", validate: name::dns1123_subdomain, pattern_size: 60 },
    Format { name: "dns1035Label", validate: name::dns1035_label, pattern_size: 30 },
    Format { name: "qualifiedName", validate: name::qualified_name, pattern_size: 60 },
    Format { name: "dns1123LabelPrefix", validate: |text| name::dns1123_label(&mask(text)), pattern_size: 30 },
    Format { name: "dns1123SubdomainPrefix", validate: |text| name::dns1123_subdomain(&mask(text)), pattern_size: 60 },
    Format { name: "dns1035LabelPrefix", validate: |text| name::dns1035_label(&mask(text)), pattern_size: 30 },
    Format { name: "labelValue", validate: name::label_value, pattern_size: 40 },
    Format {
        name: "uri",
        validate: |text| match Url::parse(text) {
            Ok(_) => Vec::new(),
            Err(message) => vec![format!("parse {text:?}: {message}")],
        },
        pattern_size: 1_084,
    },
    Format { name: "uuid", validate: |text| one(is_uuid(text), "does not match the UUID format"), pattern_size: 69 },
    Format {
        name: "byte",
        validate: |text| one(base64::engine::general_purpose::STANDARD.decode(text).is_ok(), "invalid base64"),
        pattern_size: 87,
    },
    Format {
        name: "date",
        validate: |text| one(Timestamp::parse(&format!("{text}T00:00:00Z")).is_some(), "invalid date"),
        pattern_size: 70,
    },
    Format {
        name: "datetime",
        validate: |text| one(Timestamp::parse(text).is_some(), "invalid datetime"),
        pattern_size: 70,
    },
];

fn one(valid: bool, message: &str) -> Vec<String> {
    if valid { Vec::new() } else { vec![message.to_owned()] }
}

/// A prefix of a name as a name: a dash may follow it, so a dash at its end is no end.
fn mask(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

fn is_uuid(text: &str) -> bool {
    let compact: String = text.chars().filter(|c| *c != '-').collect();
    let dashes_fit = !text.contains('-') || {
        let bytes = text.as_bytes();
        bytes.len() == 36 && [8, 13, 18, 23].iter().all(|at| bytes[*at] == b'-')
    };
    dashes_fit && compact.len() == 32 && compact.bytes().all(|b| b.is_ascii_hexdigit())
}

macro_rules! formats {
    ($($name:literal),* $(,)?) => {
        &[
            Function {
                name: "format.named",
                native: |_, args| match args {
                    [Value::Str(name)] => Ok(find(name).map_or(Value::Optional(None), Value::some)),
                    _ => unsupported(),
                },
                overloads: &["format-named: (string) optional(kubernetes.NamedFormat)"],
            },
            Function {
                name: "validate",
                native: |_, args| match args {
                    [Value::Opaque(Opaque::Format(format)), Value::Str(text)] => {
                        let issues: Vec<Value<'_>> = (format.validate)(text).into_iter().map(Value::text).collect();
                        Ok(if issues.is_empty() { Value::Optional(None) } else { Value::some(Value::list(issues)) })
                    }
                    _ => unsupported(),
                },
                overloads: &["format-validate: kubernetes.NamedFormat.(string) optional(list(string))"],
            },
            $(Function {
                name: concat!("format.", $name),
                native: |_, _| find($name).map_or_else(unsupported, Ok),
                overloads: &[concat!("format.", $name, ": () kubernetes.NamedFormat")],
            },)*
        ]
    };
}

pub(crate) const FUNCTIONS: &[Function] = formats![
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

fn find<'a>(name: &str) -> Option<Value<'a>> {
    FORMATS.iter().find(|format| format.name == name).map(|format| Value::Opaque(Opaque::Format(format)))
}
