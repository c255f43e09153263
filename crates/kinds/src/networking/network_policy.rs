//! `networkpolicies` in `networking.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// Who may talk to which pods.
pub(crate) struct NetworkPolicy(pub(crate) Facts);

impl Kind for NetworkPolicy {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        for direction in ["ingress", "egress"] {
            for rule in fill::items(spec, &[direction]) {
                for port in fill::items(rule, &["ports"]) {
                    fill::absent(port, "protocol", "TCP");
                }
            }
        }
        if spec.list_at(&["policyTypes"]).is_empty() {
            let mut types = vec![Tree::from("Ingress")];
            if !spec.list_at(&["egress"]).is_empty() {
                types.push("Egress".into());
            }
            fill::put(spec, "policyTypes", types);
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![
            cells::name(object),
            cells::selector(object, &["spec", "podSelector"]),
            cells::age(object, now),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Pod-Selector", "string", "The pods it is about."),
    cells::AGE,
];
