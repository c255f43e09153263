//! The functions of the language and of Kubernetes: one file per library, one table of functions in each.
//!
//! A row says how a function may be called (`id: target.(arguments) result`) and what runs. What runs looks at the
//! values it gets, so that one function serves all its overloads and arguments of type `dyn`.

pub(crate) mod authz;
pub(crate) mod cidr;
pub(crate) mod convert;
pub(crate) mod format;
pub(crate) mod lists;
pub(crate) mod operators;
pub(crate) mod optional;
pub(crate) mod quantity;
pub(crate) mod regex;
pub(crate) mod semver;
pub(crate) mod sets;
pub(crate) mod strings;
pub(crate) mod strings_format;
pub(crate) mod times;
pub(crate) mod url;

use crate::error::EvalError;
use crate::program::Run;
use crate::value::Value;

/// What runs for a function.
pub(crate) type Native = for<'r, 'a> fn(&mut Run<'r, 'a>, &[Value<'a>]) -> Result<Value<'a>, EvalError>;

/// A function: its name, what runs, how it may be called.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) native: Native,
    pub(crate) overloads: &'static [&'static str],
}

/// Every library.
pub(crate) const ALL: &[&[Function]] = &[
    operators::FUNCTIONS,
    convert::FUNCTIONS,
    times::FUNCTIONS,
    optional::FUNCTIONS,
    strings::FUNCTIONS,
    lists::FUNCTIONS,
    sets::FUNCTIONS,
    regex::FUNCTIONS,
    url::FUNCTIONS,
    quantity::FUNCTIONS,
    cidr::FUNCTIONS,
    format::FUNCTIONS,
    semver::FUNCTIONS,
    authz::FUNCTIONS,
];

/// The answer to arguments a function cannot be called with.
pub(crate) fn unsupported<T>() -> Result<T, EvalError> {
    Err(EvalError::no_such_overload())
}

/// The answer of a function that knows what is wrong.
pub(crate) fn failed<T>(message: impl Into<Box<str>>) -> Result<T, EvalError> {
    Err(EvalError::failed(message))
}

/// A length as an `int`.
pub(crate) fn int<'a>(length: usize) -> Value<'a> {
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}
