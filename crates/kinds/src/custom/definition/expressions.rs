//! Expressions of a definition: they compile, and what they can cost is within bounds
//! (`apiextensions-apiserver/pkg/apis/apiextensions/validation/cel_validation.go`).

use skiff_cel::DeclType;
use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};

use super::{items_of, properties_of};
use crate::custom::node::Rule;
use crate::custom::rules::{compile_rule, decl_of};

/// The most one expression may be estimated to cost. The number of upstream.
const RULE_COST_MAX: u64 = 10_000_000;
/// The most all expressions of a schema may be estimated to cost together. The number of upstream.
const SCHEMA_COST_MAX: u64 = 100_000_000;
/// As many expressions are named when they cost too much together.
const EXPENSIVE_NAMED: usize = 4;

/// Where in the schema expressions stand.
#[derive(Clone)]
struct Place {
    /// How many of this there can be in one object, when it is bounded.
    cardinality: Option<u64>,
    /// The outermost schema within which an old value cannot be found.
    uncorrelated: Option<String>,
}

struct Check<'a> {
    /// Whether single expressions may cost too much: they did before.
    tolerant: bool,
    total: u64,
    expensive: Vec<(u64, String)>,
    found: &'a mut Vec<FieldError>,
}

/// Everything wrong with the expressions of a schema that is valid otherwise.
pub(super) fn validate(schema: &Tree, path: &str, unchanged: bool, found: &mut Vec<FieldError>) {
    let mut check = Check { tolerant: unchanged, total: 0, expensive: Vec::new(), found };
    check.node(schema, path, &Place { cardinality: Some(1), uncorrelated: None }, true);
    if check.total > SCHEMA_COST_MAX {
        check.expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, path) in check.expensive.iter().take(EXPENSIVE_NAMED) {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            check.found.push(FieldError::forbidden(path, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        check.found.push(FieldError::forbidden(path, too_expensive(what, check.total, SCHEMA_COST_MAX)));
    }
}

fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

impl Check<'_> {
    fn node(&mut self, schema: &Tree, path: &str, place: &Place, root: bool) {
        // Upstream looks at what is below first.
        let bound = |name: &str| schema.int_at(&[name]).map(|bound| u64::try_from(bound).unwrap_or(0));
        let ty = schema.str_at(&["type"]);
        let factor = match ty {
            "object" if schema.get("additionalProperties").is_some_and(|it| !it.is_null()) => bound("maxProperties"),
            "array" => bound("maxItems"),
            _ => Some(1),
        };
        let cardinality = place.cardinality.zip(factor).map(|(have, more)| have.saturating_mul(more));
        let below = Place { cardinality, uncorrelated: place.uncorrelated.clone() };
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.as_map().is_some()) {
            self.node(values, &format!("{path}.additionalProperties"), &below, false);
        }
        for (name, property) in properties_of(schema) {
            let mut below = below.clone();
            if schema.str_at(&["x-kubernetes-map-type"]) == "atomic" {
                below.uncorrelated.get_or_insert_with(|| path.to_owned());
            }
            self.node(property, &format!("{path}.properties[{name}]"), &below, false);
        }
        if let Some(items) = items_of(schema) {
            let mut below = below.clone();
            if schema.str_at(&["x-kubernetes-list-type"]) != "map" {
                below.uncorrelated.get_or_insert_with(|| path.to_owned());
            }
            self.node(items, &format!("{path}.items"), &below, false);
        }
        let rules = schema.list_at(&["x-kubernetes-validations"]);
        if rules.is_empty() {
            return;
        }
        let Some(decl) = decl_of(schema, root) else {
            let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to \
                       convert structural schema to CEL declarations";
            self.found.push(FieldError::internal(format!("{path}.x-kubernetes-validations"), why));
            return;
        };
        for (index, rule) in rules.iter().enumerate() {
            self.rule(rule, &decl, &format!("{path}.x-kubernetes-validations[{index}]"), place);
        }
    }

    fn rule(&mut self, tree: &Tree, decl: &std::sync::Arc<DeclType>, path: &str, place: &Place) {
        let rule = Rule::read(tree);
        let compiled = compile_rule(&rule, decl);
        let field = format!("{path}.rule");
        let count = place.cardinality.unwrap_or_else(|| decl.cardinality_max());
        match &compiled.program {
            Ok(program) => self.cost(program.cost().max.saturating_mul(count), "estimated rule cost", &field),
            Err(why) => self.found.push(FieldError::invalid(&field, shown(&rule), why.as_str())),
        }
        let message = format!("{path}.messageExpression");
        match &compiled.message {
            Some(Ok(program)) => self.cost(program.cost().max, "estimated messageExpression cost", &message),
            Some(Err(why)) => self.found.push(FieldError::invalid(message, shown(&rule), why.as_str())),
            None => {}
        }
        if compiled.uses_old {
            if let Some(outer) = &place.uncorrelated {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {outer}");
                self.found.push(FieldError::invalid(field, &*rule.rule, why));
            }
        } else if let (Some(said), Ok(_)) = (rule.optional_old_self, &compiled.program) {
            let why = "may not be set if oldSelf is not used in rule";
            self.found.push(FieldError::invalid(format!("{path}.optionalOldSelf"), said, why));
        }
    }

    fn cost(&mut self, cost: u64, what: &str, path: &str) {
        if cost > RULE_COST_MAX && !self.tolerant {
            self.found.push(FieldError::forbidden(path, too_expensive(what, cost, RULE_COST_MAX)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_COST_MAX / 100 {
            self.expensive.push((cost, path.to_owned()));
        }
    }
}

/// A rule as upstream shows it: the fields of its Go struct.
fn shown(rule: &Rule) -> BadValue {
    let mut tree = Tree::map();
    let text = |text: &str| Tree::from(text);
    tree.set(&["Rule"], text(&rule.rule));
    tree.set(&["Message"], text(&rule.message));
    tree.set(&["MessageExpression"], text(&rule.message_expression));
    tree.set(&["Reason"], if rule.reason.is_empty() { Tree::Null } else { text(&rule.reason) });
    tree.set(&["FieldPath"], text(&rule.field_path));
    tree.set(&["OptionalOldSelf"], rule.optional_old_self.map_or(Tree::Null, Tree::Bool));
    BadValue::from(&tree)
}
