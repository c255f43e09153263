//! Optional values.

use super::{Function, failed, unsupported};
use crate::value::Value;

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "optional.of",
        native: |_, args| Ok(Value::some(args[0].clone())),
        overloads: &["optional_of: (V) optional(V)"],
    },
    Function {
        name: "optional.ofNonZeroValue",
        native: |_, args| Ok(if is_zero(&args[0]) { Value::Optional(None) } else { Value::some(args[0].clone()) }),
        overloads: &["optional_ofNonZeroValue: (V) optional(V)"],
    },
    Function {
        name: "optional.none",
        native: |_, _| Ok(Value::Optional(None)),
        overloads: &["optional_none: () optional(V)"],
    },
    Function {
        name: "value",
        native: |_, args| match args {
            [Value::Optional(Some(inner))] => Ok((**inner).clone()),
            [Value::Optional(None)] => failed("optional.none() dereference"),
            _ => unsupported(),
        },
        overloads: &["optional_value: optional(V).() V"],
    },
    Function {
        name: "hasValue",
        native: |_, args| match args {
            [Value::Optional(inner)] => Ok(Value::Bool(inner.is_some())),
            _ => unsupported(),
        },
        overloads: &["optional_hasValue: optional(V).() bool"],
    },
    Function {
        name: "or",
        native: |_, args| match args {
            [Value::Optional(None), other @ Value::Optional(_)] => Ok(other.clone()),
            [filled @ Value::Optional(Some(_)), Value::Optional(_)] => Ok(filled.clone()),
            _ => unsupported(),
        },
        overloads: &["optional_or_optional: optional(V).(optional(V)) optional(V)"],
    },
    Function {
        name: "orValue",
        native: |_, args| match args {
            [Value::Optional(None), other] => Ok(other.clone()),
            [Value::Optional(Some(inner)), _] => Ok((**inner).clone()),
            _ => unsupported(),
        },
        overloads: &["optional_orValue_value: optional(V).(V) V"],
    },
];

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Int(number) => *number == 0,
        Value::Uint(number) => *number == 0,
        Value::Double(number) => *number == 0.0,
        Value::Str(text) => text.is_empty(),
        Value::Bytes(octets) => octets.is_empty(),
        Value::Duration(nanos) => *nanos == 0,
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Object(object) => object.fields.is_empty(),
        Value::Optional(inner) => inner.is_none(),
        _ => false,
    }
}
