//! Policies and bindings made ready for use.

use skiff_cel::{Env, Type};
use skiff_object::Tree;

use super::constraints::Constraints;
use super::environment::{self, Compiled, Options, Returns};
use crate::meta;

/// The type of `variables`.
const VARIABLES: &str = "kubernetes.variables";

/// What happens when a policy cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The write is refused.
    Fail,
    /// The policy is passed by.
    Ignore,
}

/// An expression and its program.
#[derive(Debug)]
pub struct Expression {
    /// As written.
    pub text: String,
    /// Compiled.
    pub program: Compiled,
}

/// A variable of a policy.
#[derive(Debug)]
pub struct Variable {
    /// As expressions speak of it: `variables.name`.
    pub full_name: String,
    /// What it is.
    pub expression: Expression,
}

/// One validation.
#[derive(Debug)]
pub struct Validation {
    /// What must hold.
    pub expression: Expression,
    /// Says why not.
    pub message_expression: Option<Expression>,
    /// Says why not, when the expression does not.
    pub message: String,
    /// `""` for `Invalid`.
    pub reason: String,
}

/// An annotation for the audit log.
#[derive(Debug)]
pub struct AuditAnnotation {
    /// Its key, after the policy's name.
    pub key: String,
    /// What gives its value.
    pub value: Expression,
}

/// One mutation.
#[derive(Debug)]
pub enum Mutation {
    /// Gives an object that is merged in.
    Apply(Expression),
    /// Gives a JSON patch.
    JsonPatch(Expression),
}

/// A policy of either kind.
#[derive(Debug)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Which writes it is for; `None` when it does not say.
    pub constraints: Option<Constraints>,
    /// What happens when it cannot be told.
    pub failure_policy: FailurePolicy,
    /// `apiVersion` and `kind` of its params.
    pub param_kind: Option<(String, String)>,
    /// What must hold for it to be asked, with names.
    pub conditions: Vec<Expression>,
    /// In the order in which they may speak of each other.
    pub variables: Vec<Variable>,
    /// Of a validating policy.
    pub validations: Vec<Validation>,
    /// Of a validating policy.
    pub audit_annotations: Vec<AuditAnnotation>,
    /// Of a mutating policy.
    pub mutations: Vec<Mutation>,
    /// Whether a mutating policy is asked again when somebody changed the object after it.
    pub is_reinvoked: bool,
}

/// A binding of a policy.
#[derive(Debug)]
pub struct Binding {
    /// Its name.
    pub name: String,
    /// The policy it binds.
    pub policy: String,
    /// Which of the policy's writes it is for; `None` for all.
    pub constraints: Option<Constraints>,
    /// `paramRef`, as written; null for none.
    pub param_ref: Tree,
    /// `Deny`, `Warn`, `Audit`.
    pub actions: Vec<String>,
}

impl Policy {
    /// Compiles a policy. What does not compile is found out when it is asked for.
    pub fn read(policy: &Tree) -> Self {
        let spec = policy.get("spec").unwrap_or(&Tree::Null);
        let param_kind = spec.get("paramKind").filter(|kind| !kind.is_null());
        let options = Options { params: param_kind.is_some(), authorizer: true, patches: false };
        let (env, variables) = variables(environment::env(options), spec);
        let without_authorizer = Options { authorizer: false, ..options };
        // Messages do not ask the authorizer; variables they speak of still may.
        let message_env = declare(environment::env(without_authorizer), &variables);
        let compile = |text: &str, returns: Returns| expression(&env, text, returns);
        let texts = |path: &str| spec.list_at(&[path]).iter();
        let validations = texts("validations").map(|validation| {
            let message = validation.str_at(&["messageExpression"]);
            Validation {
                expression: compile(validation.str_at(&["expression"]), Returns::Bool),
                message_expression: (!message.is_empty()).then(|| expression(&message_env, message, Returns::Text)),
                message: validation.str_at(&["message"]).to_owned(),
                reason: validation.str_at(&["reason"]).to_owned(),
            }
        });
        let patch_env = env.clone().mutation();
        let mutations = texts("mutations").map(|mutation| match mutation.str_at(&["patchType"]) {
            "JSONPatch" => Mutation::JsonPatch(expression(
                &patch_env,
                mutation.str_at(&["jsonPatch", "expression"]),
                Returns::Patches,
            )),
            _ => Mutation::Apply(expression(
                &patch_env,
                mutation.str_at(&["applyConfiguration", "expression"]),
                Returns::Object,
            )),
        });
        let ignores = spec.str_at(&["failurePolicy"]) == "Ignore";
        Self {
            name: meta::name(policy).to_owned(),
            constraints: Constraints::read(spec.get("matchConstraints")),
            failure_policy: if ignores { FailurePolicy::Ignore } else { FailurePolicy::Fail },
            param_kind: param_kind
                .map(|kind| (kind.str_at(&["apiVersion"]).to_owned(), kind.str_at(&["kind"]).to_owned())),
            conditions: texts("matchConditions")
                .map(|condition| compile(condition.str_at(&["expression"]), Returns::Bool))
                .collect(),
            validations: validations.collect(),
            audit_annotations: texts("auditAnnotations")
                .map(|annotation| AuditAnnotation {
                    key: annotation.str_at(&["key"]).to_owned(),
                    value: compile(annotation.str_at(&["valueExpression"]), Returns::TextOrNull),
                })
                .collect(),
            mutations: mutations.collect(),
            is_reinvoked: spec.str_at(&["reinvocationPolicy"]) == "IfNeeded",
            variables,
        }
    }
}

impl Binding {
    /// Reads a binding.
    pub fn read(binding: &Tree) -> Self {
        let spec = binding.get("spec").unwrap_or(&Tree::Null);
        Self {
            name: meta::name(binding).to_owned(),
            policy: spec.str_at(&["policyName"]).to_owned(),
            constraints: Constraints::read(spec.get("matchResources")),
            param_ref: spec.get("paramRef").cloned().unwrap_or_default(),
            actions: spec
                .list_at(&["validationActions"])
                .iter()
                .filter_map(|action| action.as_str().map(str::to_owned))
                .collect(),
        }
    }
}

fn expression(env: &Env, text: &str, returns: Returns) -> Expression {
    Expression { text: text.to_owned(), program: environment::compile(env, text, returns) }
}

/// The variables of a policy, each compiled with those before it, and an environment that has them all.
pub fn variables(env: Env, spec: &Tree) -> (Env, Vec<Variable>) {
    let mut variables: Vec<Variable> = Vec::new();
    for variable in spec.list_at(&["variables"]) {
        let env = declare(env.clone(), &variables);
        variables.push(Variable {
            full_name: format!("variables.{}", variable.str_at(&["name"])),
            expression: expression(&env, variable.str_at(&["expression"]), Returns::Anything),
        });
    }
    (declare(env, &variables), variables)
}

/// Declares variables as fields of `variables`. One that does not compile is `dyn`.
fn declare(mut env: Env, variables: &[Variable]) -> Env {
    let ty = |variable: &Variable| match &variable.expression.program {
        Ok(program) => program.output_type().clone(),
        Err(_) => Type::Dyn,
    };
    let short = |variable: &'_ Variable| variable.full_name.trim_start_matches("variables.").to_owned();
    let fields: Vec<(String, Type)> = variables.iter().map(|variable| (short(variable), ty(variable))).collect();
    env = env
        .object(VARIABLES, fields.iter().map(|(name, ty)| (name.as_str(), ty.clone())))
        .variable("variables", Type::object(VARIABLES));
    for variable in variables {
        env = env.variable(&variable.full_name, ty(variable));
    }
    env
}
