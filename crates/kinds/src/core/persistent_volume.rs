//! `persistentvolumes` in `v1`.

use crate::rules;
use crate::pod_spec;
use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::Kind;

/// A piece of storage.
pub(crate) struct PersistentVolume(pub(crate) Facts);

impl Kind for PersistentVolume {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::text(fill::within(object, "status"), "phase", "Pending");
        let spec = fill::within(object, "spec");
        fill::text(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill::absent(spec, "volumeMode", "Filesystem");
        fill::round_resources(spec, &["capacity"]);
        pod_spec::volume_source(spec);
    }

    fn prepare_create(&self, object: &mut Tree) {
        rules::prepare_create(self.facts(), self.generation(), object);
        object.set(&["status", "phase"], "Pending");
    }
}
