//! `customresourcedefinitions` in `apiextensions.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// A resource that the cluster's users define.
pub(crate) struct CustomResourceDefinition(pub(crate) Facts);

impl Kind for CustomResourceDefinition {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
