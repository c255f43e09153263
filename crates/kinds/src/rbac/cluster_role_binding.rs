//! `clusterrolebindings` in `rbac.authorization.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::rbac;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// Who has a ClusterRole everywhere.
pub(crate) struct ClusterRoleBinding(pub(crate) Facts);

impl Kind for ClusterRoleBinding {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(cells::BINDING_COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        cells::binding(object, now)
    }

    fn default(&self, object: &mut Tree) {
        rbac::default_binding(object);
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        rbac::binding(object, KINDS)
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        rbac::changed_binding(new, old, KINDS)
    }
}

/// The kinds of roles it can give.
const KINDS: &[&str] = &["ClusterRole"];
