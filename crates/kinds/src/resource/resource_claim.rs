//! `resourceclaims` in `resource.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::time::Time;
use skiff_object::{Tree, name};

use crate::checks::{self, Found, SPEC, devices};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, fill, rules};

/// A wish for devices.
pub(crate) struct ResourceClaim(pub(crate) Facts);

impl Kind for ResourceClaim {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for request in fill::items(object, &["spec", "devices", "requests"]) {
            fill::each(request, &["exactly"], fill::device_request);
            for alternative in fill::items(request, &["firstAvailable"]) {
                fill::device_request(alternative);
            }
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let mut states = Vec::new();
        if cells::is_deleting(object) {
            states.push("deleted");
        }
        if object.at(&["status", "allocation"]).is_none_or(Tree::is_null) {
            if !cells::is_deleting(object) {
                states.push("pending");
            }
        } else {
            states.push("allocated");
        }
        if !object.list_at(&["status", "reservedFor"]).is_empty() {
            states.push("reserved");
        }
        vec![cells::name(object), states.join(",").into(), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        devices::claim(&mut found, checks::spec(object), SPEC);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        checks::immutable(&mut found, new, old, &["spec"]);
        found
    }

    fn validate_subresource(&self, _: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let status = new.get("status").unwrap_or(&Tree::Null);
        let path = Path::new("status");
        devices::unique(&mut found, status, "reservedFor", RESERVED_FOR_MAX, path, "uid", |found, user, path| {
            for field in ["resource", "name", "uid"] {
                checks::required(found, user, field, path);
            }
        });
        let (allocation, before) = (checks::given(status, "allocation"), old.at(&["status", "allocation"]));
        let before = before.filter(|before| !before.is_null());
        reservations(&mut found, new, old, allocation.is_some());
        match (allocation, before) {
            (Some(_), Some(_)) => checks::immutable(&mut found, new, old, &["status", "allocation"]),
            (Some(allocation), None) => {
                let requests = devices::requests(checks::spec(new));
                devices::allocation(&mut found, allocation, &requests, path.child("allocation"));
            }
            (None, _) => {}
        }
        checks::each(status, "devices", path, |device, path| {
            devices::driver(&mut found, device, path);
            devices::pool(&mut found, device, "pool", path);
            checks::shaped(&mut found, device, "device", path, name::dns1123_label);
            checks::conditions::conditions(&mut found, device, "conditions", path);
        });
        found
    }
}

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("State", "string", "Whether it is allocated and in use."), cells::AGE];

/// How many pods may share a claim.
const RESERVED_FOR_MAX: usize = 256;

/// Nobody uses what is not allocated, and nobody new what is going.
fn reservations(found: &mut Found, new: &Tree, old: &Tree, allocated: bool) {
    let path = "status.reservedFor";
    let list = new.list_at(&["status", "reservedFor"]);
    if list.is_empty() {
        return;
    }
    if !allocated {
        found.push(FieldError::forbidden(path, "may not be specified when `allocated` is not set"));
        return;
    }
    let before = old.list_at(&["status", "reservedFor"]);
    let is_new = |user: &&Tree| !before.iter().any(|other| rules::same(Some(other), Some(user)));
    if cells::is_deleting(new) && list.iter().find(is_new).is_some() {
        let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        found.push(FieldError::forbidden(path, why));
    }
}
