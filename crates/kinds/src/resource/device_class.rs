//! `deviceclasses` in `resource.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, SPEC, devices, resources};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// A kind of device that can be claimed.
pub(crate) struct DeviceClass(pub(crate) Facts);

impl Kind for DeviceClass {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
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
        devices::selectors(&mut found, spec, SPEC);
        checks::at_most(&mut found, spec, "config", SPEC, CONFIGS_MAX);
        checks::each(spec, "config", SPEC, |config, path| devices::configuration(&mut found, config, path));
        let resource = spec.str_at(&["extendedResourceName"]);
        if checks::given(spec, "extendedResourceName").is_some() && !resources::is_extended(resource) {
            let why = "must be a valid extended resource name";
            found.push(FieldError::invalid(SPEC.child("extendedResourceName"), resource, why));
        }
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}

const COLUMNS: &[Column] = &[Column::name(), cells::AGE];

/// How many drivers a class may configure.
const CONFIGS_MAX: usize = 32;
