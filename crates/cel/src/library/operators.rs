//! Operators and what else the language itself has. `&&`, `||`, `? :`, selection and indexing are evaluated in place;
//! their rows are for the checker.

use std::cmp::Ordering;

use super::{Function, Native, int, unsupported};
use crate::error::EvalError;
use crate::ops;
use crate::value::Value;

/// Evaluated where it stands, never called.
const IN_PLACE: Native = |_, _| unsupported();

pub(crate) const FUNCTIONS: &[Function] = &[
    Function { name: "_?_:_", native: IN_PLACE, overloads: &["conditional: (bool, A, A) A"] },
    Function { name: "_&&_", native: IN_PLACE, overloads: &["logical_and: (bool, bool) bool"] },
    Function { name: "_||_", native: IN_PLACE, overloads: &["logical_or: (bool, bool) bool"] },
    Function { name: "@not_strictly_false", native: IN_PLACE, overloads: &["not_strictly_false: (bool) bool"] },
    Function {
        name: "_[_]",
        native: IN_PLACE,
        overloads: &[
            "index_list: (list(A), int) A",
            "index_map: (map(A, B), A) B",
            "optional_list_index_int: (optional(list(V)), int) optional(V)",
            "optional_map_index_value: (optional(map(K, V)), K) optional(V)",
        ],
    },
    Function {
        name: "_[?_]",
        native: IN_PLACE,
        overloads: &[
            "list_optindex_optional_int: (list(V), int) optional(V)",
            "optional_list_optindex_optional_int: (optional(list(V)), int) optional(V)",
            "map_optindex_optional_value: (map(K, V), K) optional(V)",
            "optional_map_optindex_optional_value: (optional(map(K, V)), K) optional(V)",
        ],
    },
    Function {
        name: "cel.@mapInsert",
        native: IN_PLACE,
        overloads: &[
            "@mapInsert_map_key_value: (map(K, V), K, V) map(K, V)",
            "@mapInsert_map_map: (map(K, V), map(K, V)) map(K, V)",
        ],
    },
    Function {
        name: "!_",
        native: |_, args| match args {
            [Value::Bool(value)] => Ok(Value::Bool(!value)),
            _ => unsupported(),
        },
        overloads: &["logical_not: (bool) bool"],
    },
    Function {
        name: "_==_",
        native: |_, args| Ok(Value::Bool(ops::equal(&args[0], &args[1])?)),
        overloads: &["equals: (A, A) bool"],
    },
    Function {
        name: "_!=_",
        native: |_, args| Ok(Value::Bool(!ops::equal(&args[0], &args[1])?)),
        overloads: &["not_equals: (A, A) bool"],
    },
    Function {
        name: "_+_",
        native: |_, args| ops::add(&args[0], &args[1]),
        overloads: &[
            "add_bytes: (bytes, bytes) bytes",
            "add_double: (double, double) double",
            "add_duration_duration: (duration, duration) duration",
            "add_duration_timestamp: (duration, timestamp) timestamp",
            "add_timestamp_duration: (timestamp, duration) timestamp",
            "add_int64: (int, int) int",
            "add_list: (list(A), list(A)) list(A)",
            "add_string: (string, string) string",
            "add_uint64: (uint, uint) uint",
        ],
    },
    Function {
        name: "_-_",
        native: |_, args| ops::subtract(&args[0], &args[1]),
        overloads: &[
            "subtract_double: (double, double) double",
            "subtract_duration_duration: (duration, duration) duration",
            "subtract_int64: (int, int) int",
            "subtract_timestamp_duration: (timestamp, duration) timestamp",
            "subtract_timestamp_timestamp: (timestamp, timestamp) duration",
            "subtract_uint64: (uint, uint) uint",
        ],
    },
    Function {
        name: "_*_",
        native: |_, args| ops::multiply(&args[0], &args[1]),
        overloads: &[
            "multiply_double: (double, double) double",
            "multiply_int64: (int, int) int",
            "multiply_uint64: (uint, uint) uint",
        ],
    },
    Function {
        name: "_/_",
        native: |_, args| ops::divide(&args[0], &args[1]),
        overloads: &[
            "divide_double: (double, double) double",
            "divide_int64: (int, int) int",
            "divide_uint64: (uint, uint) uint",
        ],
    },
    Function {
        name: "_%_",
        native: |_, args| ops::modulo(&args[0], &args[1]),
        overloads: &["modulo_int64: (int, int) int", "modulo_uint64: (uint, uint) uint"],
    },
    Function {
        name: "-_",
        native: |_, args| ops::negate(&args[0]),
        overloads: &["negate_double: (double) double", "negate_int64: (int) int"],
    },
    Function {
        name: "_<_",
        native: |_, args| ordered(args, Ordering::is_lt),
        overloads: &[
            "less_bool: (bool, bool) bool",
            "less_int64: (int, int) bool",
            "less_int64_double: (int, double) bool",
            "less_int64_uint64: (int, uint) bool",
            "less_uint64: (uint, uint) bool",
            "less_uint64_double: (uint, double) bool",
            "less_uint64_int64: (uint, int) bool",
            "less_double: (double, double) bool",
            "less_double_int64: (double, int) bool",
            "less_double_uint64: (double, uint) bool",
            "less_string: (string, string) bool",
            "less_bytes: (bytes, bytes) bool",
            "less_timestamp: (timestamp, timestamp) bool",
            "less_duration: (duration, duration) bool",
        ],
    },
    Function {
        name: "_<=_",
        native: |_, args| ordered(args, Ordering::is_le),
        overloads: &[
            "less_equals_bool: (bool, bool) bool",
            "less_equals_int64: (int, int) bool",
            "less_equals_int64_double: (int, double) bool",
            "less_equals_int64_uint64: (int, uint) bool",
            "less_equals_uint64: (uint, uint) bool",
            "less_equals_uint64_double: (uint, double) bool",
            "less_equals_uint64_int64: (uint, int) bool",
            "less_equals_double: (double, double) bool",
            "less_equals_double_int64: (double, int) bool",
            "less_equals_double_uint64: (double, uint) bool",
            "less_equals_string: (string, string) bool",
            "less_equals_bytes: (bytes, bytes) bool",
            "less_equals_timestamp: (timestamp, timestamp) bool",
            "less_equals_duration: (duration, duration) bool",
        ],
    },
    Function {
        name: "_>_",
        native: |_, args| ordered(args, Ordering::is_gt),
        overloads: &[
            "greater_bool: (bool, bool) bool",
            "greater_int64: (int, int) bool",
            "greater_int64_double: (int, double) bool",
            "greater_int64_uint64: (int, uint) bool",
            "greater_uint64: (uint, uint) bool",
            "greater_uint64_double: (uint, double) bool",
            "greater_uint64_int64: (uint, int) bool",
            "greater_double: (double, double) bool",
            "greater_double_int64: (double, int) bool",
            "greater_double_uint64: (double, uint) bool",
            "greater_string: (string, string) bool",
            "greater_bytes: (bytes, bytes) bool",
            "greater_timestamp: (timestamp, timestamp) bool",
            "greater_duration: (duration, duration) bool",
        ],
    },
    Function {
        name: "_>=_",
        native: |_, args| ordered(args, Ordering::is_ge),
        overloads: &[
            "greater_equals_bool: (bool, bool) bool",
            "greater_equals_int64: (int, int) bool",
            "greater_equals_int64_double: (int, double) bool",
            "greater_equals_int64_uint64: (int, uint) bool",
            "greater_equals_uint64: (uint, uint) bool",
            "greater_equals_uint64_double: (uint, double) bool",
            "greater_equals_uint64_int64: (uint, int) bool",
            "greater_equals_double: (double, double) bool",
            "greater_equals_double_int64: (double, int) bool",
            "greater_equals_double_uint64: (double, uint) bool",
            "greater_equals_string: (string, string) bool",
            "greater_equals_bytes: (bytes, bytes) bool",
            "greater_equals_timestamp: (timestamp, timestamp) bool",
            "greater_equals_duration: (duration, duration) bool",
        ],
    },
    Function {
        name: "@in",
        native: |_, args| Ok(Value::Bool(ops::contains(&args[1], &args[0])?)),
        overloads: &["in_list: (A, list(A)) bool", "in_map: (A, map(A, B)) bool"],
    },
    Function {
        name: "size",
        native: |_, args| match args {
            [Value::Str(text)] => Ok(int(text.chars().count())),
            [Value::Bytes(octets)] => Ok(int(octets.len())),
            [Value::List(list)] => Ok(int(list.len())),
            [Value::Map(map)] => Ok(int(map.len())),
            _ => unsupported(),
        },
        overloads: &[
            "size_bytes: (bytes) int",
            "bytes_size: bytes.() int",
            "size_list: (list(A)) int",
            "list_size: list(A).() int",
            "size_map: (map(A, B)) int",
            "map_size: map(A, B).() int",
            "size_string: (string) int",
            "string_size: string.() int",
        ],
    },
    Function { name: "type", native: |_, args| Ok(Value::Type(args[0].type_of())), overloads: &["type: (A) type(A)"] },
    Function { name: "dyn", native: |_, args| Ok(args[0].clone()), overloads: &["to_dyn: (A) dyn"] },
];

fn ordered<'a>(args: &[Value<'a>], fits: fn(Ordering) -> bool) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(fits(ops::compare(&args[0], &args[1])?)))
}
