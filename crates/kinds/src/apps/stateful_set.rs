//! `statefulsets` in `apps/v1`.

use crate::pod_spec;
use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind, ScalePaths};

/// Pods with names and storage of their own.
pub(crate) struct StatefulSet(pub(crate) Facts);

impl Kind for StatefulSet {
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
        fill::text(spec, "podManagementPolicy", "OrderedReady");
        let strategy = fill::within(spec, "updateStrategy");
        fill::text(strategy, "type", "RollingUpdate");
        if strategy.str_at(&["type"]) == "RollingUpdate" {
            let rolling = fill::within(strategy, "rollingUpdate");
            fill::absent(rolling, "partition", 0);
            fill::absent(rolling, "maxUnavailable", 1);
        }
        let retention = fill::within(spec, "persistentVolumeClaimRetentionPolicy");
        fill::text(retention, "whenDeleted", "Retain");
        fill::text(retention, "whenScaled", "Retain");
        fill::absent(spec, "replicas", 1);
        fill::absent(spec, "revisionHistoryLimit", 10);
        for claim in fill::items(spec, &["volumeClaimTemplates"]) {
            fill::put(claim, "apiVersion", "v1");
            fill::put(claim, "kind", "PersistentVolumeClaim");
            pod_spec::volume_claim_spec(fill::within(claim, "spec"));
            fill::text(fill::within(claim, "status"), "phase", "Pending");
        }
        pod_spec::template(fill::within(fill::within(object, "spec"), "template"));
    }
}
