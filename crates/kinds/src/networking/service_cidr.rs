//! `servicecidrs` in `networking.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};
use skiff_object::net;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// Where Service addresses come from.
pub(crate) struct ServiceCIDR(pub(crate) Facts);

impl Kind for ServiceCIDR {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let blocks: Vec<&str> = object.list_at(&["spec", "cidrs"]).iter().filter_map(Tree::as_str).collect();
        vec![cells::name(object), blocks.join(",").into(), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        let path = SPEC.child("cidrs");
        let blocks = spec.list_at(&["cidrs"]);
        if blocks.is_empty() {
            found.push(FieldError::required(path, "at least one CIDR required"));
        }
        if blocks.len() > 2 {
            let value = BadValue::from(spec.get("cidrs"));
            found.push(FieldError::invalid(path, value, "may only hold up to 2 values"));
        }
        let before = found.len();
        checks::each_text(spec, "cidrs", SPEC, |text, path| {
            checks::invalid(&mut found, path, text, net::canonical_cidr(text));
        });
        let sound = found.len() == before && blocks.len() == 2;
        if sound && !net::is_dual_stack(blocks.iter().filter_map(Tree::as_str)) {
            let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
            found.push(FieldError::invalid(path, BadValue::from(spec.get("cidrs")), why));
        }
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let path = SPEC.child("cidrs");
        let list = |object: &Tree| object.list_at(&["spec", "cidrs"]).to_vec();
        let (wanted, had) = (list(new), list(old));
        // A second family may come; nothing else may change.
        let grows = had.len() == 1 && wanted.len() == 2;
        if wanted.len() != had.len() && !grows {
            found.push(FieldError::invalid(path, BadValue::from(new.at(&["spec", "cidrs"])), "field is immutable"));
            return found;
        }
        for (index, (wanted, had)) in wanted.iter().zip(&had).enumerate() {
            if wanted != had {
                found.push(FieldError::invalid(path.index(index), BadValue::from(wanted), "field is immutable"));
            }
        }
        if grows {
            found.extend(self.validate_create(new));
        }
        found
    }
}

const COLUMNS: &[Column] = &[Column::name(), Column::new("CIDRs", "string", "The blocks of addresses."), cells::AGE];
