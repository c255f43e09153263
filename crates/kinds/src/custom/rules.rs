//! `x-kubernetes-validations`: expressions over objects, with a budget, messages and ratcheting
//! (`apiextensions-apiserver/pkg/apiserver/schema/cel`).

use std::sync::Arc;

use skiff_cel::{
    DeclType, Env, EvalError, MESSAGE_BYTES_MAX, PER_CALL_LIMIT, Program, RUNTIME_BUDGET, Type, Value, Vars,
};
use skiff_object::errors::{BadValue, FieldError, quote};
use skiff_object::{Key, Map, Tree};

use crate::custom::node::{Additional, Node, Rule};
use crate::custom::validate::{NOWHERE, correlated};

/// The rules of a schema, compiled, in the shape of the schema.
pub(crate) struct Rules {
    decl: Option<Arc<DeclType>>,
    rules: Vec<Compiled>,
    properties: Vec<(Key, Rules)>,
    values: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

/// One rule.
pub(crate) struct Compiled {
    rule: Rule,
    pub(crate) program: Result<Program, String>,
    /// `messageExpression`, when there is one.
    pub(crate) message: Option<Result<Program, String>>,
    pub(crate) uses_old: bool,
    /// `fieldPath` as it is appended to the path of the object.
    field: String,
}

/// The type of the data at a node; nothing where expressions cannot look.
pub(crate) fn decl_of(schema: &Tree, root: bool) -> Option<Arc<DeclType>> {
    DeclType::of_schema(schema, "selfType", root).map(Arc::new)
}

/// Compiles one rule over data of a type.
pub(crate) fn compile_rule(rule: &Rule, decl: &Arc<DeclType>) -> Compiled {
    let alone = || Env::kubernetes().declare("self", decl);
    let env = match rule.optional_old_self {
        Some(true) => alone().variable("oldSelf", Type::optional(decl.cel_type().clone())),
        _ => alone().declare("oldSelf", decl),
    };
    let program = env.compile(&rule.rule).map_err(|error| format!("compilation failed: {error}"));
    let program = program.and_then(|program| match program.output_type() {
        Type::Bool => Ok(program),
        _ => Err("cel expression must evaluate to a bool".to_owned()),
    });
    let message = (!rule.message_expression.is_empty()).then(|| {
        let program = env.compile(&rule.message_expression);
        let program = program.map_err(|error| format!("messageExpression compilation failed: {error}"))?;
        match program.output_type() {
            Type::String => Ok(program),
            _ => Err("messageExpression must evaluate to a string".to_owned()),
        }
    });
    // What needs oldSelf does not compile without it.
    let uses_old = program.is_ok() && rule.rule.contains("oldSelf") && alone().compile(&rule.rule).is_err();
    Compiled { field: normalized(&rule.field_path), rule: rule.clone(), program, message, uses_old }
}

/// `.spec['a.b']` as it stands in messages: `spec.a.b`.
fn normalized(path: &str) -> String {
    path.trim_start_matches('.').replace("['", ".").replace("']", "").replace("\\'", "'")
}

impl Rules {
    /// Compiles the rules of a schema; nothing when there are none.
    pub(crate) fn compile(schema: &Tree, node: &Node) -> Option<Self> {
        Self::at(schema, node, true)
    }

    fn at(schema: &Tree, node: &Node, root: bool) -> Option<Self> {
        if !node.has_rules() {
            return None;
        }
        let decl = if node.rules.is_empty() { None } else { decl_of(schema, root) };
        let rules = match &decl {
            Some(decl) => node.rules.iter().map(|rule| compile_rule(rule, decl)).collect(),
            None => Vec::new(),
        };
        let below = |field: &str, node: &Node| schema.get(field).and_then(|schema| Self::at(schema, node, false));
        let property = |(name, node): &(Key, Node)| {
            let schema = schema.at(&["properties", name.as_str()])?;
            Some((name.clone(), Self::at(schema, node, false)?))
        };
        Some(Self {
            decl,
            rules,
            properties: node.properties.iter().filter_map(property).collect(),
            values: match &node.additional {
                Additional::Schema(values) => below("additionalProperties", values).map(Box::new),
                _ => None,
            },
            items: node.items.as_ref().and_then(|items| below("items", items)).map(Box::new),
        })
    }

    /// What rules say of `value`; `old` is what it was before an update, `prefix` the path of the value.
    pub(crate) fn check(&self, value: &Tree, old: Option<&Tree>, node: &Node, prefix: &str) -> Vec<FieldError> {
        let mut run = Run { found: Vec::new(), budget: RUNTIME_BUDGET };
        // An exhausted budget has said so.
        let _ = run.node(self, value, old, node, prefix, None);
        run.found
    }
}

/// A value that could be compared with what it was.
#[derive(Clone, Copy)]
struct Compared<'a> {
    new: &'a Tree,
    old: &'a Tree,
}

struct Run {
    found: Vec<FieldError>,
    budget: u64,
}

/// No more rules are run.
struct Exhausted;

fn shown_path(path: &str) -> &str {
    if path.is_empty() { NOWHERE } else { path }
}

impl Run {
    fn node<'a>(
        &mut self,
        rules: &Rules,
        value: &'a Tree,
        old: Option<&'a Tree>,
        node: &Node,
        path: &str,
        above: Option<Compared<'a>>,
    ) -> Result<(), Exhausted> {
        if value.is_null() {
            return Ok(());
        }
        let nearest = old.map(|old| Compared { new: value, old }).or(above);
        if let Some(decl) = rules.decl.as_deref() {
            for rule in &rules.rules {
                self.rule(rule, decl, value, old.filter(|old| !old.is_null()), node, path, nearest)?;
            }
        }
        match value {
            Tree::Map(map) => self.entries(rules, map, old, node, path, nearest),
            Tree::List(items) => {
                let (Some(rules), Some(item)) = (&rules.items, &node.items) else { return Ok(()) };
                let before = old.and_then(Tree::as_list);
                for (index, value) in items.iter().enumerate() {
                    let old = before.and_then(|before| correlated(value, before, node));
                    self.node(rules, value, old, item, &format!("{path}[{index}]"), nearest)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn entries<'a>(
        &mut self,
        rules: &Rules,
        map: &'a Map,
        old: Option<&'a Tree>,
        node: &Node,
        path: &str,
        nearest: Option<Compared<'a>>,
    ) -> Result<(), Exhausted> {
        let old = old.filter(|_| !node.map_is_atomic);
        let before = |name: &str| old.and_then(|old| old.get(name));
        for (name, below) in &rules.properties {
            let name = name.as_str();
            if let (Some(value), Some(property)) = (map.get(name), node.property(name)) {
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                self.node(below, value, before(name), property, &path, nearest)?;
            }
        }
        if let (Some(below), Additional::Schema(values)) = (&rules.values, &node.additional) {
            for (key, value) in map.iter().filter(|(key, _)| node.property(key.as_str()).is_none()) {
                let key = key.as_str();
                self.node(below, value, before(key), values, &format!("{path}[{key}]"), nearest)?;
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // one place of the walk, with everything known there
    fn rule(
        &mut self,
        compiled: &Compiled,
        decl: &DeclType,
        value: &Tree,
        old: Option<&Tree>,
        node: &Node,
        path: &str,
        nearest: Option<Compared<'_>>,
    ) -> Result<(), Exhausted> {
        let optional = compiled.rule.optional_old_self == Some(true);
        let ty = || BadValue::Text(node.ty.as_str().to_owned());
        let invalid = |why: String| FieldError::invalid(shown_path(path), ty(), why);
        let program = match &compiled.program {
            Ok(program) => program,
            Err(why) => {
                self.found.push(invalid(format!("rule compile error: {why}")));
                return Ok(());
            }
        };
        if compiled.uses_old && old.is_none() && !optional {
            return Ok(());
        }
        let vars = match variables(value, old, decl, optional) {
            Ok(vars) => vars,
            Err(error) => {
                self.found.push(invalid(format!("{error} evaluating rule: {}", compiled.rule.words())));
                return Ok(());
            }
        };
        let outcome = program.eval(&vars, None, PER_CALL_LIMIT);
        if self.pay(outcome.cost).is_err() {
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            self.found.push(invalid(why.into()));
            return Err(Exhausted);
        }
        match outcome.value {
            Ok(Value::Bool(true)) => return Ok(()),
            Ok(_) => {}
            Err(EvalError::CostExceeded) => {
                self.found.push(invalid(format!(
                    "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    EvalError::CostExceeded,
                    compiled.rule.words()
                )));
                return Err(Exhausted);
            }
            Err(error) => {
                let text = error.to_string();
                let words = compiled.rule.words();
                self.found.push(invalid(if text.starts_with("no such overload") {
                    format!(
                        "'{text}': call arguments did not match a supported operator, function or macro signature for \
                         rule: {words}"
                    )
                } else {
                    format!("{text} evaluating rule: {words}")
                }));
                return Ok(());
            }
        }
        // What was so before is not held against an update, unless the rule is about the change.
        if !compiled.uses_old && nearest.is_some_and(|both| both.new == both.old) {
            return Ok(());
        }
        let message = self.message(compiled, &vars, path)?;
        let place = match compiled.field.as_str() {
            "" => path.to_owned(),
            field if path.is_empty() => field.to_owned(),
            field => format!("{path}.{field}"),
        };
        let shown = match value {
            Tree::Map(_) | Tree::List(_) => BadValue::Omitted,
            other => BadValue::from(other),
        };
        self.found.push(failure(&compiled.rule, shown_path(&place), shown, message));
        Ok(())
    }

    fn pay(&mut self, cost: u64) -> Result<(), Exhausted> {
        self.budget = self.budget.checked_sub(cost).ok_or(Exhausted)?;
        Ok(())
    }

    fn message<'a>(&mut self, compiled: &'a Compiled, vars: &Vars<'a>, path: &str) -> Result<String, Exhausted> {
        let Some(Ok(program)) = &compiled.message else { return Ok(compiled.rule.message_or_default()) };
        let outcome = program.eval(vars, None, PER_CALL_LIMIT);
        let expression = quote(&compiled.rule.message_expression);
        let exhausted = if self.pay(outcome.cost).is_err() {
            Some(
                "messageExpression evaluation failed due to running out of cost budget, no further validation rules \
                  will be run"
                    .to_owned(),
            )
        } else if matches!(outcome.value, Err(EvalError::CostExceeded)) {
            Some(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: \
                 {expression}"
            ))
        } else {
            None
        };
        if let Some(why) = exhausted {
            self.found.push(FieldError::invalid(shown_path(path), "", why));
            return Err(Exhausted);
        }
        let text = outcome.value.ok().and_then(|value| value.as_str().map(str::to_owned));
        let usable = |text: &String| {
            let trimmed = text.trim();
            !trimmed.is_empty() && trimmed.len() <= MESSAGE_BYTES_MAX && !trimmed.contains(['\n', '\r'])
        };
        Ok(text.filter(usable).unwrap_or_else(|| compiled.rule.message_or_default()))
    }
}

fn variables<'a>(
    value: &'a Tree,
    old: Option<&'a Tree>,
    decl: &'a DeclType,
    optional: bool,
) -> Result<Vars<'a>, EvalError> {
    let vars = Vars::new().with("self", Value::typed(value, decl)?);
    Ok(match (old, optional) {
        (Some(old), false) => vars.with("oldSelf", Value::typed(old, decl)?),
        (Some(old), true) => vars.with("oldSelf", Value::Optional(Some(Arc::new(Value::typed(old, decl)?)))),
        (None, true) => vars.with("oldSelf", Value::Optional(None)),
        (None, false) => vars,
    })
}

fn failure(rule: &Rule, path: &str, value: BadValue, message: String) -> FieldError {
    match &*rule.reason {
        "FieldValueForbidden" => FieldError::forbidden(path, message),
        "FieldValueRequired" => FieldError::required(path, message),
        "FieldValueDuplicate" => FieldError::duplicate(path, value),
        _ => FieldError::invalid(path, value, message),
    }
}

impl Rule {
    /// How messages call the rule.
    fn words(&self) -> &str {
        let message = self.message.trim();
        if message.is_empty() { self.rule.trim() } else { message }
    }

    fn message_or_default(&self) -> String {
        match self.message.trim() {
            "" => format!("failed rule: {}", self.rule.trim()),
            message => message.to_owned(),
        }
    }
}
