//! `secrets` in `v1`.

use crate::fill;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::Kind;

/// Settings that are nobody else's business.
pub(crate) struct Secret(pub(crate) Facts);

impl Kind for Secret {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::text(object, "type", "Opaque");
        // `stringData` is for writing only: it ends up in `data`.
        let Some(Tree::Map(plain)) = object.unset(&["stringData"]) else { return };
        let data = fill::within(object, "data").ensure_map();
        for (key, value) in plain {
            data.insert(key, STANDARD.encode(value.as_str().unwrap_or("")));
        }
    }
}
