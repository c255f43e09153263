//! What a later start makes of a role or binding that every cluster begins with.
//!
//! Upstream's rules: what is missing is added and nothing is taken away, unless the object says
//! that it is to be left alone; labels and annotations that are there stay as they are. A binding
//! cannot be pointed at another role, so one that points elsewhere is made anew.

use skiff_object::Tree;

use super::policy::AUTOUPDATE;
use super::rbac::Rule;
use crate::registry::rbac::missing;

/// What is to be done with the stored object.
#[derive(Clone, Debug, PartialEq)]
pub enum Reconciled {
    /// Nothing.
    Kept,
    /// It becomes this.
    Changed(Tree),
    /// It is deleted and made as it is wanted.
    Remade,
}

/// Compares what is stored with what is wanted.
pub fn reconciled(existing: &Tree, wanted: &Tree) -> Reconciled {
    if existing.str_at(&["metadata", "annotations", AUTOUPDATE]) == "false" {
        return Reconciled::Kept;
    }
    if wanted.get("roleRef").is_some() && differs(existing, wanted) {
        return Reconciled::Remade;
    }
    let mut result = existing.clone();
    let mut changed = false;
    for field in ["annotations", "labels"] {
        let Some(items) = wanted.at(&["metadata", field]).and_then(Tree::as_map) else { continue };
        for (key, value) in items.iter() {
            if existing.at(&["metadata", field, key.as_str()]).is_none() {
                let metadata = result.ensure_map().entry_or("metadata", Tree::map).ensure_map();
                metadata.entry_or(field, Tree::map).ensure_map().insert(key.clone(), value.clone());
                changed = true;
            }
        }
    }
    let mut additions = vec![(["subjects"].as_slice(), lacking(existing, wanted, &["subjects"], &SUBJECT))];
    match wanted.get("aggregationRule") {
        // Its rules are the business of the controller that gathers them.
        Some(_) => {
            let selectors = ["aggregationRule", "clusterRoleSelectors"].as_slice();
            let has = existing.list_at(selectors);
            let lacking = wanted.list_at(selectors).iter().filter(|one| !has.contains(one)).cloned().collect();
            additions.push((&["aggregationRule", "clusterRoleSelectors"], lacking));
        }
        None => additions.push((&["rules"], missing_rules(existing, wanted))),
    }
    for (path, lacking) in additions {
        if lacking.is_empty() {
            continue;
        }
        result.set(path, [existing.list_at(path), &lacking].concat());
        changed = true;
    }
    if changed { Reconciled::Changed(result) } else { Reconciled::Kept }
}

const SUBJECT: [&str; 3] = ["kind", "namespace", "name"];

fn differs(existing: &Tree, wanted: &Tree) -> bool {
    ["apiGroup", "kind", "name"].iter().any(|field| {
        let path = ["roleRef", *field];
        existing.str_at(&path) != wanted.str_at(&path)
    })
}

/// The items of `wanted` that are not in `existing` by these fields.
fn lacking(existing: &Tree, wanted: &Tree, path: &[&str], by: &[&str]) -> Vec<Tree> {
    let same = |one: &Tree, other: &Tree| by.iter().all(|field| one.str_at(&[field]) == other.str_at(&[field]));
    let has = existing.list_at(path);
    wanted.list_at(path).iter().filter(|item| !has.iter().any(|old| same(old, item))).cloned().collect()
}

/// What no rule of `existing` covers, one verb on one thing each.
fn missing_rules(existing: &Tree, wanted: &Tree) -> Vec<Tree> {
    let rules = |tree: &Tree| tree.list_at(&["rules"]).iter().map(Rule::of).collect::<Vec<_>>();
    missing(&rules(existing), &rules(wanted)).iter().map(to_tree).collect()
}

fn to_tree(rule: &Rule) -> Tree {
    let mut tree = Tree::map();
    for (field, items) in [
        ("verbs", &rule.verbs),
        ("apiGroups", &rule.groups),
        ("resources", &rule.resources),
        ("resourceNames", &rule.names),
        ("nonResourceURLs", &rule.urls),
    ] {
        if !items.is_empty() {
            tree.set(&[field], items.iter().map(|item| Tree::from(item.as_str())).collect::<Vec<_>>());
        }
    }
    tree
}

#[cfg(test)]
mod tests {
    use skiff_object::json;

    use super::*;

    fn tree(text: &str) -> Tree {
        json::decode_untyped(text.as_bytes()).unwrap()
    }

    #[track_caller]
    fn check(existing: &str, wanted: &str, expected: &str) {
        match reconciled(&tree(existing), &tree(wanted)) {
            Reconciled::Kept => assert_eq!("kept", expected),
            Reconciled::Remade => assert_eq!("made anew", expected),
            Reconciled::Changed(changed) => assert_eq!(changed, tree(expected)),
        }
    }

    const WANTED: &str = r#"{"metadata":{"labels":{"a":"b"},"annotations":{"rbac.authorization.kubernetes.io/autoupdate":"true"}},
        "rules":[{"verbs":["get","list"],"apiGroups":[""],"resources":["pods"]}]}"#;

    #[test]
    fn missing_rules_are_added_and_what_is_more_stays() {
        let with = |rules: &str| {
            format!(
                r#"{{"metadata":{{"annotations":{{"rbac.authorization.kubernetes.io/autoupdate":"true"}},"labels":{{"a":"c"}}}},"rules":[{rules}]}}"#
            )
        };
        let more = r#"{"apiGroups":["*"],"resources":["*"],"verbs":["get","list","watch"]}"#;
        check(&with(more), WANTED, "kept");
        let less = r#"{"apiGroups":[""],"resources":["pods","nodes"],"verbs":["get"]}"#;
        let added = r#"{"apiGroups":[""],"resources":["pods"],"verbs":["list"]}"#;
        check(&with(less), WANTED, &with(&format!("{less},{added}")));
    }

    #[test]
    fn what_is_to_be_left_alone_is_left_alone_and_what_says_nothing_is_not() {
        check(
            r#"{"metadata":{"annotations":{"rbac.authorization.kubernetes.io/autoupdate":"false"}}}"#,
            WANTED,
            "kept",
        );
        check(
            r#"{"metadata":{"labels":{"a":"b"}},"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}"#,
            WANTED,
            r#"{"metadata":{"annotations":{"rbac.authorization.kubernetes.io/autoupdate":"true"},"labels":{"a":"b"}},"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]}"#,
        );
    }

    #[test]
    fn bindings_get_their_subjects_and_are_made_anew_for_another_role() {
        let of = |role: &str, subjects: &str| {
            format!(r#"{{"roleRef":{{"apiGroup":"g","kind":"ClusterRole","name":"{role}"}},"subjects":[{subjects}]}}"#)
        };
        let (one, two) = (r#"{"apiGroup":"g","kind":"User","name":"a"}"#, r#"{"kind":"Group","name":"b"}"#);
        check(&of("x", two), &of("x", one), &of("x", &format!("{two},{one}")));
        check(&of("x", &format!("{two},{one}")), &of("x", one), "kept");
        check(&of("y", one), &of("x", one), "made anew");
    }

    #[test]
    fn gathering_roles_get_their_selectors_and_not_their_rules() {
        let of = |label: &str| {
            format!(r#"{{"aggregationRule":{{"clusterRoleSelectors":[{{"matchLabels":{{"{label}":"true"}}}}]}}}}"#)
        };
        let wanted = of("a").replacen('{', r#"{"rules":[{"verbs":["get"]}],"#, 1);
        check(&of("a"), &wanted, "kept");
        let both = r#"{"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"b":"true"}},{"matchLabels":{"a":"true"}}]}}"#;
        check(&of("b"), &wanted, both);
    }
}
