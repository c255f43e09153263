//! `roles` in `rbac.authorization.k8s.io/v1`.

use skiff_object::Tree;
use skiff_object::errors::FieldError;

use crate::checks;
use crate::facts::Facts;
use crate::kind::Kind;

/// Permissions in a namespace.
pub(crate) struct Role(pub(crate) Facts);

impl Kind for Role {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        checks::policy_rules(&mut found, object, true);
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}
