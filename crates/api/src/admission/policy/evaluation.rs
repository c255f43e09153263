//! Expressions over one write: the values they speak of, what they may cost together, and what they ask of the
//! authorizer.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use parking_lot::Mutex;
use skiff_cel::{
    Activation, Check, Decision, EvalError, MATCH_CONDITIONS_BUDGET, Map, MapKey, Opaque, PER_CALL_LIMIT, Subject,
    Value,
};
use skiff_kinds::Kind;
use skiff_object::{Map as TreeMap, Tree};

use super::compiled::{Expression, FailurePolicy, Policy, Variable};
use super::environment::NAMESPACE_TYPE;
use crate::admission::Attributes;
use crate::admission::exchanged::group_version_kind;
use crate::authn::UserInfo;
use crate::authz::{self, Authorizer, Selectors, Target};
use crate::reviews::user_tree;
use crate::server::ApiServer;

/// What all expressions together did too much of.
pub const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What expressions speak of.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The new object; null for a delete.
    pub object: &'a Tree,
    /// The old object; null for a create.
    pub old: &'a Tree,
    /// The request, see [`request`].
    pub request: &'a Tree,
    /// The params; null for none.
    pub params: &'a Tree,
    /// The namespace; null for none.
    pub namespace: &'a Tree,
    /// What `authorizer.requestResource` asks about.
    pub resource: &'a Arc<Check>,
}

/// The resource of a request as `authorizer.requestResource` has it.
pub fn request_resource(attributes: &Attributes<'_>) -> Arc<Check> {
    let facts = attributes.subject.kind.facts();
    Arc::new(Check::Resource {
        subject: Subject::Requester,
        group: facts.group.as_str().into(),
        resource: facts.plural.as_str().into(),
        subresource: attributes.subject.subresource.as_str().into(),
        namespace: attributes.namespace().into(),
        name: attributes.name.into(),
        field_selector: "".into(),
        label_selector: "".into(),
    })
}

/// The `request` of expressions: an `AdmissionRequest` without uid and objects. `seen` is the kind whose version the
/// policy sees.
pub fn request(attributes: &Attributes<'_>, seen: &Arc<dyn Kind>) -> Tree {
    let seen_subject = crate::verbs::Subject { kind: Arc::clone(seen), ..attributes.subject.clone() };
    let seen = Attributes { subject: &seen_subject, ..*attributes };
    let names = |parts: [(&'static str, &str); 3]| {
        Tree::Map(parts.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    };
    let kind = |of: &Attributes<'_>| {
        let (group, version, kind) = group_version_kind(of.exchanged());
        names([("group", group), ("version", version), ("kind", kind)])
    };
    let resource = |of: &Attributes<'_>| {
        let facts = of.subject.kind.facts();
        names([
            ("group", facts.group.as_str()),
            ("version", facts.version.as_str()),
            ("resource", facts.plural.as_str()),
        ])
    };
    let mut request = TreeMap::new();
    request.insert("kind", kind(&seen));
    request.insert("resource", resource(&seen));
    request.insert("requestKind", kind(attributes));
    request.insert("requestResource", resource(attributes));
    request.insert("operation", attributes.operation.as_str());
    request.insert("userInfo", user_tree(attributes.user));
    request.insert("dryRun", attributes.dry_run);
    let sub = attributes.subject.subresource.as_str();
    let texts = [
        ("subResource", sub),
        ("requestSubResource", sub),
        ("name", attributes.name),
        ("namespace", attributes.namespace()),
    ];
    for (key, value) in texts.into_iter().filter(|(_, value)| !value.is_empty()) {
        request.insert(key, value);
    }
    let options = attributes.options.to_tree();
    if !options.is_null() {
        request.insert("options", options);
    }
    Tree::Map(request)
}

/// The variables of one evaluation, those of the policy evaluated when they are first spoken of.
pub struct Variables<'r, 'a> {
    inputs: &'r Inputs<'a>,
    declared: &'a [Variable],
    known: RefCell<Vec<Option<Result<Value<'a>, EvalError>>>>,
    spent: Cell<u64>,
    authorizer: &'r Asker<'r>,
}

impl<'r, 'a> Variables<'r, 'a> {
    /// Nothing evaluated yet.
    pub fn new(inputs: &'r Inputs<'a>, policy: &'a Policy, authorizer: &'r Asker<'r>) -> Self {
        let known = RefCell::new(vec![None; policy.variables.len()]);
        Self { inputs, declared: &policy.variables, known, spent: Cell::new(0), authorizer }
    }

    fn declared(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        let index = self.declared.iter().position(|variable| variable.full_name == name)?;
        if let Some(known) = &self.known.borrow()[index] {
            return Some(known.clone());
        }
        let variable = &self.declared[index];
        let short = variable.full_name.trim_start_matches("variables.");
        let failed = |why: &dyn std::fmt::Display| {
            EvalError::failed(format!("composited variable {short:?} fails to evaluate: {why}"))
        };
        let value = match &variable.expression.program {
            Err(error) => Err(EvalError::failed(format!("composited variable {short:?} fails to compile: {error}"))),
            Ok(program) => {
                let outcome = program.eval(self, Some(self.authorizer), PER_CALL_LIMIT);
                self.spent.set(self.spent.get().saturating_add(outcome.cost));
                outcome.value.map_err(|error| failed(&error))
            }
        };
        self.known.borrow_mut()[index] = Some(value.clone());
        Some(value)
    }

    /// Every variable that can be told, by name: for who asks whether there is one.
    fn all(&self) -> Value<'a> {
        let values = self.declared.iter().filter_map(|variable| {
            let value = self.declared(&variable.full_name)?.ok()?;
            Some((MapKey::Str(variable.full_name.trim_start_matches("variables.").into()), value))
        });
        Value::Map(Map::Values(Arc::new(values.collect())))
    }

    /// The value of an expression. What it and the variables it needs cost is taken off `budget`.
    ///
    /// # Errors
    /// When the budget does not suffice.
    pub fn evaluate(&self, expression: &'a Expression, budget: &mut u64) -> Result<Result<Value<'a>, String>, String> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(error) => return Ok(Err(format!("compilation error: {error}"))),
        };
        let outcome = program.eval(self, Some(self.authorizer), PER_CALL_LIMIT);
        let cost = outcome.cost.saturating_add(self.spent.take());
        *budget = budget.checked_sub(cost).ok_or_else(|| OUT_OF_BUDGET.to_owned())?;
        Ok(outcome.value.map_err(|error| format!("expression '{}' resulted in error: {error}", expression.text)))
    }
}

impl<'a> Activation<'a> for Variables<'_, 'a> {
    fn variable(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        Some(Ok(match name {
            "object" => Value::dynamic(self.inputs.object),
            "oldObject" => Value::dynamic(self.inputs.old),
            "params" => Value::dynamic(self.inputs.params),
            "request" => Value::dynamic(self.inputs.request),
            "namespaceObject" if self.inputs.namespace.is_null() => Value::Null,
            "namespaceObject" => return Some(Value::typed(self.inputs.namespace, &NAMESPACE_TYPE)),
            "authorizer" => Value::Opaque(Opaque::Authorizer(Subject::Requester)),
            "authorizer.requestResource" => Value::Opaque(Opaque::Check(Arc::clone(self.inputs.resource))),
            "variables" => self.all(),
            other => return self.declared(other),
        }))
    }
}

/// Whether match conditions let a policy be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Ask,
    /// It is not.
    Skip,
    /// They cannot be told.
    Error(String),
}

/// What the match conditions of a policy say.
pub fn conditions<'a>(variables: &Variables<'_, 'a>, policy: &'a Policy) -> Verdict {
    let mut budget = MATCH_CONDITIONS_BUDGET;
    let mut errors = Vec::new();
    let ignored = policy.failure_policy == FailurePolicy::Ignore;
    for condition in &policy.conditions {
        match variables.evaluate(condition, &mut budget) {
            Err(_) if ignored => return Verdict::Skip,
            Err(error) => return Verdict::Error(error),
            Ok(Ok(Value::Bool(false))) => return Verdict::Skip,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => errors.push(error),
        }
    }
    match errors.as_slice() {
        [] => Verdict::Ask,
        _ if ignored => Verdict::Skip,
        [one] => Verdict::Error(one.clone()),
        many => Verdict::Error(format!("[{}]", many.join(", "))),
    }
}

/// Answers the checks of expressions from the server's authorizer: at once where it decides from memory, from what was
/// asked before where it does not.
pub struct Asker<'s> {
    authorizer: &'s dyn Authorizer,
    user: &'s UserInfo,
    known: Mutex<Vec<(Check, String, Decision)>>,
    missing: Mutex<Option<(Check, String)>>,
}

impl<'s> Asker<'s> {
    /// Nothing asked yet.
    pub fn new(server: &'s ApiServer, user: &'s UserInfo) -> Self {
        Self { authorizer: server.config.authorizer.as_ref(), user, known: Mutex::default(), missing: Mutex::default() }
    }

    /// Runs `work` until nothing it asks is unknown. The budget of expressions bounds how much they can ask.
    pub async fn settled<T>(&self, mut work: impl FnMut() -> T) -> T {
        loop {
            let done = work();
            let Some((check, verb)) = self.missing.lock().take() else { return done };
            let decision = self.ask(&check, &verb).await;
            self.known.lock().push((check, verb, decision));
        }
    }

    async fn ask(&self, check: &Check, verb: &str) -> Decision {
        let user = self.user_of(check);
        let selectors = selectors(check);
        let attributes = attributes(check, verb, &user, selectors.as_ref());
        decision(&authz::decide(self.authorizer, &attributes).await)
    }

    fn user_of(&self, check: &Check) -> UserInfo {
        let (Check::Path { subject, .. } | Check::Resource { subject, .. }) = check;
        match subject {
            Subject::Requester => self.user.clone(),
            Subject::ServiceAccount { namespace, name } => UserInfo {
                name: format!("system:serviceaccount:{namespace}:{name}"),
                groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")],
                ..UserInfo::default()
            },
        }
    }
}

impl skiff_cel::Authorizer for Asker<'_> {
    fn decide(&self, check: &Check, verb: &str) -> Decision {
        if let Some((.., known)) = self.known.lock().iter().find(|(one, v, _)| one == check && v == verb) {
            return known.clone();
        }
        let user = self.user_of(check);
        if user.in_group(crate::authn::MASTERS) {
            return Decision { allowed: true, ..Decision::default() };
        }
        if self.authorizer.asks(&user) {
            *self.missing.lock() = Some((check.clone(), verb.to_owned()));
            return Decision::default();
        }
        let selectors = selectors(check);
        decision(&self.authorizer.authorize(&attributes(check, verb, &user, selectors.as_ref())))
    }
}

fn selectors(check: &Check) -> Option<Selectors> {
    match check {
        Check::Resource { field_selector, label_selector, .. } => Selectors::of_texts(field_selector, label_selector),
        Check::Path { .. } => None,
    }
}

fn attributes<'c>(
    check: &'c Check,
    verb: &'c str,
    user: &'c UserInfo,
    selectors: Option<&'c Selectors>,
) -> authz::Attributes<'c> {
    let target = match check {
        Check::Path { path, .. } => Target::Path(path),
        Check::Resource { group, resource, subresource, namespace, name, .. } => {
            Target::Resource { group, version: "*", resource, subresource, namespace, name }
        }
    };
    authz::Attributes { user, verb, target, selectors }
}

fn decision(decision: &authz::Decision) -> Decision {
    Decision { allowed: decision.is_allowed(), reason: decision.reason().into(), error: "".into() }
}
