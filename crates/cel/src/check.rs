//! The type checker: what every expression of a tree is, and which ways of calling a function fit.

use std::collections::HashMap;

use crate::ast::{Entry, Expr, FieldInit, Fold, Item, Kind, Literal};
use crate::env::{Declared, Env};
use crate::error::Fault;
use crate::types::Type;
use crate::unify::Unifier;

/// What checking found out about a tree.
#[derive(Debug)]
pub(crate) struct Checked {
    types: Vec<Type>,
    /// Calls by expression: the overloads that fit.
    overloads: HashMap<usize, Vec<&'static str>>,
}

impl Checked {
    pub(crate) fn ty(&self, expr: &Expr) -> &Type {
        &self.types[expr.id]
    }

    pub(crate) fn root_type(&self, expr: &Expr) -> Type {
        self.types[expr.id].clone()
    }

    pub(crate) fn overloads(&self, expr: &Expr) -> &[&'static str] {
        self.overloads.get(&expr.id).map_or(&[], Vec::as_slice)
    }
}

struct Checker<'e> {
    env: &'e Env,
    types: Vec<Type>,
    overloads: HashMap<usize, Vec<&'static str>>,
    /// Variables of macros, innermost last.
    locals: Vec<(Box<str>, Type)>,
    unifier: Unifier,
    faults: Vec<Fault>,
}

/// Checks `expr`, resolving names in it to what they stand for.
pub(crate) fn check(env: &Env, mut expr: Expr, count: usize) -> Result<(Expr, Checked), Vec<Fault>> {
    let mut checker = Checker {
        env,
        types: vec![Type::Error; count],
        overloads: HashMap::new(),
        locals: Vec::new(),
        unifier: Unifier::default(),
        faults: Vec::new(),
    };
    checker.check(&mut expr);
    if checker.unifier.exhausted() {
        checker.faults.push(Fault { at: None, message: "the types of the expression are too complex".to_owned() });
    }
    crate::literals::check(&expr, &mut checker.faults);
    if !checker.faults.is_empty() {
        return Err(checker.faults);
    }
    let types = std::mem::take(&mut checker.types);
    let types = types.iter().map(|ty| checker.unifier.finish(ty)).collect();
    Ok((expr, Checked { types, overloads: checker.overloads }))
}

impl Checker<'_> {
    fn fault(&mut self, at: usize, message: String) {
        self.faults.push(Fault::new(at, message));
    }

    fn ty(&self, expr: &Expr) -> Type {
        self.types[expr.id].clone()
    }

    fn check(&mut self, expr: &mut Expr) {
        if self.unifier.exhausted() {
            return;
        }
        let ty = match &mut expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(_) => self.ident(expr),
            Kind::Select { .. } => self.select(expr),
            Kind::Call { .. } => self.call(expr),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.object(expr.at, name, fields),
            Kind::Fold(fold) => self.fold(fold),
        };
        self.types[expr.id] = ty;
    }

    fn local(&self, name: &str) -> Option<&Type> {
        self.locals.iter().rev().find(|(local, _)| **local == *name).map(|(_, ty)| ty)
    }

    fn undeclared(&mut self, at: usize, name: &str) -> Type {
        self.fault(at, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn ident(&mut self, expr: &Expr) -> Type {
        let Kind::Ident(name) = &expr.kind else { return Type::Error };
        if let Some(ty) = self.local(name) {
            return ty.clone();
        }
        match self.env.ident(name.trim_start_matches('.')) {
            Some(ty) => self.unifier.fresh(&ty),
            None => self.undeclared(expr.at, name),
        }
    }

    fn select(&mut self, expr: &mut Expr) -> Type {
        // `a.b` may be one name.
        if let Some(name) = expr.qualified_name() {
            let first = name.split('.').next().unwrap_or_default();
            if self.local(first).is_none() {
                let full = name.trim_start_matches('.');
                if let Some(ty) = self.env.ident(full) {
                    expr.kind = Kind::Ident(name.into());
                    return self.unifier.fresh(&ty);
                }
            }
        }
        let at = expr.at;
        let Kind::Select { operand, field, test } = &mut expr.kind else { return Type::Error };
        let (field, test) = (field.clone(), *test);
        let ty = self.select_field(at, operand, &field, false);
        if test { Type::Bool } else { ty }
    }

    fn select_field(&mut self, at: usize, operand: &mut Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let operand_type = self.unifier.resolve(&self.ty(operand));
        let inner = operand_type.unwrap_optional();
        let optional = optional || inner.is_some();
        let ty = match inner.unwrap_or(&operand_type) {
            Type::Map(entry) => entry.1.clone(),
            Type::Object(name) => match self.env.field(name, field) {
                Some(Some(ty)) => ty,
                Some(None) => {
                    self.fault(at, format!("undefined field '{field}'"));
                    Type::Error
                }
                None => {
                    self.fault(at, format!("unexpected failed resolution of '{name}'"));
                    Type::Error
                }
            },
            var @ Type::Var(_) => {
                self.unifier.assignable(&Type::Dyn, var);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.fault(at, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        let ty = self.unifier.resolve(&ty);
        if optional { Type::optional(ty) } else { ty }
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let (id, at) = (expr.id, expr.at);
        let Kind::Call { function, target, args } = &mut expr.kind else { return Type::Error };
        if &**function == "_?._" {
            let [operand, field] = args.as_mut_slice() else { return Type::Error };
            self.types[field.id] = Type::String;
            let name: Box<str> = field.as_str().unwrap_or_default().into();
            self.overloads.insert(id, vec!["select_optional_field"]);
            return self.select_field(at, operand, &name, true);
        }
        for arg in args.iter_mut() {
            self.check(arg);
        }
        let Some(receiver) = target else {
            return match self.env.function(function) {
                Some(declared) => self.resolve(id, at, declared, None, args),
                None => self.undeclared(at, &function.clone()),
            };
        };
        // `a.b(…)` is the function `a.b` when there is one.
        if let Some(prefix) = receiver.qualified_name() {
            let full = format!("{}.{function}", prefix.trim_start_matches('.'));
            if let Some(declared) = self.env.function(&full) {
                *function = full.into();
                *target = None;
                return self.resolve(id, at, declared, None, args);
            }
        }
        self.check(receiver);
        match self.env.function(function) {
            Some(declared) => self.resolve(id, at, declared, Some(receiver), args),
            None => self.undeclared(at, &function.clone()),
        }
    }

    fn resolve(
        &mut self,
        id: usize,
        at: usize,
        declared: &'static Declared,
        target: Option<&Expr>,
        args: &[Expr],
    ) -> Type {
        if matches!(declared.function.name, "_&&_" | "_||_") {
            return self.logical(id, declared, args);
        }
        let types: Vec<Type> = target.into_iter().chain(args).map(|arg| self.ty(arg)).collect();
        let mut result: Option<Type> = None;
        for overload in declared.overloads.iter().filter(|overload| overload.member == target.is_some()) {
            if overload.args.len() != types.len() {
                continue;
            }
            let (candidates, candidate_result) = self.unifier.instantiate(overload);
            if !self.unifier.all_assignable(&types, &candidates) {
                continue;
            }
            self.overloads.entry(id).or_default().push(overload.id);
            let fits = self.unifier.resolve(&candidate_result);
            result = Some(match result {
                None => fits,
                Some(Type::Dyn) => Type::Dyn,
                Some(first) if first == fits => first,
                Some(_) => Type::Dyn,
            });
        }
        result.unwrap_or_else(|| {
            let mut types = types.iter().map(|ty| self.unifier.finish(ty));
            let target = target.and_then(|_| types.next()).map_or_else(String::new, |ty| format!("{ty}."));
            let args: Vec<String> = types.map(|ty| ty.to_string()).collect();
            let name = declared.function.name;
            let message = format!("found no matching overload for '{name}' applied to '{target}({})'", args.join(", "));
            self.fault(at, message);
            Type::Error
        })
    }

    fn logical(&mut self, id: usize, declared: &'static Declared, args: &[Expr]) -> Type {
        self.overloads.insert(id, declared.overloads.iter().map(|overload| overload.id).collect());
        let mut result = Type::Bool;
        for arg in args {
            if !self.must_be(arg, &Type::Bool) {
                result = Type::Error;
            }
        }
        result
    }

    fn must_be(&mut self, expr: &Expr, expected: &Type) -> bool {
        let found = self.ty(expr);
        let fits = self.unifier.assignable(&found, expected);
        if !fits {
            self.mismatch(expr.at, expected, &found);
        }
        fits
    }

    fn mismatch(&mut self, at: usize, expected: &Type, found: &Type) {
        let (expected, found) = (self.unifier.resolve(expected), self.unifier.resolve(found));
        self.fault(at, format!("expected type '{expected}' but found '{found}'"));
    }

    /// The type of an optional item, which must be an optional.
    fn optional_item(&mut self, expr: &Expr) -> Type {
        let ty = self.unifier.resolve(&self.ty(expr));
        match ty.unwrap_optional() {
            Some(inner) => inner.clone(),
            None => {
                if !ty.is_dyn_or_error() {
                    self.mismatch(expr.at, &Type::optional(ty.clone()), &ty);
                }
                ty
            }
        }
    }

    /// The type that covers both; an error at `at` when none does.
    fn join(&mut self, at: usize, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else { return current };
        if self.unifier.assignable(&previous, &current) {
            return self.unifier.most_general(previous, current);
        }
        if self.env.mixes_literals() {
            return Type::Dyn;
        }
        self.mismatch(at, &previous, &current);
        Type::Error
    }

    fn list(&mut self, items: &mut [Item]) -> Type {
        let mut joined = None;
        for item in items {
            self.check(&mut item.value);
            let ty = if item.optional { self.optional_item(&item.value) } else { self.ty(&item.value) };
            joined = Some(self.join(item.value.at, joined, ty));
        }
        Type::list(joined.unwrap_or_else(|| self.unifier.var()))
    }

    fn map(&mut self, entries: &mut [Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            self.check(&mut entry.key);
            let key = self.ty(&entry.key);
            keys = Some(self.join(entry.key.at, keys, key));
            self.check(&mut entry.value);
            let value = if entry.optional { self.optional_item(&entry.value) } else { self.ty(&entry.value) };
            values = Some(self.join(entry.value.at, values, value));
        }
        let keys = keys.unwrap_or_else(|| self.unifier.var());
        Type::map(keys, values.unwrap_or_else(|| self.unifier.var()))
    }

    fn object(&mut self, at: usize, name: &mut Box<str>, fields: &mut [FieldInit]) -> Type {
        let full: Box<str> = name.trim_start_matches('.').into();
        let ty = match self.env.type_named(&full) {
            Some(ty @ Type::Object(_)) => ty,
            Some(other) => {
                self.fault(at, format!("'{}' is not a message type", other.runtime_name()));
                Type::Error
            }
            None if self.env.ident(&full).is_some() => {
                self.fault(at, format!("'{full}' is not a type"));
                Type::Error
            }
            None => return self.undeclared(at, &name.clone()),
        };
        *name = full;
        for field in fields {
            self.check(&mut field.value);
            let expected = match self.env.field(name, &field.name) {
                Some(Some(expected)) => expected,
                Some(None) => {
                    self.fault(field.at, format!("undefined field '{}'", field.name));
                    Type::Error
                }
                None => Type::Error,
            };
            let found = if field.optional { self.optional_item(&field.value) } else { self.ty(&field.value) };
            if !self.unifier.assignable(&expected, &found) {
                let found = self.unifier.resolve(&found);
                let name = &field.name;
                let message = format!("expected type of field '{name}' is '{expected}' but provided type is '{found}'");
                self.fault(field.at, message);
            }
        }
        ty
    }

    /// What two variables over a range are, and what one alone is.
    fn range_types(&mut self, range: &Expr) -> (Type, Type, Type) {
        match self.unifier.resolve(&self.ty(range)) {
            Type::List(item) => (Type::Int, (*item).clone(), (*item).clone()),
            Type::Map(entry) => (entry.0.clone(), entry.1.clone(), entry.0.clone()),
            any @ (Type::Dyn | Type::Error | Type::Var(_)) => {
                self.unifier.assignable(&Type::Dyn, &any);
                (Type::Dyn, Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.fault(range.at, message);
                (Type::Error, Type::Error, Type::Error)
            }
        }
    }

    fn fold(&mut self, fold: &mut Fold) -> Type {
        self.check(&mut fold.range);
        self.check(&mut fold.init);
        let accu_type = self.ty(&fold.init);
        let (first, second, single) = self.range_types(&fold.range);
        let outer = self.locals.len();
        self.locals.push((fold.accu.clone(), accu_type.clone()));
        match &fold.var2 {
            None => self.locals.push((fold.var.clone(), single)),
            Some(var2) => {
                self.locals.push((fold.var.clone(), first));
                self.locals.push((var2.clone(), second));
            }
        }
        self.check(&mut fold.condition);
        self.must_be(&fold.condition, &Type::Bool);
        self.check(&mut fold.step);
        let step = self.ty(&fold.step);
        if !self.unifier.assignable(&accu_type, &step) {
            self.mismatch(fold.step.at, &accu_type, &step);
        }
        self.locals.truncate(outer + 1);
        self.check(&mut fold.result);
        self.locals.truncate(outer);
        self.unifier.resolve(&self.ty(&fold.result))
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::Str(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
