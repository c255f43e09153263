//! `events` in `events.k8s.io/v1`: the same objects as `events` in `v1`, under other names.

use std::borrow::Cow;

use skiff_object::errors::FieldError;
use skiff_object::time::Time;
use skiff_object::{Key, Map, Tree};

use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, checks};

/// Something that happened to an object.
pub(crate) struct Event(pub(crate) Facts);

/// The fields that differ: what this version calls them, and what is stored.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

impl Kind for Event {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn to_stored(&self, object: &mut Tree) {
        rename(object, "v1", |name| NAMES.iter().find(|(served, _)| *served == name).map(|(_, stored)| *stored));
    }

    fn to_served(&self, object: &mut Tree) {
        rename(object, "events.k8s.io/v1", |name| {
            NAMES.iter().find(|(_, stored)| *stored == name).map(|(served, _)| *served)
        });
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

fn rename(object: &mut Tree, api_version: &'static str, name: impl Fn(&str) -> Option<&'static str>) {
    let Tree::Map(map) = std::mem::take(object) else { return };
    let renamed = map.into_iter().map(|(key, value)| (name(key.as_str()).map_or(key, Key::Static), value));
    *object = Tree::Map(renamed.collect::<Map>());
    object.set(&["apiVersion"], api_version);
}

const FIELDS: cells::EventFields = cells::EventFields {
    object: "regarding",
    message: "note",
    component: "reportingController",
    source: "deprecatedSource",
    first: "deprecatedFirstTimestamp",
    last: "deprecatedLastTimestamp",
    count: "deprecatedCount",
};

#[cfg(test)]
mod tests {
    use skiff_object::json;

    #[test]
    fn an_event_reads_the_same_in_both_versions() {
        let kind = crate::builtin().kind("events.k8s.io/v1", "Event").unwrap();
        let served = br#"{"apiVersion":"events.k8s.io/v1","kind":"Event","note":"pulled","regarding":{"name":"web"},"deprecatedCount":2,"reportingController":"kubelet"}"#;
        let mut tree = json::decode_untyped(served).unwrap();
        let before = tree.clone();
        kind.to_stored(&mut tree);
        assert_eq!(
            json::encode_untyped(&tree),
            br#"{"apiVersion":"v1","kind":"Event","message":"pulled","involvedObject":{"name":"web"},"count":2,"reportingComponent":"kubelet"}"#
        );
        kind.to_served(&mut tree);
        assert_eq!(tree, before);
    }
}
