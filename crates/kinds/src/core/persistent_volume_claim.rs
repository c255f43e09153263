//! `persistentvolumeclaims` in `v1`.

use crate::rules;
use crate::pod_spec;
use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::Kind;

/// A wish for storage.
pub(crate) struct PersistentVolumeClaim(pub(crate) Facts);

impl Kind for PersistentVolumeClaim {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::text(fill::within(object, "status"), "phase", "Pending");
        pod_spec::volume_claim_spec(fill::within(object, "spec"));
    }

    fn prepare_create(&self, object: &mut Tree) {
        rules::prepare_create(self.facts(), self.generation(), object);
        object.set(&["status", "phase"], "Pending");
    }
}
