//! JSON merge patch (RFC 7386): maps merge, `null` removes, everything else replaces.

use super::{TooDeep, check_depth};
use crate::tree::Tree;

/// Applies `patch` to `target`.
///
/// # Errors
/// When either nests too deep.
pub fn apply(mut target: Tree, patch: Tree) -> Result<Tree, TooDeep> {
    check_depth(&target)?;
    check_depth(&patch)?;
    merge(&mut target, patch);
    Ok(target)
}

fn merge(target: &mut Tree, patch: Tree) {
    let Tree::Map(patch) = patch else {
        *target = patch;
        return;
    };
    let map = target.ensure_map();
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key.as_str());
        } else {
            merge(map.entry_or(key, Tree::default), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::DEPTH_MAX;
    use crate::patch::testing::{json, tree};
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (target, patch, want) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, r#"null"#, r#"null"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r#"[1,2]"#, r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(apply(json(target), json(patch)), Ok(json(want)), "{target} + {patch}");
        }
    }

    #[test]
    fn a_patch_of_too_many_levels_is_refused() {
        let mut deep = Tree::map();
        for _ in 0..=DEPTH_MAX {
            deep = Tree::Map([("a".into(), deep)].into_iter().collect());
        }
        assert_eq!(apply(Tree::map(), deep), Err(TooDeep));
    }

    fn has_null(tree: &Tree) -> bool {
        tree.as_map().is_some_and(|map| map.values().any(|value| value.is_null() || has_null(value)))
    }

    proptest! {
        #[test]
        fn applying_twice_changes_nothing(target in tree(), patch in tree()) {
            let once = apply(target, patch.clone()).unwrap();
            prop_assert_eq!(apply(once.clone(), patch).unwrap(), once);
        }

        #[test]
        fn an_empty_patch_keeps_a_map(target in tree()) {
            if target.as_map().is_some() {
                prop_assert_eq!(apply(target.clone(), Tree::map()).unwrap(), target);
            }
        }

        #[test]
        fn a_patch_leaves_no_null_of_its_own(patch in tree()) {
            if patch.as_map().is_some() {
                prop_assert!(!has_null(&apply(Tree::map(), patch).unwrap()));
            }
        }
    }
}
