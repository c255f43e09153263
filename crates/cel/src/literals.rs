//! Arguments that stand in the expression and can be checked before it runs: patterns, durations, timestamps.

use crate::ast::{Expr, Kind};
use crate::error::Fault;
use crate::library;
use crate::time::Timestamp;

/// Reports every literal argument that can only fail.
pub(crate) fn check(expr: &Expr, faults: &mut Vec<Fault>) {
    if let Kind::Call { function, target, args } = &expr.kind {
        let literal = |index: usize| args.get(index).and_then(|arg| Some((arg.at, arg.as_str()?)));
        match &**function {
            "duration" => {
                if let Some((at, text)) = literal(0)
                    && library::convert::parse_duration(text).is_none()
                {
                    faults.push(Fault::new(at, "invalid duration argument"));
                }
            }
            "timestamp" => {
                if let Some((at, text)) = literal(0)
                    && Timestamp::parse(text).is_none()
                {
                    faults.push(Fault::new(at, "invalid timestamp argument"));
                }
            }
            "matches" => {
                if let Some((at, text)) = literal(usize::from(target.is_none()))
                    && library::regex::compile(text).is_err()
                {
                    faults.push(Fault::new(at, "invalid matches argument"));
                }
            }
            _ => {}
        }
    }
    each_child(expr, &mut |child| check(child, faults));
}

/// Calls `visit` with every expression right below.
pub(crate) fn each_child(expr: &Expr, visit: &mut dyn FnMut(&Expr)) {
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => visit(operand),
        Kind::Call { target, args, .. } => target.iter().map(|target| &**target).chain(args).for_each(visit),
        Kind::List(items) => items.iter().for_each(|item| visit(&item.value)),
        Kind::Map(entries) => entries.iter().for_each(|entry| {
            visit(&entry.key);
            visit(&entry.value);
        }),
        Kind::Struct { fields, .. } => fields.iter().for_each(|field| visit(&field.value)),
        Kind::Fold(fold) => {
            [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result].into_iter().for_each(visit);
        }
    }
}
