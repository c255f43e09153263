//! `ingressclasses` in `networking.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Who implements an Ingress.
pub(crate) struct IngressClass(pub(crate) Facts);

impl Kind for IngressClass {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        fill::each(object, &["spec", "parameters"], |parameters| fill::absent(parameters, "scope", "Cluster"));
    }
}
