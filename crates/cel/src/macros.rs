//! Macros: calls that become something else before anything is checked.

use crate::ast::{ACCUMULATOR, Expr, Fold, Item, Kind, Literal, UNUSED};
use crate::error::Fault;
use crate::parser::{Abort, Parser};

/// The expanded macro, or the target and arguments given back because the call is none.
pub(crate) type Expansion = Result<Expr, (Option<Expr>, Vec<Expr>)>;

/// Expands `target.name(args)` (or `name(args)`) when that is a macro. `at` is the opening parenthesis.
pub(crate) fn expand(
    parser: &mut Parser,
    at: usize,
    name: &str,
    target: Option<Expr>,
    args: Vec<Expr>,
) -> Result<Expansion, Abort> {
    let mut make = Make { parser, at };
    let Some(target) = target else {
        return match (name, args.len()) {
            ("has", 1) => make.has(args).map(Ok),
            _ => Ok(Err((None, args))),
        };
    };
    let expanded = match (name, args.len()) {
        ("all" | "exists" | "exists_one" | "existsOne", 2 | 3) => make.quantifier(name, target, args),
        ("map", 2 | 3) | ("filter", 2) | ("transformList", 3 | 4) => make.list(name, target, args),
        ("transformMap" | "transformMapEntry", 3 | 4) => make.map(name, target, args),
        ("sortBy", 2) => make.sort_by(target, args),
        ("optMap" | "optFlatMap", 2) => make.optional(name, target, args),
        _ => return Ok(Err((Some(target), args))),
    };
    expanded.map(Ok)
}

const NOT_SIMPLE: &str = "argument must be a simple name";

struct Make<'p> {
    parser: &'p mut Parser,
    at: usize,
}

type Made = Result<Expr, Abort>;

/// The variables of a macro: one, or key and value.
struct Vars {
    first: Box<str>,
    second: Option<Box<str>>,
}

impl Make<'_> {
    fn literal(&mut self, literal: Literal) -> Made {
        self.parser.make(self.at, Kind::Literal(literal))
    }

    fn accu(&mut self) -> Made {
        self.ident(ACCUMULATOR)
    }

    fn ident(&mut self, name: &str) -> Made {
        self.parser.make(self.at, Kind::Ident(name.into()))
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Made {
        self.parser.call(self.at, function, args)
    }

    fn member(&mut self, target: Expr, function: &str) -> Made {
        self.parser
            .make(self.at, Kind::Call { function: function.into(), target: Some(Box::new(target)), args: Vec::new() })
    }

    fn has(&mut self, mut args: Vec<Expr>) -> Made {
        let arg = args.pop().ok_or(Abort)?;
        match arg.kind {
            Kind::Select { operand, field, .. } => {
                self.parser.make(self.at, Kind::Select { operand, field, test: true })
            }
            _ => Err(self.wrong(arg.at, "invalid argument to has() macro")),
        }
    }

    fn wrong(&mut self, at: usize, message: impl Into<String>) -> Abort {
        self.parser.faults.push(Fault::new(at, message));
        Abort
    }

    fn variable(&mut self, expr: &Expr, otherwise: &str) -> Result<Box<str>, Abort> {
        match &expr.kind {
            Kind::Ident(name) if &**name == "__result__" => {
                Err(self.wrong(expr.at, "iteration variable overwrites accumulator variable"))
            }
            Kind::Ident(name) if !name.starts_with('.') => Ok(name.clone()),
            _ => Err(self.wrong(expr.at, otherwise)),
        }
    }

    /// Takes the variables off the front of `args`.
    fn variables(&mut self, args: &mut Vec<Expr>, two: bool) -> Result<Vars, Abort> {
        let first = args.remove(0);
        let name = self.variable(&first, NOT_SIMPLE)?;
        if !two {
            return Ok(Vars { first: name, second: None });
        }
        let second = args.remove(0);
        let other = self.variable(&second, NOT_SIMPLE)?;
        if name == other {
            return Err(self.wrong(second.at, format!("duplicate variable name: {other}")));
        }
        Ok(Vars { first: name, second: Some(other) })
    }

    fn fold(&mut self, range: Expr, vars: Vars, init: Expr, condition: Expr, step: Expr, result: Expr) -> Made {
        let fold =
            Fold { range, var: vars.first, var2: vars.second, accu: ACCUMULATOR.into(), init, condition, step, result };
        self.parser.make(self.at, Kind::Fold(Box::new(fold)))
    }

    fn quantifier(&mut self, name: &str, range: Expr, mut args: Vec<Expr>) -> Made {
        let two = args.len() == 3;
        let vars = self.variables(&mut args, two)?;
        let predicate = args.remove(0);
        let accu = self.accu()?;
        match name {
            "all" => {
                let init = self.literal(Literal::Bool(true))?;
                let condition = self.call("@not_strictly_false", vec![accu])?;
                let accu = self.accu()?;
                let step = self.call("_&&_", vec![accu, predicate])?;
                let result = self.accu()?;
                self.fold(range, vars, init, condition, step, result)
            }
            "exists" => {
                let init = self.literal(Literal::Bool(false))?;
                let not = self.call("!_", vec![accu])?;
                let condition = self.call("@not_strictly_false", vec![not])?;
                let accu = self.accu()?;
                let step = self.call("_||_", vec![accu, predicate])?;
                let result = self.accu()?;
                self.fold(range, vars, init, condition, step, result)
            }
            _ => {
                let init = self.literal(Literal::Int(0))?;
                let condition = self.literal(Literal::Bool(true))?;
                let one = self.literal(Literal::Int(1))?;
                let more = self.call("_+_", vec![accu, one])?;
                let accu = self.accu()?;
                let step = self.call("_?_:_", vec![predicate, more, accu])?;
                let (accu, one) = (self.accu()?, self.literal(Literal::Int(1))?);
                let result = self.call("_==_", vec![accu, one])?;
                self.fold(range, vars, init, condition, step, result)
            }
        }
    }

    fn list(&mut self, name: &str, range: Expr, mut args: Vec<Expr>) -> Made {
        let two = name == "transformList";
        let vars = if two {
            self.variables(&mut args, two)?
        } else {
            let var = args.remove(0);
            Vars { first: self.variable(&var, "argument is not an identifier")?, second: None }
        };
        let last = args.pop().ok_or(Abort)?;
        let (filter, item) = match name {
            "filter" => (Some(last), self.ident(&vars.first)?),
            _ => (args.pop(), last),
        };
        let one = self.parser.make(self.at, Kind::List(vec![Item { value: item, optional: false }]))?;
        let accu = self.accu()?;
        let step = self.call("_+_", vec![accu, one])?;
        let step = self.filtered(filter, step)?;
        let init = self.parser.make(self.at, Kind::List(Vec::new()))?;
        let condition = self.literal(Literal::Bool(true))?;
        let result = self.accu()?;
        self.fold(range, vars, init, condition, step, result)
    }

    fn filtered(&mut self, filter: Option<Expr>, step: Expr) -> Made {
        let Some(filter) = filter else { return Ok(step) };
        let accu = self.accu()?;
        self.call("_?_:_", vec![filter, step, accu])
    }

    fn map(&mut self, name: &str, range: Expr, mut args: Vec<Expr>) -> Made {
        let vars = self.variables(&mut args, true)?;
        let value = args.pop().ok_or(Abort)?;
        let filter = args.pop();
        let accu = self.accu()?;
        let step = if name == "transformMap" {
            let key = self.ident(&vars.first)?;
            self.call("cel.@mapInsert", vec![accu, key, value])?
        } else {
            self.call("cel.@mapInsert", vec![accu, value])?
        };
        let step = self.filtered(filter, step)?;
        let init = self.parser.make(self.at, Kind::Map(Vec::new()))?;
        let condition = self.literal(Literal::Bool(true))?;
        let result = self.accu()?;
        self.fold(range, vars, init, condition, step, result)
    }

    /// `optMap` and `optFlatMap`: the target is evaluated once, its value under the variable's name.
    fn optional(&mut self, name: &str, target: Expr, mut args: Vec<Expr>) -> Made {
        let result = args.pop().ok_or(Abort)?;
        let var = args.pop().ok_or(Abort)?;
        let var = match &var.kind {
            Kind::Ident(name) => name.clone(),
            _ => return Err(self.wrong(var.at, format!("{name}() variable name must be a simple identifier"))),
        };
        let simple = matches!(target.kind, Kind::Ident(_) | Kind::Select { .. });
        let (subject, bound) = if simple { (target, None) } else { (self.ident("@target")?, Some(target)) };
        let renumbered = self.copy(&subject)?;
        let has = self.member(subject, "hasValue")?;
        let value = self.member(renumbered, "value")?;
        let body = self.bind(&var, value, result)?;
        let some = if name == "optMap" { self.call("optional.of", vec![body])? } else { body };
        let none = self.call("optional.none", Vec::new())?;
        let choice = self.call("_?_:_", vec![has, some, none])?;
        match bound {
            Some(target) => self.bind("@target", target, choice),
            None => Ok(choice),
        }
    }

    /// `list.sortBy(x, key)`: sorts by the list of keys, the list itself being evaluated once.
    fn sort_by(&mut self, list: Expr, args: Vec<Expr>) -> Made {
        const INPUT: &str = "@__sortBy_input__";
        let input = self.ident(INPUT)?;
        let keys = self.list("map", input, args)?;
        let input = self.ident(INPUT)?;
        let sorted =
            Kind::Call { function: "@sortByAssociatedKeys".into(), target: Some(Box::new(input)), args: vec![keys] };
        let sorted = self.parser.make(self.at, sorted)?;
        self.bind(INPUT, list, sorted)
    }

    /// The same expression under new numbers.
    fn copy(&mut self, expr: &Expr) -> Made {
        let kind = match &expr.kind {
            Kind::Select { operand, field, test } => {
                Kind::Select { operand: Box::new(self.copy(operand)?), field: field.clone(), test: *test }
            }
            Kind::Call { function, target, args } => Kind::Call {
                function: function.clone(),
                target: target.as_ref().map(|target| self.copy(target).map(Box::new)).transpose()?,
                args: args.iter().map(|arg| self.copy(arg)).collect::<Result<_, _>>()?,
            },
            other => other.clone(),
        };
        // What is neither a name nor a chain of selections is bound, not copied.
        self.parser.make(expr.at, kind)
    }

    fn bind(&mut self, var: &str, value: Expr, result: Expr) -> Made {
        let range = self.parser.make(self.at, Kind::List(Vec::new()))?;
        let condition = self.literal(Literal::Bool(false))?;
        let step = self.ident(var)?;
        let fold =
            Fold { range, var: UNUSED.into(), var2: None, accu: var.into(), init: value, condition, step, result };
        self.parser.make(self.at, Kind::Fold(Box::new(fold)))
    }
}
