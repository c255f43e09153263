//! `mutatingwebhookconfigurations` in `admissionregistration.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Who is asked to change requests.
pub(crate) struct MutatingWebhookConfiguration(pub(crate) Facts);

impl Kind for MutatingWebhookConfiguration {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }

    fn default(&self, object: &mut Tree) {
        for webhook in fill::items(object, &["webhooks"]) {
            fill::absent(webhook, "failurePolicy", "Fail");
            fill::absent(webhook, "matchPolicy", "Equivalent");
            fill::absent(webhook, "namespaceSelector", Tree::map());
            fill::absent(webhook, "objectSelector", Tree::map());
            fill::absent(webhook, "timeoutSeconds", 10);
            fill::absent(webhook, "reinvocationPolicy", "Never");
            fill::each(webhook, &["clientConfig", "service"], |service| fill::absent(service, "port", 443));
            for rule in fill::items(webhook, &["rules"]) {
                fill::absent(rule, "scope", "*");
            }
        }
    }
}
