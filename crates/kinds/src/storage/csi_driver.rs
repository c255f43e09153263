//! `csidrivers` in `storage.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// A storage driver.
pub(crate) struct CSIDriver(pub(crate) Facts);

impl Kind for CSIDriver {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        fill::absent(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            fill::absent(spec, field, false);
        }
        fill::absent(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec.list_at(&["volumeLifecycleModes"]).is_empty() {
            fill::put(spec, "volumeLifecycleModes", vec![Tree::from("Persistent")]);
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let flag = |field: &str, otherwise: bool| object.bool_at(&["spec", field]).unwrap_or(otherwise);
        let list = |field: &str, key: Option<&str>| -> Tree {
            let items = object.list_at(&["spec", field]).iter();
            let items: Vec<&str> =
                items.map(|item| key.map_or(item.as_str().unwrap_or(""), |key| item.str_at(&[key]))).collect();
            if items.is_empty() { "<unset>".into() } else { items.join(",").into() }
        };
        vec![
            cells::name(object),
            flag("attachRequired", true).into(),
            flag("podInfoOnMount", false).into(),
            flag("storageCapacity", false).into(),
            list("tokenRequests", Some("audience")),
            flag("requiresRepublish", false).into(),
            list("volumeLifecycleModes", None),
            cells::age(object, now),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("AttachRequired", "boolean", "Whether volumes are attached before they are mounted."),
    Column::new("PodInfoOnMount", "boolean", "Whether mounting tells about the pod."),
    Column::new("StorageCapacity", "boolean", "Whether the scheduler asks how much fits."),
    Column::new("TokenRequests", "string", "The tokens that mounting needs."),
    Column::new("RequiresRepublish", "boolean", "Whether mounting is repeated."),
    Column::new("Modes", "string", "Which kinds of volumes there are."),
    cells::AGE,
];
