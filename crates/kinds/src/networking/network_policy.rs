//! `networkpolicies` in `networking.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Who may talk to which pods.
pub(crate) struct NetworkPolicy(pub(crate) Facts);

impl Kind for NetworkPolicy {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
