//! Parts of timestamps and durations.

use super::{Function, failed, unsupported};
use crate::error::EvalError;
use crate::time::{Civil, zone_offset};
use crate::value::Value;

macro_rules! part {
    ($name:literal, $part:expr, [$($overload:literal),+]) => {
        Function {
            name: $name,
            native: |_, args| civil(args, $part),
            overloads: &[$(
                concat!($overload, ": timestamp.() int"),
                concat!($overload, "_with_tz: timestamp.(string) int"),
            )+],
        }
    };
}

pub(crate) const FUNCTIONS: &[Function] = &[
    part!("getFullYear", |at| at.year, ["timestamp_to_year"]),
    part!("getMonth", |at| at.month - 1, ["timestamp_to_month"]),
    part!("getDayOfYear", |at| at.day_of_year, ["timestamp_to_day_of_year"]),
    part!("getDayOfMonth", |at| at.day - 1, ["timestamp_to_day_of_month"]),
    part!("getDate", |at| at.day, ["timestamp_to_day_of_month_1_based"]),
    part!("getDayOfWeek", |at| at.weekday, ["timestamp_to_day_of_week"]),
    Function {
        name: "getHours",
        native: |_, args| timed(args, 3_600_000_000_000, |at| at.hour),
        overloads: &[
            "timestamp_to_hours: timestamp.() int",
            "timestamp_to_hours_with_tz: timestamp.(string) int",
            "duration_to_hours: duration.() int",
        ],
    },
    Function {
        name: "getMinutes",
        native: |_, args| timed(args, 60_000_000_000, |at| at.minute),
        overloads: &[
            "timestamp_to_minutes: timestamp.() int",
            "timestamp_to_minutes_with_tz: timestamp.(string) int",
            "duration_to_minutes: duration.() int",
        ],
    },
    Function {
        name: "getSeconds",
        native: |_, args| timed(args, 1_000_000_000, |at| at.second),
        overloads: &[
            "timestamp_to_seconds: timestamp.() int",
            "timestamp_to_seconds_tz: timestamp.(string) int",
            "duration_to_seconds: duration.() int",
        ],
    },
    Function {
        name: "getMilliseconds",
        native: |_, args| match args {
            [Value::Timestamp(time), ..] => Ok(Value::Int(i64::from(time.subsecond_nanos() / 1_000_000))),
            _ => timed(args, 1_000_000, |_| 0),
        },
        overloads: &[
            "timestamp_to_milliseconds: timestamp.() int",
            "timestamp_to_milliseconds_with_tz: timestamp.(string) int",
            "duration_to_milliseconds: duration.() int",
        ],
    },
];

fn civil<'a>(args: &[Value<'a>], part: fn(Civil) -> i64) -> Result<Value<'a>, EvalError> {
    let [Value::Timestamp(time), zone @ ..] = args else { return unsupported() };
    let offset = match zone {
        [] => 0,
        [Value::Str(zone)] => match zone_offset(zone) {
            Ok(offset) => offset,
            Err(message) => return failed(message),
        },
        _ => return unsupported(),
    };
    Ok(Value::Int(part(time.civil(offset))))
}

/// A part of a timestamp, or a whole duration in a unit.
fn timed<'a>(args: &[Value<'a>], unit: i64, part: fn(Civil) -> i64) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / unit)),
        _ => civil(args, part),
    }
}
