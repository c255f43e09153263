//! `limitedResources`: what nobody may use unless a quota speaks of it.

use std::collections::BTreeSet;

use skiff_object::Tree;

use super::usage;
use crate::admission::pod_resources::Amounts;

/// One limited resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    group: String,
    resource: String,
    /// Parts of the names of amounts (`requests.cpu`) that a quota has to limit.
    contains: Vec<String>,
    /// Scopes that a quota has to have, as in a `scopeSelector`.
    scopes: Vec<Scope>,
}

/// `ScopedResourceSelectorRequirement`
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

impl Scope {
    /// As Go prints it.
    fn shown(&self) -> String {
        format!("{{{} {} [{}]}}", self.name, self.operator, self.values.join(" "))
    }

    /// Whether the scope has the object.
    fn has(&self, plural: &str, object: &Tree) -> bool {
        let mut expression = Tree::map();
        expression.set(&["scopeName"], self.name.as_str());
        expression.set(&["operator"], self.operator.as_str());
        if !self.values.is_empty() {
            let values: Vec<Tree> = self.values.iter().map(|value| Tree::from(value.as_str())).collect();
            expression.set(&["values"], values);
        }
        let mut quota = Tree::map();
        quota.set(&["spec", "scopeSelector", "matchExpressions"], vec![expression]);
        usage::is_in_scope(&quota, plural, object)
    }
}

/// Reads `limitedResources`.
///
/// # Errors
/// The first item without a resource.
pub fn read(config: &Tree) -> Result<Vec<Limited>, String> {
    let texts = |tree: &Tree, field: &str| {
        tree.list_at(&[field]).iter().filter_map(Tree::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for (at, one) in config.list_at(&["limitedResources"]).iter().enumerate() {
        if one.str_at(&["resource"]).is_empty() {
            return Err(format!("limitedResources[{at}].resource: Required value"));
        }
        let scopes = one.list_at(&["matchScopes"]).iter().map(|scope| Scope {
            name: scope.str_at(&["scopeName"]).to_owned(),
            operator: scope.str_at(&["operator"]).to_owned(),
            values: texts(scope, "values"),
        });
        all.push(Limited {
            group: one.str_at(&["apiGroup"]).to_owned(),
            resource: one.str_at(&["resource"]).to_owned(),
            contains: texts(one, "matchContains"),
            scopes: scopes.collect(),
        });
    }
    Ok(all)
}

/// Why an object may not use what it asks for: no quota of `quotas`, which are those whose scopes have it, speaks of it.
pub(super) fn refusal(
    limited: &[Limited],
    (group, plural): (&str, &str),
    object: &Tree,
    asked: &Amounts,
    quotas: &[Tree],
) -> Option<String> {
    let concerned = || limited.iter().filter(|one| one.resource == plural && one.group == group);
    let mut names: BTreeSet<&str> = concerned()
        .flat_map(|one| one.contains.iter())
        .flat_map(|part| asked.keys().filter(move |name| name.contains(part.as_str())))
        .map(String::as_str)
        .collect();
    let mut scopes: Vec<&Scope> =
        concerned().flat_map(|one| one.scopes.iter()).filter(|scope| scope.has(plural, object)).collect();
    for quota in quotas {
        let hard = quota.at(&["spec", "hard"]);
        names.retain(|name| hard.and_then(|hard| hard.get(name)).is_none());
        let selected = quota.list_at(&["spec", "scopeSelector", "matchExpressions"]);
        let plain = quota.list_at(&["spec", "scopes"]);
        scopes.retain(|scope| {
            !selected.iter().any(|one| one.str_at(&["scopeName"]) == scope.name)
                && !plain.iter().any(|one| one.as_str() == Some(&scope.name))
        });
    }
    if !names.is_empty() {
        let names: Vec<&str> = names.into_iter().collect();
        return Some(format!("insufficient quota to consume: {}", names.join(",")));
    }
    if !scopes.is_empty() {
        let scopes: Vec<String> = scopes.iter().map(|scope| scope.shown()).collect();
        return Some(format!("insufficient quota to match these scopes: [{}]", scopes.join(" ")));
    }
    None
}
