//! Mutating policies: one after the other, each sees what those before it made of the object.

use skiff_cel::{Object, RUNTIME_BUDGET, Value};
use skiff_object::managed::typed::Typed;
use skiff_object::patch;
use skiff_object::{Tree, conform};

use super::compiled::{Binding, FailurePolicy, Mutation, Policy};
use super::evaluation::{self, Asker, Inputs, Variables, Verdict};
use super::params;
use super::source::Hook;
use super::validating::Seen;
use crate::admission::Attributes;
use crate::admission::webhook::matching;
use crate::errors::{ApiError, ApiResult, Cause};
use crate::meta;
use crate::server::ApiServer;

/// The plugin's name among those that remember whom they called.
const PLUGIN: &str = "MutatingAdmissionPolicy";

/// Why a policy could not do its work.
struct Failure {
    message: String,
    reason: &'static str,
}

/// Asks every policy that the write is for.
///
/// # Errors
/// When one cannot do its work and must.
pub(super) async fn dispatch(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    hooks: &[Hook],
    object: &mut Tree,
    old: Option<&Tree>,
) -> ApiResult<()> {
    let rounds = attributes.rounds;
    if rounds.is_second() {
        rounds.with(PLUGIN, |callees| {
            if callees.is_changed(object) {
                callees.require_previous();
            }
        });
    }
    let mut failures = Vec::new();
    let asker = Asker::new(server, attributes.user);
    // Who is asked follows from the object as it came.
    let original = object.clone();
    for hook in hooks {
        one(server, attributes, hook, &original, object, old, &asker, &mut failures).await?;
    }
    rounds.with(PLUGIN, |callees| callees.leave(object));
    if failures.is_empty() { Ok(()) } else { Err(refusal(attributes, object, failures)) }
}

fn refusal(attributes: &Attributes<'_>, object: &Tree, failures: Vec<Failure>) -> ApiError {
    let mut error = attributes.forbidden(object, "admission request denied by policy");
    let details = error.details.get_or_insert_default();
    for (index, failure) in failures.into_iter().enumerate() {
        if index == 0 {
            error.message.clone_from(&failure.message);
            error.reason = failure.reason;
        }
        details.causes.push(Cause { message: failure.message, ..Cause::default() });
    }
    error
}

#[expect(clippy::too_many_arguments, reason = "the write as it came and as it is, the policy, and what failed")]
async fn one(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    hook: &Hook,
    original: &Tree,
    object: &mut Tree,
    old: Option<&Tree>,
    asker: &Asker<'_>,
    failures: &mut Vec<Failure>,
) -> ApiResult<()> {
    let policy = hook.policy.as_ref();
    let failed = |binding: Option<&Binding>, why: &str, reason: &'static str| {
        let message = match binding {
            Some(binding) => format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name),
            None => format!("policy {:?} denied request: {why}", policy.name),
        };
        (policy.failure_policy == FailurePolicy::Fail).then_some(Failure { message, reason })
    };
    let misconfigured = |binding: Option<&Binding>, why: &str| {
        let what = if binding.is_some() { "binding" } else { "policy" };
        failed(binding, &format!("failed to configure {what}: {why}"), "Forbidden")
    };
    let Some(constraints) = &policy.constraints else {
        failures.extend(misconfigured(None, "policy contained no match constraints, a required field"));
        return Ok(());
    };
    let kind = match constraints.matching(server, attributes, original, old).await {
        Ok(Some(kind)) => kind,
        Ok(None) => return Ok(()),
        Err(error) => {
            failures.extend(misconfigured(None, &error.message));
            return Ok(());
        }
    };
    for binding in &hook.bindings {
        if let Some(resources) = &binding.constraints {
            match resources.matching(server, attributes, original, old).await {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(error) => {
                    failures.extend(misconfigured(Some(binding), &error.message));
                    continue;
                }
            }
        }
        let params = match params::collect(server, attributes, policy, binding).await {
            Ok(params) => params,
            Err(why) => {
                failures.extend(misconfigured(Some(binding), &why));
                continue;
            }
        };
        for params in &params {
            let seen = Seen::new(server, attributes, &kind, object, old).await?;
            let invocation = Invocation { server, attributes, policy, binding, params, asker, kind: &kind };
            let errors = invocation.run(seen, object).await?;
            failures.extend(errors.iter().filter_map(|error| failed(Some(binding), error, "Invalid")));
        }
    }
    Ok(())
}

/// A policy, a binding and a param.
struct Invocation<'r> {
    server: &'r ApiServer,
    attributes: &'r Attributes<'r>,
    policy: &'r Policy,
    binding: &'r Binding,
    params: &'r Tree,
    asker: &'r Asker<'r>,
    kind: &'r std::sync::Arc<dyn skiff_kinds::Kind>,
}

impl Invocation<'_> {
    fn uid(&self) -> String {
        let (namespace, name) = (meta::namespace(self.params), meta::name(self.params));
        format!("{}/{}/{namespace}/{name}", self.policy.name, self.binding.name)
    }

    /// Makes all mutations; gives why some could not be made.
    async fn run(&self, mut seen: Seen, object: &mut Tree) -> ApiResult<Vec<String>> {
        let (policy, rounds) = (self.policy, self.attributes.rounds);
        let verdict = self
            .asker
            .settled(|| {
                let inputs = Inputs { namespace: &Tree::Null, ..seen.inputs(self.params) };
                evaluation::conditions(&Variables::new(&inputs, policy, self.asker), policy)
            })
            .await;
        match verdict {
            Verdict::Ask => {}
            Verdict::Skip => return Ok(Vec::new()),
            Verdict::Error(error) => return Ok(vec![error]),
        }
        // A second round asks nobody for the first time.
        let uid = self.uid();
        if rounds.is_second() && !rounds.with(PLUGIN, |callees| callees.wants(&uid)) {
            return Ok(Vec::new());
        }
        let before = seen.object().clone();
        let mut errors = Vec::new();
        for mutation in &policy.mutations {
            if seen.object().is_null() {
                continue;
            }
            let mutated = self
                .asker
                .settled(|| {
                    let inputs = seen.inputs(self.params);
                    let variables = Variables::new(&inputs, policy, self.asker);
                    self.mutated(mutation, &variables, seen.object())
                })
                .await;
            match mutated {
                Ok(mutated) => seen.set_object(mutated),
                Err(error) => errors.push(error),
            }
        }
        let is_changed = *seen.object() != before;
        if is_changed {
            *object = self.back(seen.object()).await?;
            rounds.ask();
        }
        rounds.with(PLUGIN, |callees| {
            if is_changed {
                callees.require_previous();
            }
            if policy.is_reinvoked {
                callees.add_previous(&uid);
            }
        });
        Ok(errors)
    }

    /// The object in the version of the request, with its defaults.
    async fn back(&self, seen: &Tree) -> ApiResult<Tree> {
        let own = &self.attributes.subject.kind;
        let is_foreign = matching::is_foreign(self.attributes);
        let is_own = self.kind.facts().api_version == own.facts().api_version || is_foreign;
        let mut object =
            if is_own { seen.clone() } else { matching::convert(self.server, self.kind, own, seen).await? };
        if !is_foreign {
            own.default(&mut object);
        }
        Ok(object)
    }

    fn mutated<'a>(
        &self,
        mutation: &'a Mutation,
        variables: &Variables<'_, 'a>,
        object: &Tree,
    ) -> Result<Tree, String> {
        let (Mutation::Apply(expression) | Mutation::JsonPatch(expression)) = mutation;
        if let Err(error) = &expression.program {
            return Err(error.clone());
        }
        let mut budget = RUNTIME_BUDGET;
        let value = variables.evaluate(expression, &mut budget)??;
        match mutation {
            Mutation::Apply(_) => self.applied(&value, object),
            Mutation::JsonPatch(_) => self.patched(&value, object),
        }
    }

    fn applied(&self, value: &Value<'_>, object: &Tree) -> Result<Tree, String> {
        let Value::Object(given) = value else {
            return Err(format!("unsupported return type from ApplyConfiguration expression: {}", value.type_of()));
        };
        let wrong = wrong_names(given, &given.name);
        if !wrong.is_empty() {
            return Err(format!("type mismatch: {}", wrong.join("\n")));
        }
        let mut config = value.to_tree().map_err(|error| error.to_string())?;
        for field in ["apiVersion", "kind"] {
            if let Some(value) = object.get(field) {
                config.ensure_map().insert(field, value.clone());
            }
        }
        let failed = |why: String| format!("error applying patch: {why}");
        let (schema, ty) = self.schema().ok_or_else(|| failed("type converter must not be nil".to_owned()))?;
        let typed = Typed::new(schema, ty);
        let problems = typed.validate(&config);
        if !problems.is_empty() {
            let why = problems.join("; ");
            return Err(failed(format!("failed to convert patch object to typed object: {why}")));
        }
        let atomics = typed.atomics(&config);
        if !atomics.is_empty() {
            let paths = atomics.join(", ");
            return Err(failed(format!(
                "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"
            )));
        }
        let merged = typed.merge(object, &config).map_err(|why| failed(format!("failed to merge patch: {why}")))?;
        self.conformed(merged).map_err(failed)
    }

    fn patched(&self, value: &Value<'_>, object: &Tree) -> Result<Tree, String> {
        let Value::List(operations) = value else {
            return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
        };
        let mut list = Vec::with_capacity(operations.len());
        for operation in operations.iter() {
            list.push(operation_tree(&operation.map_err(|error| error.to_string())?)?);
        }
        let mut document = object.clone();
        if let Some((schema, ty)) = self.schema() {
            conform::fill(&mut document, schema, ty);
        }
        match patch::json::apply(document, &Tree::List(list)) {
            Ok(patched) => self.conformed(patched),
            // A test that does not hold means: nothing to do.
            Err(error) if error.to_string().ends_with(": test failed") => Ok(object.clone()),
            Err(error) => Err(format!("JSON Patch: {error}")),
        }
    }

    /// The type of what is exchanged.
    fn schema(&self) -> Option<(&skiff_object::Schema, skiff_object::TypeId)> {
        let facts = self.kind.facts();
        if matching::is_foreign(self.attributes) {
            let sub = facts.subresource(&self.attributes.subject.subresource)?;
            return Some((skiff_kinds::schema(), sub.ty?));
        }
        Some((self.kind.schema(), facts.ty))
    }

    fn conformed(&self, tree: Tree) -> Result<Tree, String> {
        if tree.as_map().is_none() {
            return Err("the mutation left no object behind".to_owned());
        }
        match self.schema() {
            Some((schema, ty)) => {
                conform::conform(tree, schema, ty).map(|(tree, _)| tree).map_err(|error| error.to_string())
            }
            None => Ok(tree),
        }
    }
}

/// One operation of a patch.
fn operation_tree(operation: &Value<'_>) -> Result<Tree, String> {
    let Value::Object(fields) = operation else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".to_owned());
    };
    let mut tree = Tree::map();
    let text = |name: &str| fields.fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    tree.set(&["op"], text("op"));
    tree.set(&["path"], text("path"));
    let from = text("from");
    if !from.is_empty() {
        tree.set(&["from"], from);
    }
    if let Some(value) = fields.fields.get("value") {
        if let Value::Object(object) = value {
            let wrong = wrong_names(object, &object.name);
            if !wrong.is_empty() {
                return Err(format!("type mismatch: {}", wrong.join("\n")));
            }
        }
        let value = value.to_tree().map_err(|error| {
            format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}")
        })?;
        tree.set(&["value"], value);
    }
    Ok(tree)
}

/// Constructed objects whose type is not named after the field they are in.
fn wrong_names(object: &Object<'_>, expected: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if *object.name != *expected {
        wrong.push(format!(
            "unexpected type name {:?}, expected {expected:?}, which matches field name path from root Object type",
            &*object.name
        ));
    }
    for (field, value) in &object.fields {
        collect_wrong(value, &format!("{expected}.{field}"), &mut wrong);
    }
    wrong
}

fn collect_wrong(value: &Value<'_>, expected: &str, wrong: &mut Vec<String>) {
    match value {
        Value::Object(object) => wrong.extend(wrong_names(object, expected)),
        Value::List(list) => list.iter().flatten().for_each(|item| collect_wrong(&item, expected, wrong)),
        Value::Map(skiff_cel::Map::Values(values)) => {
            values.values().for_each(|value| collect_wrong(value, expected, wrong));
        }
        _ => {}
    }
}
