//! `resourceclaimtemplates` in `resource.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::errors::FieldError;
use skiff_object::time::Time;
use skiff_object::{Tree, name};

use crate::checks::{self, SPEC, devices};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, fill};

/// A ResourceClaim to be, one per pod.
pub(crate) struct ResourceClaimTemplate(pub(crate) Facts);

impl Kind for ResourceClaimTemplate {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for request in fill::items(object, &["spec", "spec", "devices", "requests"]) {
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
        vec![cells::name(object), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        let metadata = SPEC.child("metadata");
        found.extend(name::labels(spec.at(&["metadata", "labels"]), metadata.child("labels")));
        found.extend(name::annotations(spec.at(&["metadata", "annotations"]), metadata.child("annotations")));
        checks::within(spec, "spec", SPEC, |spec, path| devices::claim(&mut found, spec, path));
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        checks::immutable(&mut found, new, old, &["spec"]);
        found
    }
}

const COLUMNS: &[Column] = &[Column::name(), cells::AGE];
