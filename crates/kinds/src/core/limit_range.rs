//! `limitranges` in `v1`.

use skiff_object::Tree;

use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;

/// Defaults and bounds for what one object in a namespace may ask for.
pub(crate) struct LimitRange(pub(crate) Facts);

impl Kind for LimitRange {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for limit in fill::items(object, &["spec", "limits"]) {
            for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
                fill::round_resources(limit, &[list]);
            }
            if limit.str_at(&["type"]) != "Container" {
                continue;
            }
            for (target, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
                if let Some(source) = limit.get(source).and_then(Tree::as_map).cloned() {
                    fill::entries(limit, target, &source);
                }
            }
        }
    }
}
