//! Semantic versions.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Function, failed, unsupported};
use crate::error::EvalError;
use crate::opaque::Opaque;
use crate::value::Value;

/// A version of `semver.org` 2.0.
#[derive(Clone, Debug)]
pub struct Semver {
    core: [u64; 3],
    pre: Vec<Part>,
}

/// One identifier of a pre-release. Numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(Box<str>),
}

/// Build metadata says nothing about which version it is.
impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        compare(self, other) == Ordering::Equal
    }
}

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "semver",
        native: |_, args| match parse_args(args)? {
            Ok(version) => Ok(Value::Opaque(Opaque::Semver(Arc::new(version)))),
            Err(message) => failed(message),
        },
        overloads: &[
            "string_to_semver: (string) kubernetes.Semver",
            "string_bool_to_semver: (string, bool) kubernetes.Semver",
        ],
    },
    Function {
        name: "isSemver",
        native: |_, args| Ok(Value::Bool(parse_args(args)?.is_ok())),
        overloads: &["is_semver_string: (string) bool", "is_semver_string_bool: (string, bool) bool"],
    },
    Function { name: "major", native: |_, args| core(args, 0), overloads: &["semver_major: kubernetes.Semver.() int"] },
    Function { name: "minor", native: |_, args| core(args, 1), overloads: &["semver_minor: kubernetes.Semver.() int"] },
    Function { name: "patch", native: |_, args| core(args, 2), overloads: &["semver_patch: kubernetes.Semver.() int"] },
];

fn core<'a>(args: &[Value<'a>], index: usize) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Opaque(Opaque::Semver(version))] => {
            Ok(Value::Int(i64::try_from(version.core[index]).unwrap_or(i64::MAX)))
        }
        _ => unsupported(),
    }
}

fn parse_args(args: &[Value<'_>]) -> Result<Result<Semver, String>, EvalError> {
    match args {
        [Value::Str(text)] | [Value::Str(text), Value::Bool(false)] => Ok(parse(text)),
        [Value::Str(text), Value::Bool(true)] => Ok(normalize(text).and_then(|text| parse(&text))),
        _ => unsupported(),
    }
}

/// Which version comes first.
pub(crate) fn compare(a: &Semver, b: &Semver) -> Ordering {
    a.core.cmp(&b.core).then_with(|| match (a.pre.is_empty(), b.pre.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.pre.cmp(&b.pre),
    })
}

fn parse(text: &str) -> Result<Semver, String> {
    if text.is_empty() {
        return Err("Version string empty".to_owned());
    }
    let mut parts = text.splitn(3, '.');
    let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("No Major.Minor.Patch elements found".to_owned());
    };
    let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
    let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
    let core = [number("major", major)?, number("minor", minor)?, number("patch", patch)?];
    let pre = pre.map(|pre| pre.split('.').map(part).collect()).transpose()?.unwrap_or_default();
    for meta in build.into_iter().flat_map(|build| build.split('.')) {
        if meta.is_empty() {
            return Err("Build meta data is empty".to_owned());
        }
        if !is_identifier(meta) {
            return Err(format!("Invalid character(s) found in build meta data {meta:?}"));
        }
    }
    Ok(Semver { core, pre })
}

fn is_identifier(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn number(which: &str, text: &str) -> Result<u64, String> {
    let title = ["Major", "Minor", "Patch"][usize::from(which == "minor") + 2 * usize::from(which == "patch")];
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {which} number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{title} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
}

fn part(text: &str) -> Result<Part, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".to_owned());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        if text.len() > 1 && text.starts_with('0') {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {text:?}"));
        }
        return text
            .parse()
            .map(Part::Number)
            .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"));
    }
    if is_identifier(text) {
        Ok(Part::Word(text.into()))
    } else {
        Err(format!("Invalid character(s) found in prerelease {text:?}"))
    }
}

/// `v1.2` as `1.2.0`: no prefix, no leading zeroes, all three numbers.
fn normalize(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| {
            let trimmed = if part.len() > 1 { part.trim_start_matches('0') } else { part };
            if part.len() > 1 && !trimmed.starts_with(|c: char| c.is_ascii_digit()) {
                format!("0{trimmed}")
            } else {
                trimmed.to_owned()
            }
        })
        .collect();
    if parts.len() < 3 {
        if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".to_owned());
        }
        parts.resize(3, "0".to_owned());
    }
    Ok(parts.join("."))
}
