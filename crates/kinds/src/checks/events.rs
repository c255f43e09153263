//! Events, in either of their two versions.

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::{Tree, name};

use super::{Found, given, invalid};
use crate::cells::EventFields;
use crate::rules;

/// How long who reports, what was done and why may be.
const WORD_BYTES_MAX: usize = 128;
/// How long what happened may be.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// Old recorders leave `eventTime` out: little is asked of what they write. `events.k8s.io` has no old recorders.
fn is_of_today(fields: &EventFields) -> bool {
    fields.object == "regarding"
}

/// A new event. Paths are those of upstream's one internal form.
pub(crate) fn event(object: &Tree, fields: &EventFields) -> Found {
    let mut found = Found::new();
    let namespace = object.str_at(&["metadata", "namespace"]);
    let of = object.str_at(&[fields.object, "namespace"]);
    let matches = if of.is_empty() { matches!(namespace, "" | "default") } else { of == namespace };
    if !matches {
        found.push(FieldError::invalid("involvedObject.namespace", of, "does not match event.namespace"));
    }
    if given(object, "eventTime").is_none() {
        if is_of_today(fields) {
            found.push(FieldError::required("eventTime", ""));
        }
        return found;
    }
    complete(&mut found, object, fields);
    found
}

fn complete(found: &mut Found, object: &Tree, fields: &EventFields) {
    let reporter = object.str_at(&[fields.component]);
    let path = Path::new("reportingController");
    if reporter.is_empty() {
        found.push(FieldError::required(path, ""));
    }
    invalid(found, path, reporter, name::qualified_name(reporter));
    for field in ["reportingInstance", "action", "reason"] {
        let text = object.str_at(&[field]);
        if text.is_empty() {
            found.push(FieldError::required(field, ""));
        }
        if text.len() > WORD_BYTES_MAX {
            let why = format!("can have at most {WORD_BYTES_MAX} characters");
            found.push(FieldError::invalid(field, "", why));
        }
    }
    if object.str_at(&[fields.message]).len() > MESSAGE_BYTES_MAX {
        let why = format!("can have at most {MESSAGE_BYTES_MAX} characters");
        found.push(FieldError::invalid("message", "", why));
    }
    if !is_of_today(fields) {
        return;
    }
    let ty = object.str_at(&["type"]);
    if !matches!(ty, "Normal" | "Warning") {
        found.push(FieldError::invalid("type", "", format!("has invalid value: {ty}")));
    }
    if let Some(series) = given(object, "series") {
        if series.int_at(&["count"]).unwrap_or(0) < 2 {
            found.push(FieldError::invalid("series.count", "", "should be at least 2"));
        }
        if given(series, "lastObservedTime").is_none() {
            found.push(FieldError::required("series.lastObservedTime", ""));
        }
    }
}

/// A changed event: in `events.k8s.io`, only its series and its metadata change.
pub(crate) fn changed_event(new: &Tree, old: &Tree, fields: &EventFields) -> Found {
    let mut found = event(new, fields);
    if !is_of_today(fields) {
        return found;
    }
    for (field, shown) in [
        (fields.object, "involvedObject"),
        ("reason", "reason"),
        (fields.message, "message"),
        (fields.source, "source"),
        (fields.first, "firstTimestamp"),
        (fields.last, "lastTimestamp"),
        (fields.count, "count"),
        ("related", "related"),
        ("action", "action"),
        (fields.component, "reportingController"),
        ("reportingInstance", "reportingInstance"),
        ("type", "type"),
        ("eventTime", "eventTime"),
    ] {
        if !rules::same(new.get(field), old.get(field)) {
            found.push(FieldError::invalid(shown, BadValue::from(new.get(field)), "field is immutable"));
        }
    }
    found
}
