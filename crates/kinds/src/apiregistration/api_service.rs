//! `apiservices` in `apiregistration.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::Kind;

/// A group and version, and who serves it.
pub(crate) struct APIService(pub(crate) Facts);

impl Kind for APIService {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::each(object, &["spec", "service"], |service| fill::absent(service, "port", 443));
    }
}
