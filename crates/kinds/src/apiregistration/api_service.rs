//! `apiservices` in `apiregistration.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// A group and version, and who serves it.
pub(crate) struct APIService(pub(crate) Facts);

impl Kind for APIService {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
