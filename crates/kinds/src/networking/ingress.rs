//! `ingresses` in `networking.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// HTTP routes into the cluster.
pub(crate) struct Ingress(pub(crate) Facts);

impl Kind for Ingress {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
