//! `prioritylevelconfigurations` in `flowcontrol.apiserver.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// How many requests of a level run at once.
pub(crate) struct PriorityLevelConfiguration(pub(crate) Facts);

impl Kind for PriorityLevelConfiguration {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
