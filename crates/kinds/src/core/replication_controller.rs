//! `replicationcontrollers` in `v1`.

use crate::pod_spec;
use crate::fill;
use skiff_object::{Map, Tree};
use crate::facts::Facts;
use crate::kind::{Generation, Kind, ScalePaths};

/// Keeps a number of pods, in the old form.
pub(crate) struct ReplicationController(pub(crate) Facts);

impl Kind for ReplicationController {
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
        let spec = fill::within(object, "spec");
        fill::absent(spec, "replicas", 1);
        if spec.get("template").is_none_or(Tree::is_null) {
            return;
        }
        pod_spec::template(fill::within(spec, "template"));
        let labels = spec.at(&["template", "metadata", "labels"]).cloned().unwrap_or_default();
        if labels.as_map().is_none_or(Map::is_empty) {
            return;
        }
        if spec.get("selector").and_then(Tree::as_map).is_none_or(Map::is_empty) {
            fill::put(spec, "selector", labels.clone());
        }
        if object.at(&["metadata", "labels"]).and_then(Tree::as_map).is_none_or(Map::is_empty) {
            object.set(&["metadata", "labels"], labels);
        }
    }
}
