//! A checked tree made ready to run: names become slots, calls their functions, constant parts values.

use std::collections::HashMap;

use regex::Regex;

use crate::ast::{Expr, Fold, Kind, Literal};
use crate::charge::{self, Charge};
use crate::check::Checked;
use crate::env::Env;
use crate::error::Fault;
use crate::library;
use crate::program::{FoldNode, Node};
use crate::value::{Map, MapKey, Value};

struct Planner<'c> {
    env: &'c Env,
    checked: &'c Checked,
    /// Names of macros' variables, by slot.
    locals: Vec<Box<str>>,
    regexes: HashMap<Box<str>, Regex>,
}

/// The program of a tree, and the patterns in it.
pub(crate) fn plan(env: &Env, expr: &Expr, checked: &Checked) -> Result<(Node, HashMap<Box<str>, Regex>), Fault> {
    let mut planner = Planner { env, checked, locals: Vec::new(), regexes: HashMap::new() };
    let node = planner.node(expr)?;
    Ok((node, planner.regexes))
}

/// Conversions upstream does once when all they convert is constant.
const CONVERSIONS: &[&str] = &["bool", "bytes", "double", "duration", "int", "string", "timestamp", "uint"];

impl Planner<'_> {
    fn node(&mut self, expr: &Expr) -> Result<Node, Fault> {
        Ok(match &expr.kind {
            Kind::Literal(literal) => Node::Const(constant(literal)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, test } => {
                let (operand, field) = (Box::new(self.node(operand)?), field.clone());
                if *test { Node::Has { operand, field } } else { Node::Select { operand, field, optional: false } }
            }
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args)?,
            Kind::List(items) => {
                let nodes = items.iter().map(|item| Ok((self.node(&item.value)?, item.optional)));
                let nodes = nodes.collect::<Result<Vec<_>, Fault>>()?;
                constant_list(&nodes).map_or(Node::List(nodes), Node::Const)
            }
            Kind::Map(entries) => {
                let nodes =
                    entries.iter().map(|entry| Ok((self.node(&entry.key)?, self.node(&entry.value)?, entry.optional)));
                let nodes = nodes.collect::<Result<Vec<_>, Fault>>()?;
                constant_map(&nodes).map_or(Node::Map(nodes), Node::Const)
            }
            Kind::Struct { name, fields } => {
                let fields = fields
                    .iter()
                    .map(|field| Ok((std::sync::Arc::from(&*field.name), self.node(&field.value)?, field.optional)));
                Node::Object { name: (&**name).into(), fields: fields.collect::<Result<_, Fault>>()? }
            }
            Kind::Fold(fold) => self.fold(fold)?,
        })
    }

    fn slot(&self, name: &str) -> Option<usize> {
        self.locals.iter().rposition(|local| **local == *name)
    }

    fn ident(&self, name: &str) -> Node {
        if let Some(slot) = self.slot(name) {
            return Node::Local(slot);
        }
        let name = name.trim_start_matches('.');
        if self.env.is_variable(name) {
            return Node::Global(name.into());
        }
        match self.env.type_named(name) {
            Some(ty) => Node::Const(Value::Type(ty)),
            None => Node::Global(name.into()),
        }
    }

    fn nodes(&mut self, exprs: &[Expr]) -> Result<Vec<Node>, Fault> {
        exprs.iter().map(|expr| self.node(expr)).collect()
    }

    fn call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) -> Result<Node, Fault> {
        match (function, args) {
            ("_&&_", terms) => return Ok(Node::And(self.nodes(terms)?)),
            ("_||_", terms) => return Ok(Node::Or(self.nodes(terms)?)),
            ("_?_:_", [condition, yes, no]) => {
                return Ok(Node::If(Box::new([self.node(condition)?, self.node(yes)?, self.node(no)?])));
            }
            ("@not_strictly_false", [operand]) => return Ok(Node::NotStrictlyFalse(Box::new(self.node(operand)?))),
            ("_?._", [operand, field]) => {
                let field = field.as_str().unwrap_or_default().into();
                return Ok(Node::Select { operand: Box::new(self.node(operand)?), field, optional: true });
            }
            ("_[_]" | "_[?_]", [operand, index]) => {
                let (operand, index) = (Box::new(self.node(operand)?), Box::new(self.node(index)?));
                return Ok(Node::Index { operand, index, optional: function == "_[?_]" });
            }
            ("cel.@mapInsert", [accu, rest @ .., value]) => {
                if let Kind::Ident(name) = &accu.kind
                    && let Some(slot) = self.slot(name)
                {
                    let key = rest.first().map(|key| self.node(key).map(Box::new)).transpose()?;
                    return Ok(Node::Insert { slot, key, value: Box::new(self.node(value)?) });
                }
            }
            // What a macro adds to its accumulator.
            ("_+_", [accu, one]) => {
                if let (Kind::Ident(name), Kind::List(items)) = (&accu.kind, &one.kind)
                    && &**name == crate::ast::ACCUMULATOR
                    && let (Some(slot), [item]) = (self.slot(name), items.as_slice())
                {
                    return Ok(Node::Append { slot, item: Box::new(self.node(&item.value)?) });
                }
            }
            _ => {}
        }
        let Some(declared) = self.env.function(function) else {
            return Err(Fault::new(expr.at, format!("undeclared reference to '{function}' (in container '')")));
        };
        let mut nodes = Vec::with_capacity(args.len() + 1);
        if let Some(target) = target {
            nodes.push(self.node(target)?);
        }
        nodes.extend(self.nodes(args)?);
        self.pattern(function, target.is_some(), args);
        let overload = match self.checked.overloads(expr) {
            [one] => Some(*one),
            _ => None,
        };
        let constant = |node: &Node| matches!(node, Node::Const(_));
        let mut rule = charge::rule(function, overload);
        let folded = match function {
            "@in" => nodes.get(1).is_some_and(|list| matches!(list, Node::Const(Value::List(_)))),
            name => CONVERSIONS.contains(&name) && nodes.iter().all(constant),
        };
        if folded {
            rule = Charge::Fixed(0);
        }
        Ok(Node::Call { name: declared.function.name, native: declared.function.native, charge: rule, args: nodes })
    }

    /// Compiles the pattern of a call when it is in the expression. A bad one has been reported.
    fn pattern(&mut self, function: &str, member: bool, args: &[Expr]) {
        if !matches!(function, "matches" | "find" | "findAll") {
            return;
        }
        if let Some(pattern) = args.get(usize::from(!member)).and_then(Expr::as_str)
            && let Ok(regex) = library::regex::compile(pattern)
        {
            self.regexes.insert(pattern.into(), regex);
        }
    }

    fn fold(&mut self, fold: &Fold) -> Result<Node, Fault> {
        let outer = self.locals.len();
        let init = self.node(&fold.init)?;
        if fold.is_bind() {
            self.locals.push(fold.accu.clone());
            let result = self.node(&fold.result);
            self.locals.truncate(outer);
            return Ok(Node::Bind(Box::new([init, result?])));
        }
        let range = self.node(&fold.range)?;
        self.locals.push(fold.accu.clone());
        self.locals.push(fold.var.clone());
        self.locals.extend(fold.var2.clone());
        let condition = match &fold.condition.kind {
            Kind::Literal(Literal::Bool(true)) => None,
            _ => Some(self.node(&fold.condition)?),
        };
        let step = self.node(&fold.step)?;
        self.locals.truncate(outer + 1);
        let result = self.node(&fold.result)?;
        self.locals.truncate(outer);
        Ok(Node::Fold(Box::new(FoldNode { range, two: fold.var2.is_some(), init, condition, step, result })))
    }
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(number) => Value::Int(*number),
        Literal::Uint(number) => Value::Uint(*number),
        Literal::Double(number) => Value::Double(*number),
        Literal::Str(text) => Value::text(&**text),
        Literal::Bytes(octets) => Value::Bytes((**octets).into()),
    }
}

fn constant_list(nodes: &[(Node, bool)]) -> Option<Value<'static>> {
    let values = nodes.iter().map(|node| match node {
        (Node::Const(value), false) => Some(value.clone()),
        _ => None,
    });
    Some(Value::list(values.collect::<Option<_>>()?))
}

fn constant_map(nodes: &[(Node, Node, bool)]) -> Option<Value<'static>> {
    let mut values = std::collections::BTreeMap::new();
    for node in nodes {
        let (Node::Const(key), Node::Const(value), false) = node else { return None };
        if matches!(key, Value::Double(_)) || values.insert(MapKey::of(key)?, value.clone()).is_some() {
            return None;
        }
    }
    Some(Value::Map(Map::Values(std::sync::Arc::new(values))))
}
