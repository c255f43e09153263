//! `cronjobs` in `batch/v1`.

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
}
