//! `endpointslices` in `discovery.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Some of the addresses behind a Service.
pub(crate) struct EndpointSlice(pub(crate) Facts);

impl Kind for EndpointSlice {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }

    fn default(&self, object: &mut Tree) {
        for port in fill::items(object, &["ports"]) {
            fill::absent(port, "name", "");
            fill::absent(port, "protocol", "TCP");
        }
    }
}
