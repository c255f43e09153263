//! `rolebindings` in `rbac.authorization.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};
use skiff_object::time::Time;

use crate::cells;
use crate::checks;
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::rules;
use crate::table::Column;

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

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(cells::BINDING_COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        cells::binding(object, now)
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        checks::role_binding(&mut found, object, &["ClusterRole", "Role"]);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        if !rules::same(new.get("roleRef"), old.get("roleRef")) {
            let value = BadValue::from(new.get("roleRef"));
            found.push(FieldError::invalid("roleRef", value, "cannot change roleRef"));
        }
        found
    }
}

const GROUP: &str = "rbac.authorization.k8s.io";
