//! `jobs` in `batch/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Runs pods until enough of them succeed.
pub(crate) struct Job(pub(crate) Facts);

impl Kind for Job {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
