//! `csidrivers` in `storage.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

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
}
