//! `events` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, checks};

/// Something that happened to an object.
pub(crate) struct Event(pub(crate) Facts);

impl Kind for Event {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(cells::EVENT_COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        cells::event(object, &FIELDS, now)
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        checks::events::event(object, &FIELDS)
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        checks::events::changed_event(new, old, &FIELDS)
    }
}

const FIELDS: cells::EventFields = cells::EventFields {
    object: "involvedObject",
    message: "message",
    component: "reportingComponent",
    source: "source",
    first: "firstTimestamp",
    last: "lastTimestamp",
    count: "count",
};
