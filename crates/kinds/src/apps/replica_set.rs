//! `replicasets` in `apps/v1`.

use crate::pod_spec;
use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind, ScalePaths};

/// Keeps a number of pods.
pub(crate) struct ReplicaSet(pub(crate) Facts);

impl Kind for ReplicaSet {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn scale(&self) -> Option<ScalePaths> {
        Some(ScalePaths {
            spec_replicas: &["spec", "replicas"],
            status_replicas: &["status", "replicas"],
            selector: &["spec", "selector"],
        })
    }

    fn default(&self, object: &mut Tree) {
        fill::absent(fill::within(object, "spec"), "replicas", 1);
        pod_spec::template(fill::within(fill::within(object, "spec"), "template"));
    }
}
