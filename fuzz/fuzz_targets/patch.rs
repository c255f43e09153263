//! The three patches.
//!
//! The first byte chooses a kind, the second the patch (by its two lowest bits) and whether document and patch are two
//! texts with a zero byte between them or made from the bytes (by its highest).
#![no_main]

use libfuzzer_sys::fuzz_target;
use skiff_fuzz::{Kind, Source, same, show};
use skiff_object::decode::DEPTH_MAX;
use skiff_object::{Key, Map, Tree, conform, json, patch};

fuzz_target!(|data: &[u8]| {
    let [kind, how, rest @ ..] = data else { return };
    let (kind, is_operations) = (Kind::of(*kind), how & 3 == 0);
    let made = if how & 0x80 == 0 { read(kind, rest) } else { make(kind, rest, is_operations) };
    let Some((mut document, patch)) = made else { return };
    // A patch sees what clients see.
    conform::fill(&mut document, kind.schema, kind.ty);
    match how & 3 {
        0 => operations(document, &patch),
        1 => merge(document, patch),
        _ => strategic(kind, document, patch),
    }
});

fn read(kind: Kind, text: &[u8]) -> Option<(Tree, Tree)> {
    let middle = text.iter().position(|byte| *byte == 0)?;
    let (document, _) = json::decode(&text[..middle], kind.schema, kind.ty).ok()?;
    let patch = json::decode_untyped(&text[middle + 1..]).ok()?;
    document.as_map().is_some().then_some((document, patch))
}

fn make(kind: Kind, bytes: &[u8], is_operations: bool) -> Option<(Tree, Tree)> {
    let mut source = Source::new(bytes);
    let document = source.object(kind.schema, kind.ty);
    let document = kind.canonical(document)?;
    if is_operations {
        let places = places(&document);
        let operations = (0..source.below(6)).map(|_| operation(&mut source, &places)).collect();
        return Some((document, Tree::List(operations)));
    }
    let mut patch = source.object(kind.schema, kind.ty);
    source.season(&mut patch);
    Some((document, patch))
}

/// The JSON pointers into a document, as many as a byte can choose from.
fn places(document: &Tree) -> Vec<String> {
    let mut places = Vec::new();
    let mut open = vec![(String::new(), document)];
    while let Some((place, tree)) = open.pop() {
        match tree {
            Tree::Map(map) => open.extend(map.iter().map(|(key, value)| {
                let key = key.as_str().replace('~', "~0").replace('/', "~1");
                (format!("{place}/{key}"), value)
            })),
            Tree::List(items) => {
                open.extend(items.iter().enumerate().map(|(index, item)| (format!("{place}/{index}"), item)));
                places.push(format!("{place}/-"));
            }
            _ => {}
        }
        places.push(place);
    }
    places.truncate(usize::from(u8::MAX));
    places
}

fn operation(source: &mut Source<'_>, places: &[String]) -> Tree {
    let mut place = || {
        let place = &places[source.below(places.len())];
        match source.byte() {
            0..=31 => format!("{place}/{}", source.word()),
            32 => format!("{place}/-1"),
            _ => place.clone(),
        }
    };
    let (path, from) = (place(), place());
    let mut operation = Map::new();
    operation.insert("op", source.pick(&["add", "remove", "replace", "move", "copy", "test"]));
    operation.insert("path", path);
    operation.insert("from", from);
    operation.insert("value", source.any(8));
    Tree::Map(operation)
}

fn operations(document: Tree, patch: &Tree) {
    let nothing = patch::json::apply(document.clone(), &Tree::list()).expect("no operation cannot fail");
    same("no operation", &document, &nothing);
    let Ok(changed) = patch::json::apply(document, patch) else { return };
    assert!(changed.depth() <= DEPTH_MAX);
    // What was put somewhere last is there.
    let Some(last) = patch.as_list().and_then(<[Tree]>::last) else { return };
    let path = last.str_at(&["path"]);
    if matches!(last.str_at(&["op"]), "add" | "replace")
        && !path.ends_with("/-")
        && let Some(value) = last.get("value")
    {
        let test: Map = [("op".into(), "test".into()), ("path".into(), path.into()), ("value".into(), value.clone())]
            .into_iter()
            .collect();
        let test = Tree::List(vec![Tree::Map(test)]);
        let tested = patch::json::apply(changed.clone(), &test);
        assert!(tested.is_ok(), "{tested:?}: {} in {}", show(&test), show(&changed));
    }
}

fn merge(document: Tree, patch: Tree) {
    let wanted = naive_merge(document.clone(), &patch);
    let once = patch::merge::apply(document, patch.clone()).expect("neither is too deep");
    same("RFC 7386", &once, &wanted);
    let twice = patch::merge::apply(once.clone(), patch).expect("neither is too deep");
    same("merged twice", &once, &twice);
}

/// The pseudocode of RFC 7386, once more.
fn naive_merge(target: Tree, patch: &Tree) -> Tree {
    let Tree::Map(patch) = patch else { return patch.clone() };
    let mut target = if let Tree::Map(target) = target { target } else { Map::new() };
    for (key, value) in patch.iter() {
        let before = target.remove(key.as_str()).unwrap_or_default();
        if !value.is_null() {
            let value = naive_merge(before, value);
            target.insert(key.clone(), value);
        }
    }
    Tree::Map(target)
}

fn strategic(kind: Kind, document: Tree, patch: Tree) {
    let plain = is_plain(&patch);
    let Ok(once) = patch::strategic::apply(document.clone(), patch.clone(), kind.schema, kind.ty) else { return };
    assert!(once.depth() <= DEPTH_MAX);
    // Without lists and directives the two merges are one.
    if plain {
        let merged = patch::merge::apply(document, patch.clone()).expect("neither is too deep");
        same("strategic merge and merge", &without_nulls(once.clone()), &without_nulls(merged));
    }
    if let Some(object) = kind.canonical(once) {
        let text = json::encode(&object, kind.schema, kind.ty);
        let (again, _) = json::decode(&text, kind.schema, kind.ty).expect("an object of its kind");
        kind.same("patched, written, read", &object, &again);
    }
}

/// Whether a patch consists of maps and scalars alone.
fn is_plain(patch: &Tree) -> bool {
    match patch {
        Tree::Map(map) => map.iter().all(|(key, value)| !key.as_str().starts_with('$') && is_plain(value)),
        Tree::List(_) => false,
        _ => true,
    }
}

fn without_nulls(mut tree: Tree) -> Tree {
    if let Tree::Map(map) = &mut tree {
        let kept = std::mem::take(map).into_iter().filter(|(_, value)| !value.is_null());
        *map = kept.map(|(key, value): (Key, Tree)| (key, without_nulls(value))).collect();
    }
    tree
}
