//! What the tests of validation share: errors as lines.

use expect_test::Expect;
use skiff_kinds::Kind;
use skiff_object::{Tree, json};

pub(crate) fn kind(group: &str, plural: &str) -> &'static dyn Kind {
    let found = skiff_kinds::builtin()
        .iter()
        .find(|kind| kind.facts().group == *group && kind.facts().plural == *plural && kind.facts().version == *"v1");
    found.expect("a built-in resource").as_ref()
}

pub(crate) fn object(kind: &dyn Kind, text: &str) -> Tree {
    let mut object = json::decode_untyped(text.as_bytes()).expect("JSON");
    kind.default(&mut object);
    object
}

/// The errors about a new object, one in each line.
pub(crate) fn create(group: &str, plural: &str, text: &str, want: Expect) {
    let kind = kind(group, plural);
    let mut object = object(kind, text);
    kind.prepare_create(&mut object);
    want.assert_eq(&lines(&kind.validate_create(&object)));
}

/// The errors about a change.
pub(crate) fn update(group: &str, plural: &str, old: &str, new: &str, want: Expect) {
    let kind = kind(group, plural);
    let (mut old, mut new) = (object(kind, old), object(kind, new));
    kind.prepare_create(&mut old);
    kind.prepare_update(&mut new, &old);
    want.assert_eq(&lines(&kind.validate_update(&new, &old)));
}

/// An object is accepted, and so is writing it again.
#[allow(dead_code, reason = "not every file of tests needs it")]
pub(crate) fn good(group: &str, plural: &str, text: &str) {
    let kind = kind(group, plural);
    let mut object = object(kind, text);
    kind.prepare_create(&mut object);
    kind.default(&mut object);
    assert_eq!(lines(&kind.validate_create(&object)), "", "{text}");
    let mut again = object.clone();
    kind.default(&mut again);
    kind.prepare_update(&mut again, &object);
    assert_eq!(lines(&kind.validate_update(&again, &object)), "", "{text}");
    assert_eq!(again, object, "writing the same again changes nothing");
}

pub(crate) fn lines(errors: &[skiff_object::errors::FieldError]) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}
