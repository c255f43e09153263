//! Assignability between types with parts still unknown.
//!
//! Types are taken as trees, and a tree can be exponentially larger than the expression that names
//! it (`[1].map(a, {a: a}).map(b, {b: b})…`), so the work is counted and ends at a bound.

use std::collections::HashMap;
use std::sync::Arc;

use crate::env::Overload;
use crate::types::Type;

/// Steps of unification for one expression. The longest expressions of people take some thousands.
const WORK_MAX: usize = 2_000_000;

#[derive(Debug, Default)]
pub(crate) struct Unifier {
    bound: Vec<Option<Type>>,
    /// What was bound since a trial began, to be taken back when it fails.
    trail: Vec<(u32, Option<Type>)>,
    work: usize,
}

impl Unifier {
    /// Whether the bound was reached; nothing said after that counts.
    pub(crate) fn exhausted(&self) -> bool {
        self.work > WORK_MAX
    }

    /// A type still to be found.
    pub(crate) fn var(&mut self) -> Type {
        self.bound.push(None);
        Type::Var(u32::try_from(self.bound.len() - 1).unwrap_or(u32::MAX))
    }

    /// A declared type with its parameters made variables.
    pub(crate) fn fresh(&mut self, ty: &Type) -> Type {
        self.replace_params(ty, &mut HashMap::new())
    }

    /// The argument and result types of a call, parameters made variables.
    pub(crate) fn instantiate(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        if !overload.generic {
            return (overload.args.clone(), overload.result.clone());
        }
        let mut params = HashMap::new();
        let args = overload.args.iter().map(|arg| self.replace_params(arg, &mut params)).collect();
        let result = self.replace_params(&overload.result, &mut params);
        (args, result)
    }

    fn replace_params(&mut self, ty: &Type, params: &mut HashMap<Arc<str>, Type>) -> Type {
        match ty {
            Type::Param(name) => match params.get(name) {
                Some(var) => var.clone(),
                None => {
                    let var = self.var();
                    params.insert(Arc::clone(name), var.clone());
                    var
                }
            },
            Type::List(item) => Type::list(self.replace_params(item, params)),
            Type::Map(entry) => Type::map(self.replace_params(&entry.0, params), self.replace_params(&entry.1, params)),
            Type::Type(Some(inner)) => Type::Type(Some(Arc::new(self.replace_params(inner, params)))),
            Type::Opaque(name, args) if !args.is_empty() => {
                Type::Opaque(Arc::clone(name), args.iter().map(|arg| self.replace_params(arg, params)).collect())
            }
            other => other.clone(),
        }
    }

    /// The type with everything known put in.
    pub(crate) fn resolve(&mut self, ty: &Type) -> Type {
        self.substitute(ty, false)
    }

    /// As [`Self::resolve`], what is unknown being `dyn`.
    pub(crate) fn finish(&mut self, ty: &Type) -> Type {
        self.substitute(ty, true)
    }

    fn substitute(&mut self, ty: &Type, unknown_is_dyn: bool) -> Type {
        self.work += 1;
        if self.exhausted() {
            return Type::Error;
        }
        match ty {
            Type::Var(number) => match self.binding(*number) {
                Some(bound) => self.substitute(&bound, unknown_is_dyn),
                None if unknown_is_dyn => Type::Dyn,
                None => ty.clone(),
            },
            Type::Param(_) if unknown_is_dyn => Type::Dyn,
            Type::List(item) => Type::list(self.substitute(item, unknown_is_dyn)),
            Type::Map(entry) => {
                Type::map(self.substitute(&entry.0, unknown_is_dyn), self.substitute(&entry.1, unknown_is_dyn))
            }
            Type::Type(Some(inner)) => Type::Type(Some(Arc::new(self.substitute(inner, unknown_is_dyn)))),
            Type::Opaque(name, args) if !args.is_empty() => {
                let args = args.iter().map(|arg| self.substitute(arg, unknown_is_dyn)).collect();
                Type::Opaque(Arc::clone(name), args)
            }
            other => other.clone(),
        }
    }

    fn binding(&self, number: u32) -> Option<Type> {
        self.bound.get(number as usize).cloned().flatten()
    }

    fn bind(&mut self, number: u32, ty: Type) {
        if let Some(slot) = self.bound.get_mut(number as usize) {
            let before = slot.replace(ty);
            self.trail.push((number, before));
        }
    }

    /// Whether a value of one type may stand where the other is wanted. What that says about unknown types is
    /// kept when it may and forgotten when it may not.
    pub(crate) fn assignable(&mut self, from: &Type, to: &Type) -> bool {
        self.all_assignable(std::slice::from_ref(from), std::slice::from_ref(to))
    }

    /// As [`Self::assignable`], for each pair.
    pub(crate) fn all_assignable(&mut self, from: &[Type], to: &[Type]) -> bool {
        self.trail.clear();
        let fits = self.unify_all(from, to);
        if !fits {
            while let Some((number, before)) = self.trail.pop() {
                self.bound[number as usize] = before;
            }
        }
        fits
    }

    fn unify_all(&mut self, left: &[Type], right: &[Type]) -> bool {
        left.len() == right.len() && left.iter().zip(right).all(|(a, b)| self.unify(a, b))
    }

    fn unify(&mut self, left: &Type, right: &Type) -> bool {
        self.work += 1;
        if self.exhausted() {
            return false;
        }
        if let Type::Var(number) = right {
            let (fits, bound) = self.unify_var(left, *number);
            if fits || bound {
                return fits;
            }
        }
        if let Type::Var(number) = left {
            return self.unify_var(right, *number).0;
        }
        if left.is_dyn_or_error() || right.is_dyn_or_error() {
            return true;
        }
        match (left, right) {
            (Type::Null, other) | (other, Type::Null) => nullable(other),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) => self.unify(a, b),
            (Type::Map(a), Type::Map(b)) => self.unify(&a.0, &b.0) && self.unify(&a.1, &b.1),
            (Type::Opaque(a, left), Type::Opaque(b, right)) => a == b && self.unify_all(left, right),
            (a, b) => a == b,
        }
    }

    /// Whether the variable can be `ty`, and whether it was bound already.
    fn unify_var(&mut self, ty: &Type, number: u32) -> (bool, bool) {
        if *ty == Type::Var(number) {
            return (true, true);
        }
        match self.binding(number) {
            Some(bound) => {
                if *ty == bound {
                    return (true, true);
                }
                if !self.unify(ty, &bound) {
                    return (false, true);
                }
                let general = self.most_general(ty.clone(), bound);
                if !self.occurs(number, &general) {
                    self.bind(number, general);
                }
                (true, true)
            }
            None => {
                let free = !self.occurs(number, ty);
                if free {
                    self.bind(number, ty.clone());
                }
                (free, false)
            }
        }
    }

    fn occurs(&mut self, number: u32, within: &Type) -> bool {
        self.work += 1;
        if self.exhausted() {
            return true;
        }
        match within {
            Type::Var(other) if *other == number => true,
            Type::Var(other) => match self.binding(*other) {
                Some(bound) => self.occurs(number, &bound),
                None => false,
            },
            Type::List(item) | Type::Type(Some(item)) => self.occurs(number, item),
            Type::Map(entry) => self.occurs(number, &entry.0) || self.occurs(number, &entry.1),
            Type::Opaque(_, args) => args.iter().any(|arg| self.occurs(number, arg)),
            _ => false,
        }
    }

    /// The wider of two types known to fit each other.
    pub(crate) fn most_general(&mut self, first: Type, second: Type) -> Type {
        if self.less_specific(&first, &second) { first } else { second }
    }

    fn less_specific(&mut self, left: &Type, right: &Type) -> bool {
        self.work += 1;
        if self.exhausted() || matches!(left, Type::Dyn | Type::Var(_)) {
            return true;
        }
        match (left, right) {
            (_, Type::Dyn | Type::Var(_)) => false,
            (Type::List(a), Type::List(b)) => self.less_specific(a, b),
            (Type::Map(a), Type::Map(b)) => self.less_specific(&a.0, &b.0) && self.less_specific(&a.1, &b.1),
            (Type::Opaque(a, left), Type::Opaque(b, right)) => {
                a == b && left.len() == right.len() && left.iter().zip(&**right).all(|(a, b)| self.less_specific(a, b))
            }
            (Type::Type(_), Type::Type(_)) => true,
            (a, b) => a == b,
        }
    }
}

/// What `null` may stand for.
fn nullable(ty: &Type) -> bool {
    matches!(ty, Type::Null | Type::Object(_) | Type::Opaque(..) | Type::Duration | Type::Timestamp)
}
