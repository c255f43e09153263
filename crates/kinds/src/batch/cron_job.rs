//! `cronjobs` in `batch/v1`.

use crate::pod_spec;
use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Makes Jobs on a schedule.
pub(crate) struct CronJob(pub(crate) Facts);

impl Kind for CronJob {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        fill::text(spec, "concurrencyPolicy", "Allow");
        fill::absent(spec, "suspend", false);
        fill::absent(spec, "successfulJobsHistoryLimit", 3);
        fill::absent(spec, "failedJobsHistoryLimit", 1);
        let job = fill::within(fill::within(spec, "jobTemplate"), "spec");
        for rule in fill::items(job, &["podFailurePolicy", "rules"]) {
            for pattern in fill::items(rule, &["onPodConditions"]) {
                fill::text(pattern, "status", "True");
            }
        }
        pod_spec::template(fill::within(job, "template"));
    }
}
