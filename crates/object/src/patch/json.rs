//! JSON patch (RFC 6902) with the bounds, the leniency and the words of upstream's library.
//!
//! Where upstream deviates from the RFC, so does this: negative indices count from the end,
//! replacing a missing key of a map adds it, and testing a missing key against `null` holds.

use super::{DEPTH_MAX, TooDeep, check_depth, depth};
use crate::tree::{Key, Map, Tree};

/// Upstream's limit on the operations of one patch.
pub const OPERATIONS_MAX: usize = 10_000;
/// Upstream's limit on what `copy` may add in total: the size of the largest request.
pub const COPIED_BYTES_MAX: usize = 3 * 1_024 * 1_024;

/// Why a JSON patch was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JsonPatchError {
    /// The document is no list of operations: 400.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// More than [`OPERATIONS_MAX`] operations: 413.
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooManyOperations(usize),
    /// `copy` would add more than [`COPIED_BYTES_MAX`] bytes: 413.
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {0}, exceeding the limit {COPIED_BYTES_MAX}"
    )]
    CopiesTooMuch(usize),
    /// An operation does not apply to the document: 422.
    #[error("{0}")]
    DoesNotApply(String),
}

impl From<TooDeep> for JsonPatchError {
    fn from(error: TooDeep) -> Self {
        Self::DoesNotApply(error.to_string())
    }
}

type Applied<T = ()> = Result<T, String>;

/// Applies the operations of `patch` in order to `document`.
///
/// # Errors
/// When the patch is malformed or too large, or when an operation does not apply; nothing is
/// applied then.
pub fn apply(mut document: Tree, patch: &Tree) -> Result<Tree, JsonPatchError> {
    let malformed = |what: &str| JsonPatchError::Malformed(format!("json: cannot unmarshal {what}"));
    let Tree::List(operations) = patch else {
        return Err(malformed(&format!("{} into Go value of type jsonpatch.Patch", kind(patch))));
    };
    if operations.len() > OPERATIONS_MAX {
        return Err(JsonPatchError::TooManyOperations(operations.len()));
    }
    check_depth(patch)?;
    let mut copied_bytes = 0;
    // Never less than the depth of the document. Measuring after every operation would make a patch
    // of many operations on a large document quadratic.
    let mut levels_bound = depth(&document);
    for operation in operations {
        let Tree::Map(operation) = operation else {
            return Err(malformed(&format!("{} into Go value of type jsonpatch.Operation", kind(operation))));
        };
        apply_one(&mut document, operation, &mut copied_bytes)?;
        levels_bound = bound_after(operation, levels_bound);
        if levels_bound > DEPTH_MAX {
            levels_bound = depth(&document);
            check_depth(&document)?;
        }
    }
    Ok(document)
}

const fn kind(tree: &Tree) -> &'static str {
    match tree {
        Tree::Null => "null",
        Tree::Bool(_) => "bool",
        Tree::Int(_) | Tree::Float(_) => "number",
        Tree::Str(_) => "string",
        Tree::List(_) => "array",
        Tree::Map(_) => "object",
    }
}

fn apply_one(document: &mut Tree, operation: &Map, copied_bytes: &mut usize) -> Result<(), JsonPatchError> {
    let done = match operation.get("op").and_then(Tree::as_str).unwrap_or("unknown") {
        "add" => add(document, operation),
        "remove" => remove(document, operation),
        "replace" => replace(document, operation),
        "move" => relocate(document, operation),
        "test" => test(document, operation),
        "copy" => return copy(document, operation, copied_bytes),
        other => Err(format!("Unexpected kind: {other}")),
    };
    done.map_err(JsonPatchError::DoesNotApply)
}

/// How deep a document of at most `levels` can be after an operation.
fn bound_after(operation: &Map, levels: usize) -> usize {
    let steps = text(operation, "path").unwrap_or("").matches('/').count();
    match text(operation, "op").unwrap_or("") {
        "add" | "replace" => levels.max(steps + operation.get("value").map_or(0, depth)),
        "move" | "copy" => levels + steps,
        _ => levels,
    }
}

fn text<'a>(operation: &'a Map, field: &str) -> Option<&'a str> {
    operation.get(field).and_then(Tree::as_str)
}

fn path_of<'a>(operation: &'a Map, name: &str) -> Applied<&'a str> {
    text(operation, "path").ok_or_else(|| match name {
        "add" | "remove" | "copy" => format!("{name} operation failed to decode path: missing value"),
        _ => format!("{name} operation failed to decode path: operation missing path field: missing value"),
    })
}

fn from_of<'a>(operation: &'a Map, name: &str) -> Applied<&'a str> {
    text(operation, "from")
        .ok_or_else(|| format!("{name} operation failed to decode from: operation, missing from field: missing value"))
}

fn value_of(operation: &Map) -> Tree {
    operation.get("value").cloned().unwrap_or_default()
}

/// The container that a pointer's last step is taken in, and that step.
fn find<'a>(document: &'a mut Tree, pointer: &str) -> Option<(&'a mut Tree, String)> {
    let (_, steps) = pointer.split_once('/')?;
    let (parents, last) = match steps.rsplit_once('/') {
        Some((parents, last)) => (Some(parents), last),
        None => (None, steps),
    };
    let mut tree = document;
    for step in parents.into_iter().flat_map(|parents| parents.split('/')) {
        let step = unescape(step);
        tree = match tree {
            Tree::Map(map) => map.get_mut(&step)?,
            Tree::List(items) => {
                let index = place(&step, items.len()).ok()?;
                items.get_mut(index)?
            }
            _ => return None,
        };
    }
    matches!(tree, Tree::Map(_) | Tree::List(_)).then(|| (tree, unescape(last)))
}

fn unescape(step: &str) -> String {
    if step.contains('~') { step.replace("~1", "/").replace("~0", "~") } else { step.to_owned() }
}

/// The place of an existing item.
fn place(step: &str, len: usize) -> Applied<usize> {
    let index: i64 =
        step.parse().map_err(|_| format!("strconv.Atoi: parsing {}: invalid syntax", crate::errors::quote(step)))?;
    resolve(index, len).filter(|index| *index < len).ok_or_else(|| invalid_index(index))
}

fn resolve(index: i64, len: usize) -> Option<usize> {
    let len = i64::try_from(len).ok()?;
    usize::try_from(if index < 0 { index.checked_add(len)? } else { index }).ok()
}

fn invalid_index(index: i64) -> String {
    format!("Unable to access invalid index: {index}: invalid index referenced")
}

fn get<'a>(container: &'a Tree, step: &str) -> Applied<Option<&'a Tree>> {
    match container {
        Tree::Map(map) => Ok(map.get(step)),
        Tree::List(items) => place(step, items.len()).map(|index| items.get(index)),
        _ => Ok(None),
    }
}

fn insert(container: &mut Tree, step: String, value: Tree) -> Applied {
    match container {
        Tree::Map(map) => {
            map.insert(Key::from(step), value);
        }
        Tree::List(items) if step == "-" => items.push(value),
        Tree::List(items) => {
            let index: i64 = step.parse().map_err(|_| {
                let quoted = crate::errors::quote(&step);
                format!("value was not a proper array index: '{step}': strconv.Atoi: parsing {quoted}: invalid syntax")
            })?;
            // A negative index counts from behind the last item: -1 appends.
            let at = resolve(index, items.len() + 1).filter(|at| *at <= items.len());
            items.insert(at.ok_or_else(|| invalid_index(index))?, value);
        }
        _ => {}
    }
    Ok(())
}

fn take(container: &mut Tree, step: &str) -> Applied<Tree> {
    match container {
        Tree::Map(map) => {
            map.remove(step).ok_or_else(|| format!("Unable to remove nonexistent key: {step}: missing value"))
        }
        Tree::List(items) => place(step, items.len()).map(|index| items.remove(index)),
        _ => Ok(Tree::Null),
    }
}

fn add(document: &mut Tree, operation: &Map) -> Applied {
    let path = path_of(operation, "add")?;
    let (container, step) = find(document, path)
        .ok_or_else(|| format!("add operation does not apply: doc is missing path: \"{path}\": missing value"))?;
    insert(container, step, value_of(operation)).map_err(|error| format!("error in add for path: '{path}': {error}"))
}

fn remove(document: &mut Tree, operation: &Map) -> Applied {
    let path = path_of(operation, "remove")?;
    let (container, step) = find(document, path)
        .ok_or_else(|| format!("remove operation does not apply: doc is missing path: \"{path}\": missing value"))?;
    take(container, &step).map(drop).map_err(|error| format!("error in remove for path: '{path}': {error}"))
}

fn replace(document: &mut Tree, operation: &Map) -> Applied {
    let path = path_of(operation, "replace")?;
    let value = value_of(operation);
    if path.is_empty() {
        if !matches!(value, Tree::Map(_) | Tree::List(_)) {
            return Err("replace operation value must be object or array".to_owned());
        }
        *document = value;
        return Ok(());
    }
    let (container, step) = find(document, path)
        .ok_or_else(|| format!("replace operation does not apply: doc is missing path: {path}: missing value"))?;
    match container {
        Tree::List(items) => {
            let index = place(&step, items.len())
                .map_err(|_| format!("replace operation does not apply: doc is missing key: {path}: missing value"))?;
            items[index] = value;
            Ok(())
        }
        other => insert(other, step, value),
    }
}

fn relocate(document: &mut Tree, operation: &Map) -> Applied {
    let from = from_of(operation, "move")?;
    let (container, step) = find(document, from)
        .ok_or_else(|| format!("move operation does not apply: doc is missing from path: {from}: missing value"))?;
    let value = take(container, &step).map_err(|error| format!("error in move for path: '{step}': {error}"))?;
    let path = path_of(operation, "move")?;
    let (container, step) = find(document, path).ok_or_else(|| {
        format!("move operation does not apply: doc is missing destination path: {path}: missing value")
    })?;
    insert(container, step, value).map_err(|error| format!("error in move for path: '{path}': {error}"))
}

fn test(document: &mut Tree, operation: &Map) -> Applied {
    let path = path_of(operation, "test")?;
    let failed = || format!("testing value {path} failed: test failed");
    let want = operation.get("value");
    if path.is_empty() {
        return if Some(&*document) == want { Ok(()) } else { Err(failed()) };
    }
    let (container, step) = find(document, path)
        .ok_or_else(|| format!("test operation does not apply: is missing path: {path}: missing value"))?;
    let have = get(container, &step).map_err(|error| format!("error in test for path: '{path}': {error}"))?;
    if have.unwrap_or(&Tree::Null) == want.unwrap_or(&Tree::Null) { Ok(()) } else { Err(failed()) }
}

fn copy(document: &mut Tree, operation: &Map, copied_bytes: &mut usize) -> Result<(), JsonPatchError> {
    let apply = |error| JsonPatchError::DoesNotApply(error);
    let from = from_of(operation, "copy").map_err(apply)?;
    let (container, step) = find(document, from).ok_or_else(|| {
        apply(format!("copy operation does not apply: doc is missing from path: {from}: missing value"))
    })?;
    let value = get(container, &step).map_err(|error| apply(format!("error in copy for from: '{from}': {error}")))?;
    let value = value.cloned().unwrap_or_default();
    *copied_bytes = copied_bytes.saturating_add(json_bytes(&value));
    if *copied_bytes > COPIED_BYTES_MAX {
        return Err(JsonPatchError::CopiesTooMuch(*copied_bytes));
    }
    let path = path_of(operation, "copy").map_err(apply)?;
    let (container, step) = find(document, path).ok_or_else(|| {
        apply(format!("copy operation does not apply: doc is missing destination path: {path}: missing value"))
    })?;
    insert(container, step, value).map_err(|error| apply(format!("error while adding value during copy: {error}")))
}

/// About how long a tree is as JSON; within the depth that [`check_depth`] allows.
fn json_bytes(tree: &Tree) -> usize {
    match tree {
        Tree::Null => 4,
        Tree::Bool(_) => 5,
        Tree::Int(_) | Tree::Float(_) => 8,
        Tree::Str(text) => text.len() + 2,
        Tree::List(items) => items.iter().map(|item| json_bytes(item) + 1).sum::<usize>() + 2,
        Tree::Map(map) => map.iter().map(|(key, value)| key.as_str().len() + 4 + json_bytes(value)).sum::<usize>() + 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::testing::{json, tree};
    use proptest::prelude::*;

    #[test]
    fn operations_change_the_document() {
        for (document, patch, want) in [
            (r#"{"a":1}"#, r#"[{"op":"add","path":"/b","value":[1]}]"#, r#"{"a":1,"b":[1]}"#),
            (r#"{"a":[1,2]}"#, r#"[{"op":"add","path":"/a/1","value":9}]"#, r#"{"a":[1,9,2]}"#),
            (r#"{"a":[1,2]}"#, r#"[{"op":"add","path":"/a/-","value":9}]"#, r#"{"a":[1,2,9]}"#),
            (r#"{"a":[1,2]}"#, r#"[{"op":"remove","path":"/a/-1"}]"#, r#"{"a":[1]}"#),
            (r#"{"a":{"b/c~d":1}}"#, r#"[{"op":"remove","path":"/a/b~1c~0d"}]"#, r#"{"a":{}}"#),
            (r#"{"a":1}"#, r#"[{"op":"replace","path":"/a","value":null}]"#, r#"{"a":null}"#),
            (r#"{"a":1}"#, r#"[{"op":"replace","path":"/b","value":2}]"#, r#"{"a":1,"b":2}"#),
            (r#"{"a":{"x":1},"b":{}}"#, r#"[{"op":"move","from":"/a/x","path":"/b/y"}]"#, r#"{"a":{},"b":{"y":1}}"#),
            (r#"{"a":{"x":1}}"#, r#"[{"op":"copy","from":"/a","path":"/b"}]"#, r#"{"a":{"x":1},"b":{"x":1}}"#),
            (r#"{"a":{"x":[1]}}"#, r#"[{"op":"test","path":"/a","value":{"x":[1]}}]"#, r#"{"a":{"x":[1]}}"#),
            (r#"{}"#, r#"[{"op":"test","path":"/a","value":null}]"#, r#"{}"#),
        ] {
            assert_eq!(apply(json(document), &json(patch)), Ok(json(want)), "{patch}");
        }
    }

    #[test]
    fn what_does_not_apply_says_why() {
        for (patch, want) in [
            (r#"[{"op":"test","path":"/a","value":2}]"#, "testing value /a failed: test failed"),
            (
                r#"[{"op":"add","path":"/x/y","value":2}]"#,
                r#"add operation does not apply: doc is missing path: "/x/y": missing value"#,
            ),
            (
                r#"[{"op":"remove","path":"/x"}]"#,
                "error in remove for path: '/x': Unable to remove nonexistent key: x: missing value",
            ),
            (
                r#"[{"op":"replace","path":"/x/y","value":1}]"#,
                "replace operation does not apply: doc is missing path: /x/y: missing value",
            ),
            (
                r#"[{"op":"add","path":"/l/9","value":1}]"#,
                "error in add for path: '/l/9': Unable to access invalid index: 9: invalid index referenced",
            ),
            (
                r#"[{"op":"add","path":"/l/x","value":1}]"#,
                r#"error in add for path: '/l/x': value was not a proper array index: 'x': strconv.Atoi: parsing "x": invalid syntax"#,
            ),
            (r#"[{"op":"jump"}]"#, "Unexpected kind: jump"),
            (r#"[{"op":"add"}]"#, "add operation failed to decode path: missing value"),
        ] {
            let error = apply(json(r#"{"a":1,"l":[0]}"#), &json(patch)).unwrap_err();
            assert_eq!(error, JsonPatchError::DoesNotApply(want.to_owned()));
        }
    }

    #[test]
    fn patches_that_grow_without_bound_are_refused() {
        let bomb: Vec<String> = (0..200).map(|i| format!(r#"{{"op":"copy","from":"/a","path":"/a/x{i}"}}"#)).collect();
        let error = apply(json(r#"{"a":{"text":"some text"}}"#), &json(&format!("[{}]", bomb.join(",")))).unwrap_err();
        assert!(matches!(error, JsonPatchError::CopiesTooMuch(_)), "{error}");
        let many = Tree::List(vec![Tree::map(); OPERATIONS_MAX + 1]);
        let error = apply(Tree::map(), &many).unwrap_err();
        assert_eq!(error.to_string(), "The allowed maximum operations in a JSON patch is 10000, got 10001");
        let deeper: Vec<String> = (0..DEPTH_MAX + 1)
            .map(|i| format!(r#"{{"op":"add","path":"{}","value":{{}}}}"#, "/a".repeat(i + 1)))
            .collect();
        let error = apply(Tree::map(), &json(&format!("[{}]", deeper.join(",")))).unwrap_err();
        assert_eq!(error.to_string(), "exceeded max depth");
    }

    proptest! {
        #[test]
        fn adding_then_removing_gives_the_document_back(document in tree(), value in tree()) {
            if document.as_map().is_some() {
                let mut patch = json(r#"[{"op":"add","path":"/new"},{"op":"test","path":"/new"},{"op":"remove","path":"/new"}]"#);
                for operation in patch.as_list_mut().unwrap() {
                    operation.as_map_mut().unwrap().insert("value", value.clone());
                }
                prop_assert_eq!(apply(document.clone(), &patch).unwrap(), document);
            }
        }

        #[test]
        fn moving_there_and_back_gives_the_document_back(document in tree()) {
            if document.get("a").is_some() {
                let patch = json(r#"[{"op":"move","from":"/a","path":"/new"},{"op":"move","from":"/new","path":"/a"}]"#);
                prop_assert_eq!(apply(document.clone(), &patch).unwrap(), document);
            }
        }

        #[test]
        fn no_patch_panics(document in tree(), op in "add|remove|replace|move|copy|test", path in "[/a-d~0-9-]{0,6}", from in "[/a-d~0-9-]{0,6}", value in tree()) {
            let mut operation = Map::new();
            operation.insert("op", op);
            operation.insert("path", path);
            operation.insert("from", from);
            operation.insert("value", value);
            let _ = apply(document, &Tree::List(vec![Tree::Map(operation)]));
        }
    }
}
