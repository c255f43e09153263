//! `rolebindings` in `rbac.authorization.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::Kind;

/// Who has a role in a namespace.
pub(crate) struct RoleBinding(pub(crate) Facts);

impl Kind for RoleBinding {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::text(fill::within(object, "roleRef"), "apiGroup", GROUP);
        for subject in fill::items(object, &["subjects"]) {
            if matches!(subject.str_at(&["kind"]), "User" | "Group") {
                fill::text(subject, "apiGroup", GROUP);
            }
        }
    }
}

const GROUP: &str = "rbac.authorization.k8s.io";
