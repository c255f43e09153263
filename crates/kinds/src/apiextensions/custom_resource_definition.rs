//! `customresourcedefinitions` in `apiextensions.k8s.io/v1`.

use skiff_object::Tree;

use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};

/// A resource that the cluster's users define.
pub(crate) struct CustomResourceDefinition(pub(crate) Facts);

impl Kind for CustomResourceDefinition {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        let names = fill::within(spec, "names");
        let kind = names.str_at(&["kind"]).to_owned();
        if !kind.is_empty() {
            fill::text(names, "singular", &kind.to_lowercase());
            fill::text(names, "listKind", &format!("{kind}List"));
        }
        let conversion = fill::within(spec, "conversion");
        fill::text(conversion, "strategy", "None");
        fill::each(conversion, &["webhook", "clientConfig", "service"], |service| fill::absent(service, "port", 443));
    }
}
