//! `networkpolicies` in `networking.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::selector::label;
use skiff_object::time::Time;
use skiff_object::{Tree, net};

use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;
use crate::{cells, fill};

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
        vec![cells::name(object), cells::selector(object, &["spec", "podSelector"]), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = object.get("spec").unwrap_or(&Tree::Null);
        found.extend(label::validate(spec.get("podSelector"), SPEC.child("podSelector")));
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            let list = SPEC.child(direction);
            for (index, rule) in spec.list_at(&[direction]).iter().enumerate() {
                rule_of(&mut found, rule, peers, list.index(index));
            }
        }
        let types = SPEC.child("policyTypes");
        for (index, ty) in spec.list_at(&["policyTypes"]).iter().filter_map(Tree::as_str).enumerate() {
            if !matches!(ty, "Ingress" | "Egress") {
                found.push(FieldError::not_supported(types.index(index), ty, &["Egress", "Ingress"]));
            }
        }
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("Pod-Selector", "string", "The pods it is about."), cells::AGE];

fn rule_of(found: &mut Vec<FieldError>, rule: &Tree, peers: &str, path: Path<'_>) {
    let ports = path.child("ports");
    for (index, port) in rule.list_at(&["ports"]).iter().enumerate() {
        let path = ports.index(index);
        checks::maybe_one_of(found, port, "protocol", path, &["SCTP", "TCP", "UDP"]);
        if port.get("port").is_some_and(|port| !port.is_null()) {
            checks::port(found, port.get("port"), path.child("port"));
        }
    }
    let list = path.child(peers);
    for (index, peer) in rule.list_at(&[peers]).iter().enumerate() {
        let path = list.index(index);
        let given = |field: &str| peer.get(field).is_some_and(|value| !value.is_null());
        for field in ["podSelector", "namespaceSelector"] {
            found.extend(label::validate(peer.get(field), path.child(field)));
        }
        if given("ipBlock") {
            let block = peer.str_at(&["ipBlock", "cidr"]);
            let path_block = path.child("ipBlock");
            checks::invalid(found, path_block.child("cidr"), block, net::cidr(block));
            if given("podSelector") || given("namespaceSelector") {
                let why = "may not specify both ipBlock and another peer";
                found.push(FieldError::forbidden(path, why));
            }
        } else if !given("podSelector") && !given("namespaceSelector") {
            found.push(FieldError::required(path, "must specify a peer"));
        }
    }
}
