//! Validating policies: every binding is asked, and what they say is gathered.

use std::collections::BTreeMap;

use http::StatusCode;
use skiff_cel::{MESSAGE_BYTES_MAX, RUNTIME_BUDGET, Value};
use skiff_object::{Tree, json};

use super::compiled::{Binding, FailurePolicy, Policy, Validation};
use super::evaluation::{self, Asker, Inputs, Variables, Verdict};
use super::source::Hook;
use super::{params, source};
use crate::admission::Attributes;
use crate::admission::webhook::matching;
use crate::errors::{ApiError, ApiResult, Cause, Qualified};
use crate::registry;
use crate::respond;
use crate::server::ApiServer;

/// More failures than this are not written to the audit log. The number of upstream.
const AUDITED_FAILURES_MAX: usize = 50;

/// A longer value of an annotation is cut. The number of upstream.
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;

/// The annotation that lists failures whose action is `Audit`.
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";

/// A refusal.
#[derive(Debug)]
struct Denial {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: String,
}

/// What one evaluation says.
#[derive(Debug, Default)]
struct Said {
    /// By place: why a validation does not hold (or cannot be told and must), and with which reason.
    failures: Vec<(usize, String, String)>,
    annotations: Vec<(String, String)>,
    /// Annotations that cannot be told and must.
    errors: Vec<String>,
}

/// Asks every policy that the write is for.
///
/// # Errors
/// The first refusal.
pub(super) async fn dispatch(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    hooks: &[source::Hook],
    object: &Tree,
    old: Option<&Tree>,
) -> ApiResult<()> {
    let mut denials = Vec::new();
    let mut audited = Vec::new();
    let asker = Asker::new(server, attributes.user);
    for hook in hooks {
        one(server, attributes, hook, object, old, &asker, &mut denials, &mut audited).await?;
    }
    if !audited.is_empty() {
        audited.truncate(AUDITED_FAILURES_MAX);
        let text = json::encode_untyped(&Tree::List(audited));
        attributes.annotate(FAILURES, String::from_utf8_lossy(&text));
    }
    denials.into_iter().next().map_or(Ok(()), |denial| Err(refusal(attributes, object, denial)))
}

fn refusal(attributes: &Attributes<'_>, object: &Tree, denial: Denial) -> ApiError {
    let with = denial.binding.map_or_else(String::new, |binding| format!(" with binding '{binding}'"));
    let message = format!("ValidatingAdmissionPolicy '{}'{with} denied request: {}", denial.policy, denial.message);
    let mut error = attributes.forbidden(object, &message);
    (error.code, error.reason) = match denial.reason.as_str() {
        "Forbidden" => (StatusCode::FORBIDDEN, "Forbidden"),
        "Unauthorized" => (StatusCode::UNAUTHORIZED, "Unauthorized"),
        "RequestEntityTooLarge" => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
        _ => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
    };
    error.details.get_or_insert_default().causes.push(Cause { message, ..Cause::default() });
    error
}

#[expect(clippy::too_many_arguments, reason = "the write, the policy, and the two lists that are gathered")]
async fn one(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    hook: &Hook,
    object: &Tree,
    old: Option<&Tree>,
    asker: &Asker<'_>,
    denials: &mut Vec<Denial>,
    audited: &mut Vec<Tree>,
) -> ApiResult<()> {
    let policy = hook.policy.as_ref();
    let misconfigured = |binding: Option<&Binding>, why: &str| {
        let what = if binding.is_some() { "binding" } else { "policy" };
        (policy.failure_policy == FailurePolicy::Fail).then(|| Denial {
            policy: policy.name.clone(),
            binding: binding.map(|binding| binding.name.clone()),
            message: format!("failed to configure {what}: {why}"),
            reason: String::new(),
        })
    };
    let Some(constraints) = &policy.constraints else {
        denials.extend(misconfigured(None, "policy contained no match constraints, a required field"));
        return Ok(());
    };
    let kind = match constraints.matching(server, attributes, object, old).await {
        Ok(Some(kind)) => kind,
        Ok(None) => return Ok(()),
        Err(error) => {
            denials.extend(misconfigured(None, &error.message));
            return Ok(());
        }
    };
    let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for binding in &hook.bindings {
        if let Some(resources) = &binding.constraints {
            match resources.matching(server, attributes, object, old).await {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(error) => {
                    denials.extend(misconfigured(Some(binding), &error.message));
                    continue;
                }
            }
        }
        let params = match params::collect(server, attributes, policy, binding).await {
            Ok(params) => params,
            Err(why) => {
                denials.extend(misconfigured(Some(binding), &why));
                continue;
            }
        };
        if params.is_empty() {
            continue;
        }
        let seen = Seen::new(server, attributes, &kind, object, old).await?;
        for params in &params {
            let inputs = seen.inputs(params);
            let said = asker.settled(|| evaluate(policy, &inputs, asker)).await;
            act(attributes, policy, binding, said, &mut annotations, denials, audited);
        }
    }
    for (key, values) in annotations {
        attributes.annotate(&format!("{}/{key}", policy.name), values.join(", "));
    }
    Ok(())
}

/// A write as a policy sees it.
pub(super) struct Seen {
    object: Tree,
    old: Tree,
    request: Tree,
    namespace: Tree,
    resource: std::sync::Arc<skiff_cel::Check>,
}

impl Seen {
    pub(super) async fn new(
        server: &ApiServer,
        attributes: &Attributes<'_>,
        kind: &std::sync::Arc<dyn skiff_kinds::Kind>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<Self> {
        let own = &attributes.subject.kind;
        let is_own = kind.facts().api_version == own.facts().api_version || matching::is_foreign(attributes);
        let view = async |tree: Option<&Tree>| match tree {
            Some(tree) if !tree.is_null() && !is_own => matching::convert(server, own, kind, tree).await,
            tree => Ok(tree.cloned().unwrap_or_default()),
        };
        Ok(Self {
            object: view(Some(object)).await?,
            old: view(old).await?,
            request: evaluation::request(attributes, kind),
            namespace: namespace(server, attributes).await?,
            resource: evaluation::request_resource(attributes),
        })
    }

    pub(super) fn inputs<'a>(&'a self, params: &'a Tree) -> Inputs<'a> {
        Inputs {
            object: &self.object,
            old: &self.old,
            request: &self.request,
            params,
            namespace: &self.namespace,
            resource: &self.resource,
        }
    }

    pub(super) fn object(&self) -> &Tree {
        &self.object
    }

    pub(super) fn set_object(&mut self, object: Tree) {
        self.object = object;
    }
}

/// The namespace of a write; null when it is in none.
async fn namespace(server: &ApiServer, attributes: &Attributes<'_>) -> ApiResult<Tree> {
    let name = attributes.namespace();
    let own = attributes.subject.kind.as_ref();
    if name.is_empty() || registry::is(own, "", "namespaces") {
        return Ok(Tree::Null);
    }
    let found = server.collection("", "namespaces").known_get("", name).await?;
    let found = found.ok_or_else(|| ApiError::not_found(Qualified { group: "", name: "namespaces" }, name))?;
    match server.registry().kind("v1", "Namespace") {
        Some(kind) => respond::served(kind.as_ref(), &found),
        None => Ok(Tree::Null),
    }
}

/// Evaluates everything a validating policy says about one write with one param.
fn evaluate<'a>(policy: &'a Policy, inputs: &Inputs<'a>, asker: &Asker<'_>) -> Said {
    let is_strict = policy.failure_policy == FailurePolicy::Fail;
    let invalid = || "Invalid".to_owned();
    let whole = |error: String| Said {
        failures: if is_strict { vec![(0, error, invalid())] } else { Vec::new() },
        ..Said::default()
    };
    // Conditions do not see the namespace, as upstream has it.
    let without = Inputs { namespace: &Tree::Null, ..*inputs };
    match evaluation::conditions(&Variables::new(&without, policy, asker), policy) {
        Verdict::Ask => {}
        Verdict::Skip => return Said::default(),
        Verdict::Error(error) => return whole(error),
    }
    let variables = Variables::new(inputs, policy, asker);
    let mut budget = RUNTIME_BUDGET;
    let mut results = Vec::with_capacity(policy.validations.len());
    for validation in &policy.validations {
        match variables.evaluate(&validation.expression, &mut budget) {
            Ok(result) => results.push(result),
            Err(error) => return whole(error),
        }
    }
    let mut said = Said::default();
    for (index, (validation, result)) in policy.validations.iter().zip(results).enumerate() {
        match result {
            Ok(Value::Bool(true)) => {}
            Err(error) if is_strict => said.failures.push((index, error, invalid())),
            Err(_) => {}
            Ok(_) => match message(validation, &variables, &mut budget) {
                Ok(message) => {
                    let reason = if validation.reason.is_empty() { invalid() } else { validation.reason.clone() };
                    said.failures.push((index, message, reason));
                }
                Err(error) if is_strict => {
                    said.failures.push((index, format!("failed messageExpression: {error}"), invalid()));
                }
                Err(_) => {}
            },
        }
    }
    let mut budget = RUNTIME_BUDGET;
    for annotation in &policy.audit_annotations {
        match variables.evaluate(&annotation.value, &mut budget) {
            Err(error) => return whole(error),
            Ok(Err(error)) if is_strict => said.errors.push(error),
            Ok(Ok(Value::Str(text))) if !text.trim().is_empty() => {
                said.annotations.push((annotation.key.clone(), text.trim().to_owned()));
            }
            Ok(_) => {}
        }
    }
    said
}

/// Why a validation does not hold: what its messageExpression says, else its message, else the expression.
fn message<'a>(validation: &'a Validation, variables: &Variables<'_, 'a>, budget: &mut u64) -> Result<String, String> {
    let mut text = String::new();
    if let Some(expression) = &validation.message_expression {
        match variables.evaluate(expression, budget)? {
            Ok(Value::Str(message)) => text = message.trim().to_owned(),
            Ok(_) => {}
            Err(error) => tracing::debug!(error, "a messageExpression cannot be told"),
        }
    }
    if text.len() > MESSAGE_BYTES_MAX || text.contains('\n') {
        text.clear();
    }
    if text.is_empty() {
        text = validation.message.trim().to_owned();
    }
    if text.is_empty() {
        text = format!("failed expression: {}", validation.expression.text.trim());
    }
    Ok(text)
}

/// Does with what was said what the binding's actions want.
fn act(
    attributes: &Attributes<'_>,
    policy: &Policy,
    binding: &Binding,
    said: Said,
    annotations: &mut BTreeMap<String, Vec<String>>,
    denials: &mut Vec<Denial>,
    audited: &mut Vec<Tree>,
) {
    let denial = |message: String, reason: String| Denial {
        policy: policy.name.clone(),
        binding: Some(binding.name.clone()),
        message,
        reason,
    };
    for (index, message, reason) in said.failures {
        for action in &binding.actions {
            match action.as_str() {
                "Deny" => denials.push(denial(message.clone(), reason.clone())),
                "Warn" => attributes.warn(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                    policy.name, binding.name
                )),
                "Audit" => {
                    let mut failure = Tree::map();
                    failure.set(&["message"], message.as_str());
                    failure.set(&["policy"], policy.name.as_str());
                    failure.set(&["binding"], binding.name.as_str());
                    failure.set(&["expressionIndex"], i64::try_from(index).unwrap_or(i64::MAX));
                    let actions: Vec<Tree> = binding.actions.iter().map(|action| action.as_str().into()).collect();
                    failure.set(&["validationActions"], actions);
                    audited.push(failure);
                }
                _ => {}
            }
        }
    }
    for (key, mut value) in said.annotations {
        if value.len() > ANNOTATION_BYTES_MAX {
            let end = (0..=ANNOTATION_BYTES_MAX).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
            value.truncate(end);
        }
        let values = annotations.entry(key).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }
    denials.extend(said.errors.into_iter().map(|error| denial(error, String::new())));
}
