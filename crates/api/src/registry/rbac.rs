//! Who may grant what: nobody grants more than they hold, unless they may `escalate` or `bind`.

use std::collections::BTreeSet;

use skiff_object::{Tree, json};

use crate::authn::{MASTERS, UserInfo};
use crate::authz::rbac::Rule;
use crate::authz::{self, Attributes, Decision, Target};
use crate::errors::{ApiError, ApiResult, Qualified};
use crate::meta;
use crate::write::Writer;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Whether a kind is one of roles or bindings.
pub fn concerns(writer: &Writer<'_>) -> bool {
    writer.kind().facts().group == *GROUP && writer.subject.subresource.is_empty()
}

/// Asks whether the user may grant what `new` grants.
///
/// # Errors
/// 403 that lists what the user does not hold; 404 for a binding to a role that is not there.
pub async fn before_write(writer: &Writer<'_>, new: &Tree, old: Option<&Tree>) -> ApiResult<()> {
    if writer.user.in_group(MASTERS) || old.is_some_and(|old| is_only_for_the_collector(new, old)) {
        return Ok(());
    }
    match writer.kind().facts().plural.as_str() {
        "roles" | "clusterroles" => role(writer, new, old).await,
        _ => binding(writer, new).await,
    }
}

/// The garbage collector must be able to take an owner away from what it could not grant.
fn is_only_for_the_collector(new: &Tree, old: &Tree) -> bool {
    let without = |tree: &Tree| {
        let mut tree = tree.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            tree.unset(&["metadata", field]);
        }
        json::encode_untyped(&tree)
    };
    without(new) == without(old)
}

async fn role(writer: &Writer<'_>, new: &Tree, old: Option<&Tree>) -> ApiResult<()> {
    let plural = writer.kind().facts().plural.as_str();
    let name = if writer.subject.name.is_empty() { "" } else { meta::name(new) };
    if allowed(writer, "escalate", plural, name, &writer.subject.namespace).await {
        return Ok(());
    }
    let rules: Vec<Rule> = new.list_at(&["rules"]).iter().map(Rule::of).collect();
    confirm(writer, new, &rules)?;
    let gathers = |tree: &Tree| !tree.list_at(&["aggregationRule", "clusterRoleSelectors"]).is_empty();
    if (gathers(new) || old.is_some_and(gathers)) && confirm(writer, new, &everything()).is_err() {
        let why = "must have cluster-admin privileges to use the aggregationRule";
        return Err(ApiError::forbidden(writer.subject.resource(), meta::name(new), why));
    }
    Ok(())
}

async fn binding(writer: &Writer<'_>, new: &Tree) -> ApiResult<()> {
    let name = new.str_at(&["roleRef", "name"]);
    let (plural, namespace) = match new.str_at(&["roleRef", "kind"]) {
        "Role" => ("roles", writer.subject.namespace.as_str()),
        "ClusterRole" => ("clusterroles", ""),
        // Validation says what is wrong with it.
        _ => return Ok(()),
    };
    if allowed(writer, "bind", plural, name, &writer.subject.namespace).await {
        return Ok(());
    }
    let stored = writer.server.collection(GROUP, plural).get(namespace, name).await?;
    let stored = stored.ok_or_else(|| ApiError::not_found(Qualified { group: GROUP, name: plural }, name))?;
    let role = decoded(&stored.value)?;
    let rules: Vec<Rule> = role.list_at(&["rules"]).iter().map(Rule::of).collect();
    confirm(writer, new, &rules)
}

fn decoded(value: &[u8]) -> ApiResult<Tree> {
    json::decode_untyped(value).map_err(|error| ApiError::internal(error.to_string()))
}

async fn allowed(writer: &Writer<'_>, verb: &str, resource: &str, name: &str, namespace: &str) -> bool {
    let target = Target::Resource { group: GROUP, version: "v1", resource, subresource: "", namespace, name };
    let attributes = Attributes::new(writer.user, verb, target);
    let decision = authz::decide(writer.server.config.authorizer.as_ref(), &attributes).await;
    matches!(decision, Decision::Allow(_))
}

fn everything() -> Vec<Rule> {
    let all = || vec!["*".to_owned()];
    vec![
        Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), urls: all(), ..Rule::default() },
    ]
}

/// Whether the user holds all of `rules` where they are to be granted.
fn confirm(writer: &Writer<'_>, object: &Tree, rules: &[Rule]) -> ApiResult<()> {
    let roles = writer.server.config.authorizer.roles();
    let held = roles.map(|roles| roles.held(writer.user, &writer.subject.namespace)).unwrap_or_default();
    let missing = missing(&held, rules);
    if missing.is_empty() {
        return Ok(());
    }
    let why = refusal(writer.user, &missing);
    Err(ApiError::forbidden(writer.subject.resource(), meta::name(object), &why))
}

fn refusal(user: &UserInfo, missing: &[Rule]) -> String {
    let lines: BTreeSet<String> = compact(missing).iter().map(described).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        lines.join("\n")
    )
}

/// The parts of `rules` that no rule of `held` covers, one verb on one thing each.
pub(crate) fn missing(held: &[Rule], rules: &[Rule]) -> Vec<Rule> {
    rules.iter().flat_map(parts).filter(|part| !held.iter().any(|rule| covers(rule, part))).collect()
}

/// A rule taken apart into one verb on one thing each.
fn parts(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut parts = Vec::new();
    for group in &rule.groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let part = Rule { verbs: one(verb), groups: one(group), resources: one(resource), ..Rule::default() };
                if rule.names.is_empty() {
                    parts.push(part);
                    continue;
                }
                parts.extend(rule.names.iter().map(|name| Rule { names: one(name), ..part.clone() }));
            }
        }
    }
    for url in &rule.urls {
        parts.extend(rule.verbs.iter().map(|verb| Rule { verbs: one(verb), urls: one(url), ..Rule::default() }));
    }
    parts
}

fn covers(rule: &Rule, part: &Rule) -> bool {
    let has = |list: &[String], wanted: &[String]| {
        list.iter().any(|one| one == "*") || wanted.iter().all(|one| list.contains(one))
    };
    let resource = |wanted: &String| {
        rule.resources.contains(wanted)
            || wanted.split_once('/').is_some_and(|(_, sub)| rule.resources.contains(&format!("*/{sub}")))
    };
    let url = |wanted: &String| {
        rule.urls.iter().any(|held| {
            held == wanted
                || held.strip_suffix('*').is_some_and(|prefix| wanted.starts_with(prefix.trim_end_matches('*')))
        })
    };
    has(&rule.verbs, &part.verbs)
        && has(&rule.groups, &part.groups)
        && (rule.resources.iter().any(|one| one == "*") || part.resources.iter().all(resource))
        && part.urls.iter().all(url)
        && (rule.names.is_empty()
            || (!part.names.is_empty() && part.names.iter().all(|name| rule.names.contains(name))))
}

/// Verbs on the same thing put together.
fn compact(rules: &[Rule]) -> Vec<Rule> {
    let mut together: Vec<Rule> = Vec::new();
    for rule in rules {
        let same = |one: &&mut Rule| {
            rule.urls.is_empty()
                && one.urls.is_empty()
                && (&one.groups, &one.resources, &one.names) == (&rule.groups, &rule.resources, &rule.names)
        };
        match together.iter_mut().find(same) {
            Some(one) => one.verbs.extend(rule.verbs.iter().cloned()),
            None => together.push(rule.clone()),
        }
    }
    together
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`
fn described(rule: &Rule) -> String {
    let fields = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.urls),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ];
    let fields = fields.iter().filter(|(_, list)| !list.is_empty());
    let fields: Vec<String> = fields.map(|(name, list)| format!("{name}:{}", quoted(list))).collect();
    format!("{{{}}}", fields.join(", "))
}

/// As Go's `%q` writes a list.
fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        let mut words = text.split(' ').map(|word| word.split(',').map(|one| one.replace("core", "")).collect());
        let mut next = || words.next().unwrap_or_default();
        let (verbs, groups, resources, names) = (next(), next(), next(), next());
        Rule { verbs, groups, resources, names, ..Rule::default() }
    }

    #[track_caller]
    fn check(held: &[&str], wanted: &str, expected: &[&str]) {
        let held: Vec<Rule> = held.iter().map(|text| rule(text)).collect();
        let missing: Vec<String> = compact(&missing(&held, &[rule(wanted)])).iter().map(described).collect();
        assert_eq!(missing, expected);
    }

    #[test]
    fn what_is_not_held_is_listed_by_thing() {
        check(&["* * *"], "get,list core,apps pods", &[]);
        check(
            &["get core pods"],
            "get,list,watch core pods",
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#],
        );
        check(&["get core */scale"], "get core deployments/scale", &[]);
        check(&["get core pods a"], "get core pods a", &[]);
        check(&["get core pods a"], "get core pods", &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#]);
        check(
            &[],
            "get core secrets x",
            &[r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["x"], Verbs:["get"]}"#],
        );
    }
}
