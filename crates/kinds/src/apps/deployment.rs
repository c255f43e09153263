//! `deployments` in `apps/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind, ScalePaths};

/// A number of pods and how they are replaced by newer ones.
pub(crate) struct Deployment(pub(crate) Facts);

impl Kind for Deployment {
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
}
