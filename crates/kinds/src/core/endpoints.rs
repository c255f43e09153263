//! `endpoints` in `v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::Kind;

/// The addresses behind a Service, in the old form.
pub(crate) struct Endpoints(pub(crate) Facts);

impl Kind for Endpoints {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for subset in fill::items(object, &["subsets"]) {
            for port in fill::items(subset, &["ports"]) {
                fill::text(port, "protocol", "TCP");
            }
        }
    }
}
