//! Server-side apply and field ownership: a sequence of writes by several managers to one object.
//!
//! The first byte chooses a kind, each following write an operation, a manager and an object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skiff_fuzz::{Kind, Source, show};
use skiff_object::managed::set::FieldSet;
use skiff_object::managed::versions::OnePath;
use skiff_object::managed::{self, ApplyError, Request};
use skiff_object::time::Time;
use skiff_object::{Tree, json};

/// Enough for a conflict, its resolution, and what comes of it.
const WRITES_MAX: usize = 5;
const MANAGERS: [&str; 3] = ["one", "two", "kubectl"];

fuzz_target!(|data: &[u8]| {
    let mut source = Source::new(data);
    let kind = Kind::of(source.byte());
    let reset = FieldSet::new();
    let mut live: Option<Tree> = None;
    for write in 0..WRITES_MAX {
        if source.is_empty() {
            break;
        }
        let request = Request {
            schema: kind.schema,
            ty: kind.ty,
            api_version: kind.api_version,
            kind: kind.kind,
            subresource: "",
            reset: &reset,
            versions: &OnePath,
            manager: "",
            now: Time { seconds: 1_767_225_600 + write as i64, nanos: 0 },
        };
        let how = source.byte();
        let request = Request { manager: source.pick(&MANAGERS), ..request };
        let mut object = source.object(kind.schema, kind.ty);
        object.unset(&["metadata", "managedFields"]);
        let object = kind.named(object);
        let written = if how & 1 == 0 {
            update(kind, &request, live.as_ref(), object)
        } else {
            apply(kind, &request, live.as_ref(), &object, how & 2 == 2)
        };
        if let Some(written) = written {
            entries(&written);
            live = Some(written);
        }
    }
});

fn update(kind: Kind, request: &Request<'_>, live: Option<&Tree>, object: Tree) -> Option<Tree> {
    let mut new = kind.canonical(object)?;
    managed::update(request, live, &mut new).expect("one version");
    // Writing what is there changes hands of nothing.
    let mut again = new.clone();
    managed::update(&Request { manager: "bystander", ..*request }, Some(&new), &mut again).expect("one version");
    managed::keep_times(&mut again, &new);
    kind.same("updated with itself", &new, &again);
    Some(new)
}

fn apply(kind: Kind, request: &Request<'_>, live: Option<&Tree>, config: &Tree, force: bool) -> Option<Tree> {
    let applied = match managed::apply(request, live, config, force) {
        Ok(applied) => applied,
        Err(ApplyError::Conflict(conflicts)) => {
            assert!(!force, "forced, and refused: {conflicts}");
            assert!(!conflicts.is_empty());
            assert_eq!(conflicts.causes().as_list().map(<[Tree]>::len), Some(conflicts.len()));
            return None;
        }
        Err(_) => return None,
    };
    // The server stores the canonical form.
    let object = kind.canonical(applied)?;
    // Nothing of what was applied is anybody's: as upstream does, the next apply gives what is there to
    // `before-first-apply`.
    if object.list_at(&["metadata", "managedFields"]).is_empty() {
        return Some(object);
    }
    let later = Request { now: Time { seconds: request.now.seconds + 1_000, nanos: 0 }, ..*request };
    let again = managed::apply(&later, Some(&object), config, false)
        .unwrap_or_else(|error| panic!("applied again: {error}\n{}\n{}", show(config), show(&object)));
    let mut again = kind.canonical(again).expect("what was an object is one");
    // A quantity written differently is no change; the server compares what it would store.
    managed::keep_times(&mut again, &object);
    if object != again {
        kind.same(&format!("applied again: {}", show(config)), &object, &again);
    }
    give_up(kind, &later, &object);
    Some(object)
}

/// A manager that applies nothing any more owns nothing any more.
fn give_up(kind: Kind, request: &Request<'_>, object: &Tree) {
    let empty = kind.named(Tree::map());
    let left = managed::apply(request, Some(object), &empty, false).expect("nothing conflicts with nothing");
    let mine = left
        .list_at(&["metadata", "managedFields"])
        .iter()
        .find(|entry| entry.str_at(&["manager"]) == request.manager && entry.str_at(&["operation"]) == "Apply");
    assert!(mine.is_none(), "still owned: {}", show(&left));
    entries(&left);
}

/// What is noted can be read, and is written the same again.
fn entries(object: &Tree) {
    for entry in object.list_at(&["metadata", "managedFields"]) {
        let fields = entry.get("fieldsV1").expect("an entry has fields");
        let set = FieldSet::decode(fields).unwrap_or_else(|error| panic!("{error}: {}", show(fields)));
        assert!(!set.is_empty(), "an entry without a field");
        assert_eq!(json::encode_untyped(&set.encode()), json::encode_untyped(fields), "read and written");
    }
}
