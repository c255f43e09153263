//! `csinodes` in `storage.k8s.io/v1`.

use std::borrow::Cow;
use std::collections::HashSet;

use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};
use skiff_object::name;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// Storage drivers on a node.
pub(crate) struct CSINode(pub(crate) Facts);

impl Kind for CSINode {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::size(object, &["spec", "drivers"]), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let mut names = HashSet::new();
        checks::each(checks::spec(object), "drivers", SPEC, |driver, path| {
            super::csi_driver::driver_name(&mut found, driver, "name", path);
            if let Some(id) = checks::required(&mut found, driver, "nodeID", path)
                && id.len() > NODE_ID_BYTES_MAX
            {
                let why = format!("must be {NODE_ID_BYTES_MAX} characters or less");
                found.push(FieldError::invalid(path.child("nodeID"), id, why));
            }
            checks::within(driver, "allocatable", path, |allocatable, path| {
                checks::not_negative(&mut found, allocatable, "count", path);
            });
            let mut keys = HashSet::new();
            for key in driver.list_at(&["topologyKeys"]).iter().filter_map(Tree::as_str) {
                if !keys.insert(key) {
                    found.push(FieldError::duplicate(path.child("topologyKeys"), key));
                }
                checks::invalid(&mut found, path.child("topologyKeys"), key, name::qualified_name(key));
            }
            let text = driver.str_at(&["name"]);
            if !names.insert(text) {
                found.push(FieldError::duplicate(path.child("name"), text));
            }
        });
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        let drivers = new.list_at(&["spec", "drivers"]);
        for old in old.list_at(&["spec", "drivers"]) {
            let same_name = |driver: &&Tree| driver.str_at(&["name"]) == old.str_at(&["name"]);
            // How many volumes a node takes may turn out otherwise later.
            let fixed = |driver: &Tree| ["nodeID", "topologyKeys"].map(|field| driver.get(field).cloned());
            if let Some(driver) = drivers.iter().find(same_name)
                && fixed(driver) != fixed(old)
            {
                found.push(FieldError::invalid("CSINodeDriver", BadValue::from(driver), "field is immutable"));
            }
        }
        found
    }
}

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("Drivers", "integer", "How many drivers run there."), cells::AGE];

/// How long the name of a node at its storage may be.
const NODE_ID_BYTES_MAX: usize = 256;
