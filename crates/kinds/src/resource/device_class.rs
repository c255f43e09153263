//! `deviceclasses` in `resource.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
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
}

const COLUMNS: &[Column] = &[Column::name(), cells::AGE];
