//! Policies and webhook configurations whose expressions do not compile are refused when they are written.

use skiff_cel::Env;
use skiff_object::Tree;

use super::compiled;
use super::environment::{self, Options, Returns};
use crate::admission::webhook::configuration::GROUP;
use crate::admission::{Attributes, Operation};
use crate::errors::{ApiError, ApiResult, Cause, Qualified};
use crate::meta;

/// Whether this is a write of a policy itself.
pub(super) fn is_policy(attributes: &Attributes<'_>) -> bool {
    matches!(attributes.operation, Operation::Create | Operation::Update)
        && (attributes.is(GROUP, "validatingadmissionpolicies") || attributes.is(GROUP, "mutatingadmissionpolicies"))
}

/// Whether this is a write of a webhook configuration.
fn is_configuration(attributes: &Attributes<'_>) -> bool {
    matches!(attributes.operation, Operation::Create | Operation::Update)
        && (attributes.is(GROUP, "validatingwebhookconfigurations")
            || attributes.is(GROUP, "mutatingwebhookconfigurations"))
}

/// Whether expressions in what is written have to compile.
pub(super) fn is_checked(attributes: &Attributes<'_>) -> bool {
    is_policy(attributes) || is_configuration(attributes)
}

/// Refuses a webhook configuration with a match condition that does not compile. Conditions that are as they were are
/// not judged again.
fn check_configuration(attributes: &Attributes<'_>, object: &Tree, old: Option<&Tree>) -> ApiResult<()> {
    let mut causes = Causes(Vec::new());
    let env = environment::env(Options { params: false, authorizer: true, patches: false });
    let known: Vec<&Tree> = old.into_iter().flat_map(|old| old.list_at(&["webhooks"])).collect();
    for (index, webhook) in object.list_at(&["webhooks"]).iter().enumerate() {
        let conditions = webhook.list_at(&["matchConditions"]);
        let before = known.iter().find(|one| one.str_at(&["name"]) == webhook.str_at(&["name"]));
        if before.is_some_and(|before| before.list_at(&["matchConditions"]) == conditions) {
            continue;
        }
        for (at, condition) in conditions.iter().enumerate() {
            let text = condition.str_at(&["expression"]);
            // What is empty is the matter of validation.
            let compiled = (!text.trim().is_empty()).then(|| environment::compile(&env, text, Returns::Bool));
            if let Some(Err(error)) = compiled {
                causes.add(format!("webhooks[{index}].matchConditions[{at}].expression"), text, &error);
            }
        }
    }
    causes.refuse(attributes, object)
}

/// Refuses a policy with an expression that does not compile. One that is not changed is not judged again.
///
/// # Errors
/// Every such expression, with its field.
pub(super) fn check(attributes: &Attributes<'_>, policy: &Tree, old: Option<&Tree>) -> ApiResult<()> {
    if is_configuration(attributes) {
        return check_configuration(attributes, policy, old);
    }
    let spec = policy.get("spec").unwrap_or(&Tree::Null);
    if !is_policy(attributes) || old.is_some_and(|old| old.get("spec") == policy.get("spec")) {
        return Ok(());
    }
    let params = spec.get("paramKind").is_some_and(|kind| !kind.is_null());
    let options = Options { params, authorizer: true, patches: false };
    let mut causes = Causes(Vec::new());
    let (env, variables) = compiled::variables(environment::env(options), spec);
    for (index, variable) in variables.iter().enumerate() {
        if let Err(error) = &variable.expression.program {
            causes.add(format!("spec.variables[{index}].expression"), &variable.expression.text, error);
        }
    }
    let (message_env, _) = compiled::variables(environment::env(Options { authorizer: false, ..options }), spec);
    causes.all(&env, spec, "matchConditions", &["expression"], Returns::Bool);
    causes.all(&env, spec, "validations", &["expression"], Returns::Bool);
    causes.all(&message_env, spec, "validations", &["messageExpression"], Returns::Text);
    causes.all(&env, spec, "auditAnnotations", &["valueExpression"], Returns::TextOrNull);
    let patches = env.mutation();
    causes.all(&patches, spec, "mutations", &["applyConfiguration", "expression"], Returns::Object);
    causes.all(&patches, spec, "mutations", &["jsonPatch", "expression"], Returns::Patches);
    causes.refuse(attributes, policy)
}

struct Causes(Vec<Cause>);

impl Causes {
    fn refuse(self, attributes: &Attributes<'_>, object: &Tree) -> ApiResult<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let kind = Qualified { group: GROUP, name: attributes.subject.kind.facts().kind.as_str() };
        Err(ApiError::invalid(kind, meta::name(object), self.0))
    }

    /// Compiles one expression of every item of a list. What is empty is the matter of validation.
    fn all(&mut self, env: &Env, spec: &Tree, list: &str, path: &[&str], returns: Returns) {
        for (index, item) in spec.list_at(&[list]).iter().enumerate() {
            let text = item.str_at(path);
            if text.trim().is_empty() {
                continue;
            }
            if let Err(error) = environment::compile(env, text, returns) {
                self.add(format!("spec.{list}[{index}].{}", path.join(".")), text, &error);
            }
        }
    }

    fn add(&mut self, field: String, text: &str, error: &str) {
        let message = format!("Invalid value: {text:?}: {error}");
        self.0.push(Cause { reason: "FieldValueInvalid".to_owned(), message, field });
    }
}
