//! `poddisruptionbudgets` in `policy/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// How many pods may be down by choice.
pub(crate) struct PodDisruptionBudget(pub(crate) Facts);

impl Kind for PodDisruptionBudget {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
