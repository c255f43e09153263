//! Quantities of resources.

use std::cmp::Ordering;

use skiff_object::quantity::{Format, Quantity};

use super::{Function, failed, unsupported};
use crate::error::EvalError;
use crate::library::semver;
use crate::opaque::Opaque;
use crate::value::Value;

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "quantity",
        native: |_, args| match args {
            [Value::Str(text)] => match text.parse::<Quantity>() {
                Ok(quantity) => Ok(Value::Opaque(Opaque::Quantity(quantity))),
                Err(error) => failed(error.to_string()),
            },
            _ => unsupported(),
        },
        overloads: &["string_to_quantity: (string) kubernetes.Quantity"],
    },
    Function {
        name: "isQuantity",
        native: |_, args| match args {
            [Value::Str(text)] => Ok(Value::Bool(text.parse::<Quantity>().is_ok())),
            _ => unsupported(),
        },
        overloads: &["is_quantity_string: (string) bool"],
    },
    Function {
        name: "sign",
        native: |_, args| one(args, |quantity| Ok(Value::Int(quantity.nanos().signum() as i64))),
        overloads: &["quantity_sign: kubernetes.Quantity.() int"],
    },
    Function {
        name: "isInteger",
        native: |_, args| one(args, |quantity| Ok(Value::Bool(whole(quantity).is_some()))),
        overloads: &["quantity_is_integer: kubernetes.Quantity.() bool"],
    },
    Function {
        name: "asInteger",
        native: |_, args| {
            one(args, |quantity| match whole(quantity) {
                Some(number) => Ok(Value::Int(number)),
                None => failed("cannot convert value to integer"),
            })
        },
        overloads: &["quantity_get_int: kubernetes.Quantity.() int"],
    },
    Function {
        name: "asApproximateFloat",
        #[expect(clippy::cast_precision_loss, reason = "the function says approximate")]
        native: |_, args| one(args, |quantity| Ok(Value::Double(quantity.nanos() as f64 / 1e9))),
        overloads: &["quantity_get_float: kubernetes.Quantity.() double"],
    },
    Function {
        name: "add",
        native: |_, args| sum(args, |a, b| a + b),
        overloads: &[
            "quantity_add: kubernetes.Quantity.(kubernetes.Quantity) kubernetes.Quantity",
            "quantity_add_int: kubernetes.Quantity.(int) kubernetes.Quantity",
        ],
    },
    Function {
        name: "sub",
        native: |_, args| sum(args, |a, b| a - b),
        overloads: &[
            "quantity_sub: kubernetes.Quantity.(kubernetes.Quantity) kubernetes.Quantity",
            "quantity_sub_int: kubernetes.Quantity.(int) kubernetes.Quantity",
        ],
    },
    Function {
        name: "isGreaterThan",
        native: |_, args| Ok(Value::Bool(order(args)? == Ordering::Greater)),
        overloads: &[
            "quantity_is_greater_than: kubernetes.Quantity.(kubernetes.Quantity) bool",
            "semver_is_greater_than: kubernetes.Semver.(kubernetes.Semver) bool",
        ],
    },
    Function {
        name: "isLessThan",
        native: |_, args| Ok(Value::Bool(order(args)? == Ordering::Less)),
        overloads: &[
            "quantity_is_less_than: kubernetes.Quantity.(kubernetes.Quantity) bool",
            "semver_is_less_than: kubernetes.Semver.(kubernetes.Semver) bool",
        ],
    },
    Function {
        name: "compareTo",
        native: |_, args| Ok(Value::Int(order(args)? as i64)),
        overloads: &[
            "quantity_compare_to: kubernetes.Quantity.(kubernetes.Quantity) int",
            "semver_compare_to: kubernetes.Semver.(kubernetes.Semver) int",
        ],
    },
];

fn whole(quantity: Quantity) -> Option<i64> {
    if quantity.is_whole() { i64::try_from(quantity.nanos() / 1_000_000_000).ok() } else { None }
}

fn one<'a>(args: &[Value<'a>], get: impl Fn(Quantity) -> Result<Value<'a>, EvalError>) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Opaque(Opaque::Quantity(quantity))] => get(*quantity),
        _ => unsupported(),
    }
}

fn sum<'a>(args: &[Value<'a>], add: impl Fn(Quantity, Quantity) -> Quantity) -> Result<Value<'a>, EvalError> {
    let result = match args {
        [Value::Opaque(Opaque::Quantity(a)), Value::Opaque(Opaque::Quantity(b))] => add(*a, *b),
        [Value::Opaque(Opaque::Quantity(a)), Value::Int(b)] => {
            add(*a, Quantity::from_units(*b, Format::DecimalExponent))
        }
        _ => return unsupported(),
    };
    Ok(Value::Opaque(Opaque::Quantity(result)))
}

fn order(args: &[Value<'_>]) -> Result<Ordering, EvalError> {
    match args {
        [Value::Opaque(Opaque::Quantity(a)), Value::Opaque(Opaque::Quantity(b))] => Ok(a.cmp(b)),
        [Value::Opaque(Opaque::Semver(a)), Value::Opaque(Opaque::Semver(b))] => Ok(semver::compare(a, b)),
        _ => unsupported(),
    }
}
