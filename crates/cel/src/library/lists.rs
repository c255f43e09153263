//! Lists.

use std::cmp::Ordering;

use super::strings::{index_of, last_index_of};
use super::{Function, failed, int, unsupported};
use crate::error::EvalError;
use crate::ops;
use crate::value::{List, Value};

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "isSorted",
        native: |_, args| match args {
            [Value::List(list)] => {
                let items = collect(list)?;
                for pair in items.windows(2) {
                    if ops::compare(&pair[0], &pair[1])? == Ordering::Greater {
                        return Ok(Value::Bool(false));
                    }
                }
                Ok(Value::Bool(true))
            }
            _ => unsupported(),
        },
        overloads: &[
            "list_int_is_sorted_bool: list(int).() bool",
            "list_uint_is_sorted_bool: list(uint).() bool",
            "list_double_is_sorted_bool: list(double).() bool",
            "list_bool_is_sorted_bool: list(bool).() bool",
            "list_duration_is_sorted_bool: list(duration).() bool",
            "list_timestamp_is_sorted_bool: list(timestamp).() bool",
            "list_string_is_sorted_bool: list(string).() bool",
            "list_bytes_is_sorted_bool: list(bytes).() bool",
        ],
    },
    Function {
        name: "sum",
        native: |_, args| match args {
            [Value::List(list)] => {
                let mut items = list.iter();
                let Some(first) = items.next() else { return Ok(Value::Int(0)) };
                let first = first?;
                if !matches!(first, Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_)) {
                    return unsupported();
                }
                items.try_fold(first, |sum, item| ops::add(&sum, &item?))
            }
            _ => unsupported(),
        },
        overloads: &[
            "list_int_sum_int: list(int).() int",
            "list_uint_sum_uint: list(uint).() uint",
            "list_double_sum_double: list(double).() double",
            "list_duration_sum_duration: list(duration).() duration",
        ],
    },
    Function {
        name: "min",
        native: |_, args| extreme(args, "min", Ordering::Less),
        overloads: &[
            "list_int_min_int: list(int).() int",
            "list_uint_min_uint: list(uint).() uint",
            "list_double_min_double: list(double).() double",
            "list_bool_min_bool: list(bool).() bool",
            "list_duration_min_duration: list(duration).() duration",
            "list_timestamp_min_timestamp: list(timestamp).() timestamp",
            "list_string_min_string: list(string).() string",
            "list_bytes_min_bytes: list(bytes).() bytes",
        ],
    },
    Function {
        name: "max",
        native: |_, args| extreme(args, "max", Ordering::Greater),
        overloads: &[
            "list_int_max_int: list(int).() int",
            "list_uint_max_uint: list(uint).() uint",
            "list_double_max_double: list(double).() double",
            "list_bool_max_bool: list(bool).() bool",
            "list_duration_max_duration: list(duration).() duration",
            "list_timestamp_max_timestamp: list(timestamp).() timestamp",
            "list_string_max_string: list(string).() string",
            "list_bytes_max_bytes: list(bytes).() bytes",
        ],
    },
    Function {
        name: "indexOf",
        native: |_, args| match args {
            [Value::List(list), item] => position(list, item, false),
            [Value::Str(text), Value::Str(part)] => index_of(text, part, 0),
            [Value::Str(text), Value::Str(part), Value::Int(start)] => index_of(text, part, *start),
            _ => unsupported(),
        },
        overloads: &[
            "list_a_index_of_int: list(A).(A) int",
            "string_index_of_string: string.(string) int",
            "string_index_of_string_int: string.(string, int) int",
        ],
    },
    Function {
        name: "lastIndexOf",
        native: |_, args| match args {
            [Value::List(list), item] => position(list, item, true),
            [Value::Str(text), Value::Str(part)] => last_index_of(text, part, None),
            [Value::Str(text), Value::Str(part), Value::Int(start)] => last_index_of(text, part, Some(*start)),
            _ => unsupported(),
        },
        overloads: &[
            "list_a_last_index_of_int: list(A).(A) int",
            "string_last_index_of_string: string.(string) int",
            "string_last_index_of_string_int: string.(string, int) int",
        ],
    },
    Function {
        name: "slice",
        native: |_, args| match args {
            [Value::List(list), Value::Int(start), Value::Int(end)] => slice(list, *start, *end),
            _ => unsupported(),
        },
        overloads: &["list_slice: list(T).(int, int) list(T)"],
    },
    Function {
        name: "flatten",
        native: |_, args| {
            let (list, depth) = match args {
                [Value::List(list)] => (list, 1),
                [Value::List(list), Value::Int(depth)] => (list, *depth),
                _ => return unsupported(),
            };
            if depth < 0 {
                return failed("level must be non-negative");
            }
            let mut out = Vec::new();
            flatten(list, depth, &mut out)?;
            Ok(Value::list(out))
        },
        overloads: &["list_flatten: list(list(T)).() list(T)", "list_flatten_int: list(dyn).(int) list(dyn)"],
    },
    Function {
        name: "lists.range",
        native: |_, args| match args {
            [Value::Int(count)] => match usize::try_from(*count) {
                Ok(count) if count > ops::LIST_ITEMS_MAX => Err(EvalError::CostExceeded),
                _ => Ok(Value::list((0..(*count).max(0)).map(Value::Int).collect())),
            },
            _ => unsupported(),
        },
        overloads: &["lists_range: (int) list(int)"],
    },
    Function {
        name: "reverse",
        native: |_, args| match args {
            [Value::List(list)] => {
                let mut items = collect(list)?;
                items.reverse();
                Ok(Value::list(items))
            }
            _ => unsupported(),
        },
        overloads: &["list_reverse: list(T).() list(T)"],
    },
    Function {
        name: "distinct",
        native: |run, args| match args {
            [Value::List(list)] => {
                // Paid before: the work grows with the square.
                run.afford(list.len() as u64)?;
                let mut kept: Vec<Value<'_>> = Vec::new();
                for item in list.iter() {
                    let item = item?;
                    let mut seen = false;
                    for other in &kept {
                        seen = seen || ops::equal(&item, other)?;
                    }
                    if !seen {
                        kept.push(item);
                    }
                }
                Ok(Value::list(kept))
            }
            _ => unsupported(),
        },
        overloads: &["list_distinct: list(T).() list(T)"],
    },
    Function {
        name: "sort",
        native: |_, args| match args {
            [Value::List(list)] => {
                let items = collect(list)?;
                sort_by(items.clone(), items)
            }
            _ => unsupported(),
        },
        overloads: &[
            "list_int_sort: list(int).() list(int)",
            "list_uint_sort: list(uint).() list(uint)",
            "list_double_sort: list(double).() list(double)",
            "list_bool_sort: list(bool).() list(bool)",
            "list_duration_sort: list(duration).() list(duration)",
            "list_timestamp_sort: list(timestamp).() list(timestamp)",
            "list_string_sort: list(string).() list(string)",
            "list_bytes_sort: list(bytes).() list(bytes)",
        ],
    },
    Function {
        name: "@sortByAssociatedKeys",
        native: |_, args| match args {
            [Value::List(list), Value::List(keys)] => sort_by(collect(list)?, collect(keys)?),
            _ => unsupported(),
        },
        overloads: &[
            "list_int_sortByAssociatedKeys: list(T).(list(int)) list(T)",
            "list_uint_sortByAssociatedKeys: list(T).(list(uint)) list(T)",
            "list_double_sortByAssociatedKeys: list(T).(list(double)) list(T)",
            "list_bool_sortByAssociatedKeys: list(T).(list(bool)) list(T)",
            "list_duration_sortByAssociatedKeys: list(T).(list(duration)) list(T)",
            "list_timestamp_sortByAssociatedKeys: list(T).(list(timestamp)) list(T)",
            "list_string_sortByAssociatedKeys: list(T).(list(string)) list(T)",
            "list_bytes_sortByAssociatedKeys: list(T).(list(bytes)) list(T)",
        ],
    },
];

fn collect<'a>(list: &List<'a>) -> Result<Vec<Value<'a>>, EvalError> {
    list.iter().collect()
}

fn extreme<'a>(args: &[Value<'a>], name: &str, wanted: Ordering) -> Result<Value<'a>, EvalError> {
    let [Value::List(list)] = args else { return unsupported() };
    let mut best: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        best = Some(match best {
            Some(best) if ops::compare(&item, &best)? != wanted => best,
            _ => item,
        });
    }
    best.map_or_else(|| failed(format!("{name} called on empty list")), Ok)
}

fn position<'a>(list: &List<'a>, wanted: &Value<'a>, last: bool) -> Result<Value<'a>, EvalError> {
    let mut found = None;
    for (index, item) in list.iter().enumerate() {
        if ops::equal(&item?, wanted)? {
            found = Some(index);
            if !last {
                break;
            }
        }
    }
    Ok(found.map_or(Value::Int(-1), int))
}

fn slice<'a>(list: &List<'a>, start: i64, end: i64) -> Result<Value<'a>, EvalError> {
    let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
        return failed(format!("cannot slice({start}, {end}), negative indexes not supported"));
    };
    if from > to {
        return failed(format!("cannot slice({start}, {end}), start index must be less than or equal to end index"));
    }
    if list.len() < to {
        return failed(format!("cannot slice({start}, {end}), list is length {}", list.len()));
    }
    Ok(Value::list(list.iter().skip(from).take(to - from).collect::<Result<_, _>>()?))
}

fn flatten<'a>(list: &List<'a>, depth: i64, out: &mut Vec<Value<'a>>) -> Result<(), EvalError> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten(&inner, depth - 1, out)?,
            other => out.push(other),
        }
        if out.len() > ops::LIST_ITEMS_MAX {
            return Err(EvalError::CostExceeded);
        }
    }
    Ok(())
}

fn sort_by<'a>(items: Vec<Value<'a>>, keys: Vec<Value<'a>>) -> Result<Value<'a>, EvalError> {
    if items.len() != keys.len() {
        return failed(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} \
             elements respectively",
            items.len(),
            keys.len()
        ));
    }
    let Some(first) = keys.first() else { return Ok(Value::list(items)) };
    ops::compare(first, first).map_err(|_| EvalError::failed("list elements must be comparable"))?;
    if keys.iter().any(|key| std::mem::discriminant(key) != std::mem::discriminant(first)) {
        return failed("list elements must have the same type");
    }
    let mut paired: Vec<(Value<'a>, Value<'a>)> = keys.into_iter().zip(items).collect();
    paired.sort_by(|(a, _), (b, _)| ops::compare(a, b).unwrap_or(Ordering::Equal));
    Ok(Value::list(paired.into_iter().map(|(_, item)| item).collect()))
}
