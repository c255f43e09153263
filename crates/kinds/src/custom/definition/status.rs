//! What the status of a definition should say: which names it has, whether it is served.
//!
//! Upstream spreads this over five controllers; here it is one function of the definition and of the names that
//! other definitions of its group hold.

use std::collections::HashSet;

use skiff_object::errors::quote;
use skiff_object::{Map, Tree};

use super::{approval, structural};

/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Names that definitions of one group hold.
#[derive(Clone, Debug, Default)]
pub struct Names {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl Names {
    /// Adds the names that a definition was granted (`status.acceptedNames`).
    pub fn add(&mut self, accepted: &Tree) {
        let text = |field: &str| Some(accepted.str_at(&[field]).to_owned()).filter(|name| !name.is_empty());
        self.resources.extend(text("plural"));
        self.resources.extend(text("singular"));
        self.resources.extend(accepted.list_at(&["shortNames"]).iter().filter_map(Tree::as_str).map(str::to_owned));
        self.kinds.extend(text("kind"));
        self.kinds.extend(text("listKind"));
    }
}

/// The definition with the status that it should have. `others` are the names of the other definitions of its group.
pub fn plan(definition: &Tree, others: &Names, now: &str) -> Tree {
    let mut planned = definition.clone();
    let conflict = accept(&mut planned, others);
    match &conflict {
        None => set_condition(&mut planned, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
        Some((reason, message)) => set_condition(&mut planned, "NamesAccepted", "False", reason, message, now),
    }
    // A definition that was served once stays served under the names it has.
    if !is_true(&planned, "Established") {
        match conflict {
            None => {
                let message = "the initial names have been accepted";
                set_condition(&mut planned, "Established", "True", "InitialNamesAccepted", message, now);
            }
            Some(_) => {
                let message = "not all names are accepted";
                set_condition(&mut planned, "Established", "False", "NotAccepted", message, now);
            }
        }
    }
    if let Some((status, reason, message)) = approval::condition(definition) {
        set_condition(&mut planned, "KubernetesAPIApprovalPolicyConformant", status, reason, &message, now);
    }
    let violations = structural::violations(definition);
    if !violations.is_empty() {
        let message = skiff_object::errors::message(&violations);
        set_condition(&mut planned, "NonStructuralSchema", "True", "Violations", &message, now);
    } else if let Some(Tree::List(conditions)) = planned.at_mut(&["status", "conditions"]) {
        conditions.retain(|one| one.str_at(&["type"]) != "NonStructuralSchema");
    }
    planned
}

/// Grants the names that are free; the last conflict, if there is one, with its reason.
fn accept(definition: &mut Tree, others: &Names) -> Option<(&'static str, String)> {
    let requested = definition.at(&["spec", "names"]).cloned().unwrap_or_else(Tree::map);
    let mut accepted = definition.at(&["status", "acceptedNames"]).cloned().unwrap_or_else(Tree::map);
    let mut conflict = None;
    for (field, reason, used) in [
        ("plural", "PluralConflict", &others.resources),
        ("singular", "SingularConflict", &others.resources),
        ("kind", "KindConflict", &others.kinds),
        ("listKind", "ListKindConflict", &others.kinds),
    ] {
        let wanted = requested.str_at(&[field]);
        if wanted != accepted.str_at(&[field]) && used.contains(wanted) {
            conflict = Some((reason, format!("{} is already in use", quote(wanted))));
        } else if requested.get(field).is_some() {
            accepted.set(&[field], wanted);
        }
        if field == "singular" {
            let taken = taken_short_names(&requested, &accepted, others);
            match taken.as_slice() {
                [] => copy(&requested, &mut accepted, "shortNames"),
                [one] => conflict = Some(("ShortNamesConflict", one.clone())),
                many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
            }
        }
    }
    copy(&requested, &mut accepted, "categories");
    definition.set(&["status", "acceptedNames"], accepted);
    conflict
}

fn taken_short_names(requested: &Tree, accepted: &Tree, others: &Names) -> Vec<String> {
    let ours = accepted.list_at(&["shortNames"]);
    let wanted = requested.list_at(&["shortNames"]).iter();
    let taken = wanted.filter(|name| !ours.contains(name)).filter_map(Tree::as_str);
    taken
        .filter(|name| others.resources.contains(*name))
        .map(|name| format!("{} is already in use", quote(name)))
        .collect()
}

fn copy(from: &Tree, to: &mut Tree, field: &'static str) {
    match from.get(field) {
        Some(value) => to.set(&[field], value.clone()),
        None => {
            to.unset(&[field]);
        }
    }
}

/// Whether a condition holds.
pub fn is_true(definition: &Tree, ty: &str) -> bool {
    let conditions = definition.list_at(&["status", "conditions"]);
    conditions.iter().any(|one| one.str_at(&["type"]) == ty && one.str_at(&["status"]) == "True")
}

/// Sets a condition; its time changes only with its status.
pub fn set_condition(definition: &mut Tree, ty: &str, status: &str, reason: &str, message: &str, now: &str) {
    let whole = definition.ensure_map().entry_or("status", Tree::map).ensure_map();
    let conditions = whole.entry_or("conditions", Tree::list);
    if !matches!(conditions, Tree::List(_)) {
        *conditions = Tree::list();
    }
    let Tree::List(conditions) = conditions else { return };
    if let Some(found) = conditions.iter_mut().find(|one| one.str_at(&["type"]) == ty) {
        if found.str_at(&["status"]) != status {
            found.set(&["lastTransitionTime"], now);
        }
        for (key, text) in [("status", status), ("reason", reason), ("message", message)] {
            found.set(&[key], text);
        }
        return;
    }
    let mut fresh = Map::new();
    for (key, text) in
        [("type", ty), ("status", status), ("lastTransitionTime", now), ("reason", reason), ("message", message)]
    {
        fresh.insert(key, text);
    }
    conditions.push(Tree::Map(fresh));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(kind: &str, short: &str) -> Tree {
        skiff_object::json::decode_untyped(
            format!(
                r#"{{"spec":{{"group":"sea.io","names":{{"plural":"boats","singular":"boat","kind":"{kind}",
                "listKind":"{kind}List","shortNames":["{short}"]}},"versions":[]}}}}"#
            )
            .as_bytes(),
        )
        .unwrap()
    }

    fn reason(definition: &Tree, ty: &str) -> String {
        let conditions = definition.list_at(&["status", "conditions"]).iter();
        let found = conditions.filter(|one| one.str_at(&["type"]) == ty);
        found
            .map(|one| format!("{} {}: {}", one.str_at(&["status"]), one.str_at(&["reason"]), one.str_at(&["message"])))
            .collect()
    }

    #[test]
    fn free_names_are_granted_and_taken_ones_named() {
        let planned = plan(&definition("Boat", "bo"), &Names::default(), "now");
        assert_eq!(reason(&planned, "Established"), "True InitialNamesAccepted: the initial names have been accepted");
        let mut others = Names::default();
        others.add(&planned.at(&["status", "acceptedNames"]).cloned().unwrap());
        let refused = plan(&definition("Boat", "bo"), &others, "now");
        assert_eq!(reason(&refused, "NamesAccepted"), r#"False ListKindConflict: "BoatList" is already in use"#);
        assert_eq!(reason(&refused, "Established"), "False NotAccepted: not all names are accepted");
        let mut others = Names::default();
        others.add(&skiff_object::json::decode_untyped(br#"{"shortNames":["bo"]}"#).unwrap());
        let mut partly = plan(&definition("Boat", "bo"), &others, "now");
        assert_eq!(reason(&partly, "NamesAccepted"), r#"False ShortNamesConflict: "bo" is already in use"#);
        assert_eq!(partly.str_at(&["status", "acceptedNames", "kind"]), "Boat");
        // Names that become free are granted later; what was served once stays served.
        partly = plan(&partly, &Names::default(), "later");
        assert_eq!(reason(&partly, "NamesAccepted"), "True NoConflicts: no conflicts found");
        assert_eq!(plan(&partly, &Names::default(), "much later"), partly);
    }
}
