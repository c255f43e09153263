//! `volumeattributesclasses` in `storage.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// Attributes of a volume that can change.
pub(crate) struct VolumeAttributesClass(pub(crate) Facts);

impl Kind for VolumeAttributesClass {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::text(object, &["driverName"]), cells::age(object, now)]
    }
}

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("DriverName", "string", "The driver that knows the attributes."), cells::AGE];
