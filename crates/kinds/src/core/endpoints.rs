//! `endpoints` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// The addresses behind a Service, in the old form.
pub(crate) struct Endpoints(pub(crate) Facts);

impl Kind for Endpoints {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
