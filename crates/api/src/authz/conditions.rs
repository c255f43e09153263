//! Which requests a webhook is asked about: CEL over the review that it would be sent.

use serde_json::Value;
use skiff_cel::{Env, MATCH_CONDITIONS_BUDGET, Program, Type, Vars};
use skiff_object::{Tree, json};

/// All must hold; none is always.
#[derive(Debug, Default)]
pub struct Conditions(Vec<Program>);

const REQUEST: &str = "kubernetes.SubjectAccessReviewSpec";
const RESOURCE: &str = "kubernetes.ResourceAttributes";
const PATH: &str = "kubernetes.NonResourceAttributes";
const FIELD_SELECTOR: &str = "kubernetes.FieldSelectorAttributes";
const LABEL_SELECTOR: &str = "kubernetes.LabelSelectorAttributes";
const REQUIREMENT: &str = "kubernetes.SelectorRequirement";

fn env() -> Env {
    let texts = || Type::list(Type::String);
    let requirements = || [("rawSelector", Type::String), ("requirements", Type::list(Type::object(REQUIREMENT)))];
    let resource = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];
    let resource = resource
        .into_iter()
        .map(|field| (field, Type::String))
        .chain([("fieldSelector", Type::object(FIELD_SELECTOR)), ("labelSelector", Type::object(LABEL_SELECTOR))]);
    let request = [
        ("resourceAttributes", Type::object(RESOURCE)),
        ("nonResourceAttributes", Type::object(PATH)),
        ("user", Type::String),
        ("groups", texts()),
        ("extra", Type::map(Type::String, texts())),
        ("uid", Type::String),
    ];
    Env::kubernetes()
        .object(REQUIREMENT, [("key", Type::String), ("operator", Type::String), ("values", texts())])
        .object(FIELD_SELECTOR, requirements())
        .object(LABEL_SELECTOR, requirements())
        .object(RESOURCE, resource)
        .object(PATH, [("path", Type::String), ("verb", Type::String)])
        .object(REQUEST, request)
        .variable("request", Type::object(REQUEST))
}

impl Conditions {
    /// Adds one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add(&mut self, source: &str) -> Result<(), String> {
        let program = env().compile(source).map_err(|error| error.to_string())?;
        if !matches!(program.output_type(), Type::Bool | Type::Dyn) {
            return Err("must evaluate to bool".into());
        }
        self.0.push(program);
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold for the `spec` of a review. One that does not outweighs those that fail.
    ///
    /// # Errors
    /// The first failure.
    pub fn hold(&self, spec: &Value) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let tree: Tree = json::decode_untyped(spec.to_string().as_bytes()).map_err(|error| error.to_string())?;
        let mut failure = None;
        let mut budget = MATCH_CONDITIONS_BUDGET;
        for program in &self.0 {
            let vars = Vars::new().with("request", skiff_cel::Value::dynamic(&tree));
            let outcome = program.eval(&vars, None, budget);
            budget = budget.saturating_sub(outcome.cost);
            match outcome.value.map(|value| value.as_bool()) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Ok(false),
                Ok(None) => _ = failure.get_or_insert_with(|| "the condition gives no bool".to_owned()),
                Err(error) => _ = failure.get_or_insert_with(|| error.to_string()),
            }
        }
        failure.map_or(Ok(true), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_must_hold_and_one_that_does_not_outweighs_failures() {
        let spec = serde_json::json!({"user": "jane", "resourceAttributes": {"namespace": "a", "verb": "get"}});
        let hold = |sources: &[&str]| {
            let mut conditions = Conditions::default();
            sources.iter().for_each(|source| conditions.add(source).unwrap());
            conditions.hold(&spec)
        };
        assert_eq!(hold(&[]), Ok(true));
        assert_eq!(hold(&["has(request.resourceAttributes)", "request.resourceAttributes.namespace == 'a'"]), Ok(true));
        assert_eq!(hold(&["request.user == 'bob'"]), Ok(false));
        assert!(hold(&["request.extra['x'][0] == 'y'"]).is_err());
        assert_eq!(hold(&["request.extra['x'][0] == 'y'", "request.user == 'bob'"]), Ok(false));
        assert!(Conditions::default().add("request.nope").is_err());
        assert!(Conditions::default().add("request.user").is_err());
    }
}
