//! `networkpolicies` in `networking.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::selector::label;
use skiff_object::time::Time;
use skiff_object::{Tree, name, net};

use crate::checks::{self, Found, SPEC};
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
        if spec.list_at(&["policyTypes"]).len() > 2 {
            let value = BadValue::from(spec.get("policyTypes"));
            let why = "may not specify more than two policyTypes";
            found.push(FieldError::invalid(SPEC.child("policyTypes"), value, why));
            return found;
        }
        let types = SPEC.child("policyTypes");
        for (index, ty) in spec.list_at(&["policyTypes"]).iter().filter_map(Tree::as_str).enumerate() {
            if !matches!(ty, "Ingress" | "Egress") {
                found.push(FieldError::not_supported(types.index(index), ty, &["Ingress", "Egress"]));
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

fn rule_of(found: &mut Found, rule: &Tree, peers: &str, path: Path<'_>) {
    checks::each(rule, "ports", path, |port, path| self::port(found, port, path));
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
            if block.is_empty() {
                found.push(FieldError::required(path_block.child("cidr"), ""));
            } else {
                checks::invalid(found, path_block.child("cidr"), block, net::cidr(block));
                exceptions(found, peer.get("ipBlock").unwrap_or(&Tree::Null), path_block);
            }
            if given("podSelector") || given("namespaceSelector") {
                let why = "may not specify both ipBlock and another peer";
                found.push(FieldError::forbidden(path, why));
            }
        } else if !given("podSelector") && !given("namespaceSelector") {
            found.push(FieldError::required(path, "must specify a peer"));
        }
    }
}

/// A port, or a range of them.
fn port(found: &mut Found, port: &Tree, path: Path<'_>) {
    checks::maybe_one_of(found, port, "protocol", path, &["TCP", "UDP", "SCTP"]);
    let end = port.int_at(&["endPort"]);
    let Some(first) = checks::given(port, "port") else {
        if end.is_some() {
            found.push(FieldError::required(path.child("port"), "must be specified when `endPort` is specified"));
        }
        return;
    };
    checks::port(found, Some(first), path.child("port"));
    let Some(end) = end else { return };
    let path = path.child("endPort");
    match first {
        Tree::Int(first) if end < *first => {
            found.push(FieldError::invalid(path, end, "must be greater than or equal to `port`"));
        }
        Tree::Int(_) => checks::invalid_number(found, path, end, name::port_number(end)),
        _ => found.push(FieldError::invalid(path, end, "may not be specified when `port` is non-numeric")),
    }
}

/// What is left out of a block lies within it.
fn exceptions(found: &mut Found, block: &Tree, path: Path<'_>) {
    let outer = net::sloppy_block(block.str_at(&["cidr"]));
    checks::each_text(block, "except", path, |text, path| {
        let wrong = net::cidr(text);
        let inner = net::sloppy_block(text).filter(|_| wrong.is_empty());
        if let (Some(outer), Some(inner)) = (outer, inner)
            && !net::holds(outer, inner)
        {
            found.push(FieldError::invalid(path, text, "must be a strict subset of `cidr`"));
        }
        checks::invalid(found, path, text, wrong);
    });
}
