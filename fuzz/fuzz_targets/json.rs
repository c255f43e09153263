//! JSON bodies: what is accepted, and that reading and writing are inverse.
//!
//! The first byte chooses a kind; the rest is the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use skiff_fuzz::{Kind, same};
use skiff_object::decode::{DEPTH_MAX, DecodeError};
use skiff_object::{conform, json};

fuzz_target!(|data: &[u8]| {
    let [kind, text @ ..] = data else { return };
    untyped(text);
    typed(Kind::of(*kind), text);
});

fn untyped(text: &[u8]) {
    let ours = json::decode_untyped_strict(text);
    // Another parser's opinion of what is JSON. Ours gives up early for other reasons: then it says nothing.
    match (&ours, serde_json::from_slice::<IgnoredAny>(text)) {
        (Ok(_), Err(error)) => panic!("accepted although it is no JSON: {error}"),
        (Err(DecodeError::Syntax(why)), Ok(_)) => panic!("refused although it is JSON: {why}"),
        _ => {}
    }
    let Ok((tree, _)) = ours else { return };
    assert!(tree.depth() <= DEPTH_MAX);
    let bytes = json::encode_untyped(&tree);
    let again = json::decode_untyped(&bytes).expect("what was written is JSON");
    same("read, written, read", &tree, &again);
    // `-0e1` becomes `-0`, which is a whole number and becomes `0`: the third time is the same as the second.
    let bytes = json::encode_untyped(&again);
    let again = json::decode_untyped(&bytes).expect("what was written is JSON");
    assert_eq!(json::encode_untyped(&again), bytes, "written twice");
    let sorted = json::decode_untyped(&json::encode_sorted(&tree)).expect("what was written is JSON");
    same("read, written in order, read", &tree, &sorted);
}

fn typed(kind: Kind, text: &[u8]) {
    let Kind { schema, ty, .. } = kind;
    let Ok((tree, issues)) = json::decode(text, schema, ty) else { return };
    let bytes = json::encode(&tree, schema, ty);
    let (again, unknown) = json::decode(&bytes, schema, ty).expect("what was written is an object of its kind");
    assert!(unknown.is_empty(), "written, then unknown: {unknown}");
    kind.same("read, written, read", &tree, &again);
    // The third time, as above.
    let bytes = json::encode(&again, schema, ty);
    let (again, _) = json::decode(&bytes, schema, ty).expect("what was written is an object of its kind");
    assert_eq!(json::encode(&again, schema, ty), bytes, "written twice");
    // A tree that already exists takes the other way to the same form.
    if issues.is_empty() {
        let untyped = json::decode_untyped(text).expect("what is an object is JSON");
        let (conformed, _) = conform::conform(untyped, schema, ty).expect("what decodes conforms");
        kind.same("decoded and conformed", &tree, &conformed);
    }
}
