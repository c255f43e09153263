//! Protobuf bodies, and that the three formats of one object agree.
//!
//! The first byte chooses a kind; its highest bit, whether the rest is a message or makes an object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skiff_fuzz::{Kind, Source, same, show};
use skiff_object::{Tree, json, protobuf, yaml};

fuzz_target!(|data: &[u8]| {
    let [kind, rest @ ..] = data else { return };
    let chosen = Kind::of(kind & 0x7f);
    if !chosen.has_protobuf() {
        return;
    }
    if kind & 0x80 == 0 {
        envelope(rest);
        message(chosen, rest);
    } else {
        object(chosen, Source::new(rest));
    }
});

fn envelope(bytes: &[u8]) {
    let Ok(envelope) = protobuf::envelope::decode(bytes) else { return };
    let again = protobuf::envelope::encode(envelope.api_version, envelope.kind, envelope.raw);
    let again = protobuf::envelope::decode(&again).expect("what was written is an envelope");
    assert_eq!(
        (again.api_version, again.kind, again.raw),
        (envelope.api_version, envelope.kind, envelope.raw),
        "opened, closed, opened"
    );
}

fn message(kind: Kind, bytes: &[u8]) {
    if let Ok(tree) = protobuf::decode(bytes, kind.schema, kind.ty) {
        agree(kind, &tree);
    }
}

fn object(kind: Kind, mut source: Source<'_>) {
    let written = source.object(kind.schema, kind.ty);
    let Some(mut tree) = kind.canonical(written) else { return };
    // They travel in the envelope.
    tree.unset(&["apiVersion"]);
    tree.unset(&["kind"]);
    agree(kind, &tree);
}

/// Messages do not tell empty lists and maps from absent ones, upstream's neither.
fn without_empty(tree: Tree) -> Tree {
    let is_empty = |tree: &Tree| match tree {
        Tree::Null => true,
        Tree::List(items) => items.is_empty(),
        Tree::Map(map) => map.is_empty(),
        _ => false,
    };
    match tree {
        Tree::List(items) => Tree::List(items.into_iter().map(without_empty).collect()),
        Tree::Map(map) => {
            let kept = map.into_iter().map(|(key, value)| (key, without_empty(value)));
            Tree::Map(kept.filter(|(_, value)| !is_empty(value)).collect())
        }
        other => other,
    }
}

/// One canonical object in all formats.
fn agree(kind: Kind, tree: &Tree) {
    let Kind { schema, ty, .. } = kind;
    let bytes = json::encode(tree, schema, ty);
    let (from_json, issues) = json::decode(&bytes, schema, ty).expect("what was written is an object of its kind");
    assert!(issues.is_empty(), "written, then unknown: {issues}");
    kind.same("JSON", tree, &from_json);

    let raw = protobuf::encode(tree, schema, ty);
    let again = protobuf::decode(&raw, schema, ty).unwrap_or_else(|error| panic!("{error}: {}", show(tree)));
    same("protobuf", &without_empty(kind.filled(tree)), &without_empty(kind.filled(&again)));
    assert_eq!(protobuf::encode(&again, schema, ty), raw, "written twice");

    let text = yaml::encode_untyped(tree);
    let shown = String::from_utf8_lossy(&text);
    let (from_yaml, issues) =
        yaml::decode(&text, schema, ty).unwrap_or_else(|error| panic!("wrote what is no YAML: {error}\n{shown}"));
    assert!(issues.is_empty(), "written, then unknown: {issues}");
    kind.same("YAML", tree, &from_yaml);
}
