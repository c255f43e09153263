//! `networkpolicies` in `networking.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

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
}
