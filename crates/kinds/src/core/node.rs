//! `nodes` in `v1`.

use std::borrow::Cow;
use std::collections::HashSet;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::time::Time;
use skiff_object::{Map, Tree, name, net};

use crate::checks::{self, Found, SPEC, resources};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, fill, rules};

/// A machine that runs pods.
pub(crate) struct Node(pub(crate) Facts);

impl Kind for Node {
    fn facts(&self) -> &Facts {
        &self.0
    }

    /// A kubelet registers with its whole status: unlike elsewhere, it is kept.
    fn prepare_create(&self, object: &mut Tree) {
        object.unset(&["metadata", "generation"]);
    }

    fn default(&self, object: &mut Tree) {
        pod_blocks(object);
        for list in ["capacity", "allocatable"] {
            fill::round_resources(object, &["status", list]);
        }
        let capacity = object.at(&["status", "capacity"]).cloned();
        if let Some(capacity @ Tree::Map(_)) = capacity {
            fill::absent(fill::within(object, "status"), "allocatable", capacity);
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let ready = object.list_at(&["status", "conditions"]).iter().find(|one| one.str_at(&["type"]) == "Ready");
        let mut status = match ready.map(|one| one.str_at(&["status"])) {
            Some("True") => "Ready",
            Some(_) => "NotReady",
            None => "Unknown",
        }
        .to_owned();
        if object.bool_at(&["spec", "unschedulable"]) == Some(true) {
            status.push_str(",SchedulingDisabled");
        }
        let info = |field: &str| cells::text_or(object, &["status", "nodeInfo", field], "<unknown>");
        vec![
            cells::name(object),
            status.into(),
            roles(object).into(),
            cells::age(object, now),
            cells::text(object, &["status", "nodeInfo", "kubeletVersion"]),
            address(object, "InternalIP"),
            address(object, "ExternalIP"),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        taints(&mut found, spec);
        checks::each_text(spec, "podCIDRs", SPEC, |text, path| {
            checks::invalid(&mut found, path, text, net::cidr(text));
        });
        let blocks = spec.list_at(&["podCIDRs"]);
        let pair = blocks.len() == 2 && net::is_dual_stack(blocks.iter().filter_map(Tree::as_str));
        if blocks.len() > 1 && !pair {
            let value = BadValue::from(spec.get("podCIDRs"));
            let why = "may specify no more than one CIDR for each IP family";
            found.push(FieldError::invalid(SPEC.child("podCIDRs"), value, why));
        }
        amounts(&mut found, object);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        taints(&mut found, checks::spec(new));
        amounts(&mut found, new);
        let addresses = new.list_at(&["status", "addresses"]);
        for (index, address) in addresses.iter().enumerate() {
            if addresses[..index].iter().any(|other| rules::same(Some(other), Some(address))) {
                let path = format!("status.addresses[{index}]");
                found.push(FieldError::duplicate(path, BadValue::from(address)));
            }
        }
        for (field, shown) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
            let [new, old] = [new, old].map(|node| node.at(&["spec", field]));
            if !rules::same(old, None) && old != Some(&Tree::from("")) && !rules::same(new, old) {
                let why = format!("node updates may not change {shown} except from \"\" to valid");
                found.push(FieldError::forbidden(SPEC.child(field), why));
            }
        }
        if ["configSource", "externalID"]
            .iter()
            .any(|field| !rules::same(new.at(&["spec", field]), old.at(&["spec", field])))
        {
            let why = "node updates may only change labels, taints, or capacity (or configSource, if the \
                       DynamicKubeletConfig feature gate is enabled)";
            found.push(FieldError::forbidden("[]", why));
        }
        found
    }

    fn validate_subresource(&self, _: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
        self.validate_update(new, old)
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Status", "string", "Whether it is ready, and for pods."),
    Column::new("Roles", "string", "What it is for."),
    cells::AGE,
    Column::new("Version", "string", "The version of its kubelet."),
    Column::wide("Internal-IP", "string", "Its address inside."),
    Column::wide("External-IP", "string", "Its address outside."),
    Column::wide("OS-Image", "string", "Its operating system."),
    Column::wide("Kernel-Version", "string", "Its kernel."),
    Column::wide("Container-Runtime", "string", "Its container runtime."),
];

/// `podCIDR` is the first of `podCIDRs`, whichever of them is given.
fn pod_blocks(object: &mut Tree) {
    let one = object.str_at(&["spec", "podCIDR"]).to_owned();
    let first = object.list_at(&["spec", "podCIDRs"]).first().and_then(Tree::as_str).unwrap_or("").to_owned();
    if !one.is_empty() && one != first {
        object.set(&["spec", "podCIDRs"], vec![Tree::from(one)]);
    } else if one.is_empty() && !first.is_empty() {
        object.set(&["spec", "podCIDR"], first);
    }
}

fn taints(found: &mut Found, spec: &Tree) {
    let mut pairs = HashSet::new();
    checks::each(spec, "taints", SPEC, |taint, path| {
        checks::shaped(found, taint, "key", path, name::qualified_name);
        checks::shaped(found, taint, "value", path, name::label_value);
        checks::one_of(found, taint, "effect", path, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        if !pairs.insert((taint.str_at(&["key"]), taint.str_at(&["effect"]))) {
            let mut error = FieldError::duplicate(path, BadValue::from(taint));
            error.detail = "taints must be unique by key and effect pair".to_owned();
            found.push(error);
        }
    });
}

fn amounts(found: &mut Found, object: &Tree) {
    let status = object.get("status").unwrap_or(&Tree::Null);
    for list in ["capacity", "allocatable"] {
        let path = Path::new("status");
        let path = path.child(list);
        for (resource, value) in status.get(list).and_then(Tree::as_map).into_iter().flat_map(Map::iter) {
            if let Some(amount) = resources::quantity(Some(value)) {
                resources::amount(found, resource.as_str(), amount, path.child(resource.as_str()));
            }
        }
    }
}

fn roles(object: &Tree) -> String {
    let labels = object.at(&["metadata", "labels"]).and_then(Tree::as_map);
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in labels.into_iter().flat_map(Map::iter) {
        match key.as_str().strip_prefix("node-role.kubernetes.io/") {
            Some(role) => roles.push(role),
            None if key.as_str() == "kubernetes.io/role" => roles.extend(value.as_str()),
            None => {}
        }
    }
    roles.retain(|role| !role.is_empty());
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn address(object: &Tree, ty: &str) -> Tree {
    let addresses = object.list_at(&["status", "addresses"]);
    let found = addresses.iter().find(|one| one.str_at(&["type"]) == ty);
    found.map_or("<none>", |one| one.str_at(&["address"])).into()
}

#[cfg(test)]
mod tests {
    use skiff_object::Tree;

    #[test]
    fn a_new_node_keeps_the_status_it_registers_with() {
        let kind = crate::builtin().resource("", "v1", "nodes").expect("nodes are built in");
        let mut node = Tree::default();
        node.set(&["status", "nodeInfo", "kubeletVersion"], "v1.36.0");
        kind.prepare_create(&mut node);
        assert_eq!(node.str_at(&["status", "nodeInfo", "kubeletVersion"]), "v1.36.0");
    }
}
