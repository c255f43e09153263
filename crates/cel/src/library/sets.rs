//! Lists taken as sets.

use super::{Function, unsupported};
use crate::error::EvalError;
use crate::ops;
use crate::value::{List, Value};

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "sets.contains",
        native: |_, args| match args {
            [Value::List(list), Value::List(part)] => Ok(Value::Bool(contains(list, part)?)),
            _ => unsupported(),
        },
        overloads: &["list_sets_contains_list: (list(T), list(T)) bool"],
    },
    Function {
        name: "sets.equivalent",
        native: |_, args| match args {
            [Value::List(a), Value::List(b)] => Ok(Value::Bool(contains(a, b)? && contains(b, a)?)),
            _ => unsupported(),
        },
        overloads: &["list_sets_equivalent_list: (list(T), list(T)) bool"],
    },
    Function {
        name: "sets.intersects",
        native: |_, args| match args {
            [Value::List(a), other @ Value::List(_)] => {
                for item in a.iter() {
                    if ops::contains(other, &item?)? {
                        return Ok(Value::Bool(true));
                    }
                }
                Ok(Value::Bool(false))
            }
            _ => unsupported(),
        },
        overloads: &["list_sets_intersects_list: (list(T), list(T)) bool"],
    },
];

fn contains<'a>(list: &List<'a>, part: &List<'a>) -> Result<bool, EvalError> {
    let list = Value::List(list.clone());
    for item in part.iter() {
        if !ops::contains(&list, &item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}
