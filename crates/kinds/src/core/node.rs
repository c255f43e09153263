//! `nodes` in `v1`.

use std::borrow::Cow;

use skiff_object::time::Time;
use skiff_object::{Map, Tree};

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::table::Column;

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
