//! Patterns, in RE2's syntax.

use std::borrow::Cow;

use ::regex::{Regex, RegexBuilder};

use super::{Function, failed, unsupported};
use crate::error::EvalError;
use crate::program::Run;
use crate::value::Value;

/// The most memory a compiled pattern takes: some hundred times what patterns of people need.
const PATTERN_BYTES_MAX: usize = 4 << 20;

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "matches",
        native: |run, args| match args {
            [Value::Str(text), Value::Str(pattern)] => Ok(Value::Bool(find(run, pattern)?.is_match(text))),
            _ => unsupported(),
        },
        overloads: &["matches: (string, string) bool", "matches_string: string.(string) bool"],
    },
    Function {
        name: "find",
        native: |run, args| match args {
            [Value::Str(text), Value::Str(pattern)] => {
                Ok(find(run, pattern)?.find(text).map_or(Value::str(""), |found| Value::text(found.as_str())))
            }
            _ => unsupported(),
        },
        overloads: &["string_find_string: string.(string) string"],
    },
    Function {
        name: "findAll",
        native: |run, args| {
            let (text, pattern, count) = match args {
                [Value::Str(text), Value::Str(pattern)] => (text, pattern, usize::MAX),
                [Value::Str(text), Value::Str(pattern), Value::Int(count)] => {
                    (text, pattern, usize::try_from(*count).unwrap_or(usize::MAX))
                }
                _ => return unsupported(),
            };
            let regex = find(run, pattern)?;
            Ok(Value::list(regex.find_iter(text).take(count).map(|found| Value::text(found.as_str())).collect()))
        },
        overloads: &[
            "string_find_all_string: string.(string) list(string)",
            "string_find_all_string_int: string.(string, int) list(string)",
        ],
    },
];

/// Compiles a pattern.
pub(crate) fn compile(pattern: &str) -> Result<Regex, ::regex::Error> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build()
}

/// The pattern as compiled with the program, or compiled now.
fn find<'a>(run: &Run<'_, 'a>, pattern: &str) -> Result<Cow<'a, Regex>, EvalError> {
    match run.program.regex(pattern) {
        Some(regex) => Ok(Cow::Borrowed(regex)),
        None => match compile(pattern) {
            Ok(regex) => Ok(Cow::Owned(regex)),
            Err(_) => failed(format!("Illegal regex: error parsing regexp: `{pattern}`")),
        },
    }
}
