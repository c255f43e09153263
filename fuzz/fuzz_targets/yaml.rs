//! YAML bodies, manifests and apply configurations.
//!
//! The first byte chooses a kind; the rest is the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skiff_fuzz::{Kind, same};
use skiff_object::{json, yaml};

fuzz_target!(|data: &[u8]| {
    let [kind, text @ ..] = data else { return };
    untyped(text);
    let kind = Kind::of(*kind);
    let Kind { schema, ty, .. } = kind;
    if let Ok((tree, _)) = yaml::decode(text, schema, ty) {
        let (again, issues) =
            json::decode(&json::encode(&tree, schema, ty), schema, ty).expect("an object of its kind");
        assert!(issues.is_empty(), "written, then unknown: {issues}");
        kind.same("YAML, JSON", &tree, &again);
    }
});

fn untyped(text: &[u8]) {
    let Ok((tree, _)) = yaml::decode_untyped_strict(text) else { return };
    let bytes = yaml::encode_untyped(&tree);
    let shown = String::from_utf8_lossy(&bytes);
    let again = yaml::decode_untyped(&bytes).unwrap_or_else(|error| panic!("wrote what is no YAML: {error}\n{shown}"));
    same(&shown, &tree, &again);
    assert_eq!(yaml::encode_untyped(&again), bytes, "written twice");
    // YAML is a notation for JSON.
    let bytes = json::encode_untyped(&tree);
    same("through JSON", &tree, &json::decode_untyped(&bytes).expect("what was written is JSON"));
    let shown = String::from_utf8_lossy(&bytes);
    let again = yaml::decode_untyped(&bytes).unwrap_or_else(|error| panic!("JSON is YAML: {error}\n{shown}"));
    same("JSON read as YAML", &tree, &again);
}
