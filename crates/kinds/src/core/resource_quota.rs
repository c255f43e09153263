//! `resourcequotas` in `v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::Kind;

/// What a namespace may use in total.
pub(crate) struct ResourceQuota(pub(crate) Facts);

impl Kind for ResourceQuota {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for path in [&["spec", "hard"], &["status", "hard"], &["status", "used"]] {
            fill::round_resources(object, path);
        }
    }
}
