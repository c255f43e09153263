//! A compiled expression and its evaluation.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use regex::Regex;

use crate::authorizer::Authorizer;
use crate::charge::{Charge, charge};
use crate::error::EvalError;
use crate::estimate::CostEstimate;
use crate::library::Native;
use crate::ops;
use crate::types::Type;
use crate::value::{List, Map, MapKey, Object, Value};

/// The most one evaluation of one expression may cost. The number of upstream: some tenth of a second.
pub const PER_CALL_LIMIT: u64 = 1_000_000;

/// The most all expressions of one policy binding or of one custom resource may cost together. The number of
/// upstream: some second.
pub const RUNTIME_BUDGET: u64 = 10_000_000;

/// The most all matchConditions of one webhook or policy may cost together. The number of upstream.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;

/// The longest text a messageExpression may give, in bytes. The number of upstream.
pub const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// Gives variables their values.
pub trait Activation<'a> {
    /// The value of a variable of the environment; `None` when it has none.
    fn variable(&self, name: &str) -> Option<Result<Value<'a>, EvalError>>;
}

/// Variables with their values at hand.
#[derive(Clone, Debug, Default)]
pub struct Vars<'a>(BTreeMap<&'static str, Value<'a>>);

impl<'a> Vars<'a> {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value<'a>) -> Self {
        self.0.insert(name, value);
        self
    }
}

impl<'a> Activation<'a> for Vars<'a> {
    fn variable(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        self.0.get(name).cloned().map(Ok)
    }
}

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    source: Box<str>,
    root: Node,
    output: Type,
    cost: CostEstimate,
    /// The patterns that stand in the expression, compiled.
    regexes: HashMap<Box<str>, Regex>,
}

/// What an evaluation gave and what it cost.
#[derive(Clone, Debug)]
pub struct Outcome<'a> {
    /// The value, or why there is none.
    pub value: Result<Value<'a>, EvalError>,
    /// In upstream's units.
    pub cost: u64,
}

#[derive(Debug)]
pub(crate) enum Node {
    Const(Value<'static>),
    Global(Box<str>),
    Local(usize),
    Select {
        operand: Box<Node>,
        field: Box<str>,
        optional: bool,
    },
    Has {
        operand: Box<Node>,
        field: Box<str>,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
        optional: bool,
    },
    Call {
        name: &'static str,
        native: Native,
        charge: Charge,
        args: Vec<Node>,
    },
    And(Vec<Node>),
    Or(Vec<Node>),
    If(Box<[Node; 3]>),
    NotStrictlyFalse(Box<Node>),
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Object {
        name: Arc<str>,
        fields: Vec<(Arc<str>, Node, bool)>,
    },
    Bind(Box<[Node; 2]>),
    Fold(Box<FoldNode>),
    /// `accu + [item]` on an accumulator nobody else holds.
    Append {
        slot: usize,
        item: Box<Node>,
    },
    /// `cel.@mapInsert(accu, key, value)`, or of the entries of a map when there is no key.
    Insert {
        slot: usize,
        key: Option<Box<Node>>,
        value: Box<Node>,
    },
}

#[derive(Debug)]
pub(crate) struct FoldNode {
    pub(crate) range: Node,
    pub(crate) two: bool,
    pub(crate) init: Node,
    /// `None` when it is always true.
    pub(crate) condition: Option<Node>,
    pub(crate) step: Node,
    pub(crate) result: Node,
}

impl Node {
    /// Whether this is a variable or a way into one: what upstream charges as one attribute.
    fn is_attribute(&self) -> bool {
        matches!(self, Self::Global(_) | Self::Local(_) | Self::Select { .. } | Self::Index { .. })
    }
}

impl Program {
    pub(crate) fn new(
        source: &str,
        planned: (Node, HashMap<Box<str>, Regex>),
        output: Type,
        cost: CostEstimate,
    ) -> Self {
        let (root, regexes) = planned;
        Self { source: source.into(), root, output, cost, regexes }
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The type of its value.
    pub const fn output_type(&self) -> &Type {
        &self.output
    }

    /// What it can cost at most, by the sizes its environment declares.
    pub const fn cost(&self) -> CostEstimate {
        self.cost
    }

    /// Evaluates with `vars`. Work beyond `limit` ends it with [`EvalError::CostExceeded`].
    pub fn eval<'a>(
        &'a self,
        vars: &dyn Activation<'a>,
        authorizer: Option<&dyn Authorizer>,
        limit: u64,
    ) -> Outcome<'a> {
        let mut run = Run { vars, authorizer, program: self, locals: Vec::new(), cost: 0, limit };
        let value = run.eval(&self.root);
        Outcome { value, cost: run.cost }
    }

    pub(crate) fn regex(&self, pattern: &str) -> Option<&Regex> {
        self.regexes.get(pattern)
    }
}

/// One evaluation under way.
pub(crate) struct Run<'r, 'a> {
    vars: &'r dyn Activation<'a>,
    pub(crate) authorizer: Option<&'r dyn Authorizer>,
    pub(crate) program: &'a Program,
    locals: Vec<Evaluated<'a>>,
    cost: u64,
    limit: u64,
}

type Evaluated<'a> = Result<Value<'a>, EvalError>;

/// The base cost of making a list, a map, an object.
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const OBJECT_COST: u64 = 40;

impl<'a> Run<'_, 'a> {
    pub(crate) fn pay(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::CostExceeded) } else { Ok(()) }
    }

    /// Whether work that grows with the square of `size` is within the limit.
    pub(crate) fn afford(&self, size: u64) -> Result<(), EvalError> {
        let work = size.saturating_mul(size).saturating_mul(2);
        if self.cost.saturating_add(work) > self.limit { Err(EvalError::CostExceeded) } else { Ok(()) }
    }

    fn eval(&mut self, node: &'a Node) -> Evaluated<'a> {
        if node.is_attribute() {
            let value = self.attribute(node)?;
            self.pay(1)?;
            return Ok(value);
        }
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Has { operand, field } => self.has(operand, field),
            Node::Call { name, native, charge, args } => self.call(name, *native, *charge, args),
            Node::And(terms) => self.logical(terms, false),
            Node::Or(terms) => self.logical(terms, true),
            Node::If(parts) => self.choose(parts),
            Node::NotStrictlyFalse(operand) => {
                let value = match self.eval(operand) {
                    Err(EvalError::CostExceeded) => return Err(EvalError::CostExceeded),
                    Ok(Value::Bool(value)) => value,
                    _ => true,
                };
                self.pay(1)?;
                Ok(Value::Bool(value))
            }
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Object { name, fields } => self.object(name, fields),
            Node::Bind(parts) => {
                let value = self.eval(&parts[0]);
                if matches!(value, Err(EvalError::CostExceeded)) {
                    return value;
                }
                self.locals.push(value);
                let result = self.eval(&parts[1]);
                self.locals.pop();
                result
            }
            Node::Fold(fold) => self.fold(fold),
            Node::Append { slot, item } => self.append(*slot, item),
            Node::Insert { slot, key, value } => self.insert(*slot, key.as_deref(), value),
            _ => self.attribute(node),
        }
    }

    /// A variable or a way into one, without the charge for the whole.
    fn attribute(&mut self, node: &'a Node) -> Evaluated<'a> {
        match node {
            Node::Global(name) => match self.vars.variable(name) {
                Some(value) => value,
                None => Err(EvalError::failed(format!("no such attribute(s): {name}"))),
            },
            Node::Local(slot) => self.locals[*slot].clone(),
            Node::Select { operand, field, optional } => {
                let operand = self.operand(operand)?;
                self.pay(1)?;
                self.step_into(operand, *optional, |value| ops::select(value, field), field)
            }
            Node::Index { operand, index, optional } => {
                let operand = self.operand(operand)?;
                let index = self.operand(index)?;
                self.pay(1)?;
                self.step_into(operand, *optional, |value| ops::find(value, &index), &index)
            }
            other => self.eval(other),
        }
    }

    fn operand(&mut self, node: &'a Node) -> Evaluated<'a> {
        if node.is_attribute() { self.attribute(node) } else { self.eval(node) }
    }

    /// Looks for `what` in `operand`, through an optional when it is one.
    fn step_into(
        &self,
        operand: Value<'a>,
        optional: bool,
        find: impl Fn(&Value<'a>) -> Result<Option<Evaluated<'a>>, EvalError>,
        what: &dyn std::fmt::Display,
    ) -> Evaluated<'a> {
        let (inner, optional) = match &operand {
            Value::Optional(None) => return Ok(operand),
            Value::Optional(Some(inner)) => (&**inner, true),
            value => (value, optional),
        };
        match (find(inner)?, optional) {
            (Some(value), false) => value,
            (Some(value), true) => Ok(Value::some(value?)),
            (None, true) => Ok(Value::Optional(None)),
            (None, false) => Err(EvalError::failed(match inner {
                Value::List(_) => format!("index out of bounds: {what}"),
                _ => format!("no such key: {what}"),
            })),
        }
    }

    fn has(&mut self, operand: &'a Node, field: &str) -> Evaluated<'a> {
        let operand = self.eval(operand)?;
        let inner = match &operand {
            Value::Optional(None) => return Ok(Value::Bool(false)),
            Value::Optional(Some(inner)) => &**inner,
            value => value,
        };
        let found = match (ops::select(inner, field)?, inner) {
            (Some(value), Value::Object(object)) if &*object.name == "JSONPatch" => value?.as_str() != Some(""),
            (Some(value), _) => {
                value?;
                true
            }
            (None, _) => false,
        };
        Ok(Value::Bool(found))
    }

    fn call(&mut self, name: &'static str, native: Native, rule: Charge, args: &'a [Node]) -> Evaluated<'a> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.eval(arg)?);
        }
        let result = match native(self, &values) {
            Err(EvalError::Failed(message)) if &*message == "no such overload" => {
                Err(EvalError::failed(format!("no such overload: {name}")))
            }
            other => other,
        }?;
        self.pay(charge(rule, &values, &result))?;
        Ok(result)
    }

    /// `||` and `&&`: `deciding` settles it whatever the others are, errors included.
    fn logical(&mut self, terms: &'a [Node], deciding: bool) -> Evaluated<'a> {
        let mut error = None;
        for term in terms {
            match self.eval(term) {
                Ok(Value::Bool(value)) if value == deciding => return Ok(Value::Bool(deciding)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => error = error.or_else(|| Some(EvalError::no_such_overload())),
                Err(EvalError::CostExceeded) => return Err(EvalError::CostExceeded),
                Err(other) => error = error.or(Some(other)),
            }
        }
        error.map_or(Ok(Value::Bool(!deciding)), Err)
    }

    fn choose(&mut self, parts: &'a [Node; 3]) -> Evaluated<'a> {
        let branch = match self.eval(&parts[0])? {
            Value::Bool(true) => &parts[1],
            Value::Bool(false) => &parts[2],
            _ => return Err(EvalError::no_such_overload()),
        };
        // A branch that is an attribute is part of the conditional one.
        self.operand(branch)
    }

    fn optional_entry(&self, value: Value<'a>, what: &str) -> Result<Option<Value<'a>>, EvalError> {
        match value {
            Value::Optional(inner) => Ok(inner.map(Arc::unwrap_or_clone)),
            other => {
                Err(EvalError::failed(format!("cannot initialize optional {what} from non-optional value {other}")))
            }
        }
    }

    fn list(&mut self, items: &'a [(Node, bool)]) -> Evaluated<'a> {
        let mut values = Vec::with_capacity(items.len());
        for (item, optional) in items {
            let value = self.eval(item)?;
            if *optional {
                values.extend(self.optional_entry(value, "list element")?);
            } else {
                values.push(value);
            }
        }
        self.pay(LIST_COST)?;
        Ok(Value::list(values))
    }

    fn map(&mut self, entries: &'a [(Node, Node, bool)]) -> Evaluated<'a> {
        let mut values = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let mut value = self.eval(value)?;
            let Some(map_key) = MapKey::of(&key).filter(|_| !matches!(key, Value::Double(_))) else {
                return Err(EvalError::failed(format!("unsupported key type: {}", key.type_of().runtime_name())));
            };
            if *optional {
                match self.optional_entry(value, &format!("entry '{key}'"))? {
                    Some(inner) => value = inner,
                    None => continue,
                }
            }
            if values.insert(map_key, value).is_some() {
                return Err(EvalError::failed(format!("Failed with repeated key: {key}")));
            }
        }
        self.pay(MAP_COST)?;
        Ok(Value::Map(Map::Values(Arc::new(values))))
    }

    fn object(&mut self, name: &Arc<str>, fields: &'a [(Arc<str>, Node, bool)]) -> Evaluated<'a> {
        let mut values = BTreeMap::new();
        for (field, node, optional) in fields {
            let value = self.eval(node)?;
            let value = if *optional {
                match self.optional_entry(value, &format!("entry '{field}'"))? {
                    Some(inner) => inner,
                    None => continue,
                }
            } else {
                value
            };
            values.insert(Arc::clone(field), value);
        }
        self.pay(OBJECT_COST)?;
        Ok(Value::Object(Arc::new(Object { name: Arc::clone(name), fields: values })))
    }

    fn fold(&mut self, fold: &'a FoldNode) -> Evaluated<'a> {
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init)?;
        let slot = self.locals.len();
        self.locals.push(Ok(init));
        let looped = self.iterate(fold, &range, slot);
        self.locals.truncate(slot + 1);
        let result = looped.and_then(|()| self.eval(&fold.result));
        self.locals.truncate(slot);
        result
    }

    fn iterate(&mut self, fold: &'a FoldNode, range: &Value<'a>, slot: usize) -> Result<(), EvalError> {
        match range {
            Value::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    let index = Value::Int(i64::try_from(index).unwrap_or(i64::MAX));
                    let (first, second) = if fold.two { (Ok(index), Some(item)) } else { (item, None) };
                    if !self.round(fold, slot, first, second)? {
                        break;
                    }
                }
                Ok(())
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let absent = || Err(EvalError::failed(format!("no such key: {key}")));
                    let second = fold.two.then(|| map.get(&key).unwrap_or_else(absent));
                    if !self.round(fold, slot, Ok(key), second)? {
                        break;
                    }
                }
                Ok(())
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }

    /// One step over one item; whether there is to be another.
    fn round(
        &mut self,
        fold: &'a FoldNode,
        slot: usize,
        first: Evaluated<'a>,
        second: Option<Evaluated<'a>>,
    ) -> Result<bool, EvalError> {
        self.locals.push(first);
        self.locals.extend(second);
        if let Some(condition) = &fold.condition
            && let Value::Bool(false) = self.eval(condition)?
        {
            self.locals.truncate(slot + 1);
            return Ok(false);
        }
        let accu = self.eval(&fold.step);
        self.locals.truncate(slot + 1);
        let failed = accu.is_err();
        if matches!(accu, Err(EvalError::CostExceeded)) {
            return Err(EvalError::CostExceeded);
        }
        self.locals[slot] = accu;
        // Without a condition an error is there to stay.
        Ok(!(failed && fold.condition.is_none()))
    }

    fn take(&mut self, slot: usize) -> Evaluated<'a> {
        std::mem::replace(&mut self.locals[slot], Ok(Value::Null))
    }

    fn append(&mut self, slot: usize, item: &'a Node) -> Evaluated<'a> {
        let item = self.eval(item)?;
        let mut accu = self.take(slot)?;
        // An identifier, a list of one, and their sum.
        self.pay(1 + LIST_COST + 1)?;
        match &mut accu {
            Value::List(List::Values(items)) if items.len() < ops::LIST_ITEMS_MAX => Arc::make_mut(items).push(item),
            Value::List(_) => return Err(EvalError::CostExceeded),
            _ => return Err(EvalError::no_such_overload()),
        }
        Ok(accu)
    }

    fn insert(&mut self, slot: usize, key: Option<&'a Node>, value: &'a Node) -> Evaluated<'a> {
        let key = key.map(|key| self.eval(key)).transpose()?;
        let value = self.eval(value)?;
        let mut accu = self.take(slot)?;
        self.pay(2)?;
        match (key, value) {
            (Some(key), value) => ops::insert(&mut accu, &key, value)?,
            (None, Value::Map(entries)) => {
                for key in entries.keys() {
                    if let Some(value) = entries.get(&key) {
                        ops::insert(&mut accu, &key, value?)?;
                    }
                }
            }
            _ => return Err(EvalError::no_such_overload()),
        }
        Ok(accu)
    }
}
