//! `clusterroles` in `rbac.authorization.k8s.io/v1`.

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::path::Path;

use crate::checks::rbac;
use crate::facts::Facts;
use crate::kind::Kind;

/// Permissions without a namespace.
pub(crate) struct ClusterRole(pub(crate) Facts);

impl Kind for ClusterRole {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        rbac::policy_rules(&mut found, object, Path::root(), false);
        rbac::aggregation(&mut found, object);
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}
