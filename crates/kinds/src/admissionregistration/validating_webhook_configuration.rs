//! `validatingwebhookconfigurations` in `admissionregistration.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::cells;
use crate::checks;
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// Who is asked to refuse requests.
pub(crate) struct ValidatingWebhookConfiguration(pub(crate) Facts);

impl Kind for ValidatingWebhookConfiguration {
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
            fill::each(webhook, &["clientConfig", "service"], |service| fill::absent(service, "port", 443));
            for rule in fill::items(webhook, &["rules"]) {
                fill::absent(rule, "scope", "*");
            }
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::size(object, &["webhooks"]), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        checks::webhooks(&mut found, object);
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("Webhooks", "integer", "How many webhooks are called."), cells::AGE];
