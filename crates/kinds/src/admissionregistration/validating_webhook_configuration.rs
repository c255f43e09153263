//! `validatingwebhookconfigurations` in `admissionregistration.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::admission;
use crate::facts::Facts;
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

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::size(object, &["webhooks"]), cells::age(object, now)]
    }

    fn default(&self, object: &mut Tree) {
        admission::default_webhooks(object, false);
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        admission::webhooks(object)
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        admission::changed_webhooks(new, old)
    }
}

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("Webhooks", "integer", "How many webhooks are called."), cells::AGE];
