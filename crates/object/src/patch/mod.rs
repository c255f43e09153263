//! The patches: [`json`] (RFC 6902), [`merge`] (RFC 7386), [`strategic`] (Kubernetes' own).
//!
//! Server-side apply, the fourth, is in [`crate::managed`].
//!
//! Every patch works on untyped trees and gives an untyped tree; whether the result is an object of
//! its kind is checked afterwards.

pub mod json;
pub mod merge;
pub mod strategic;

#[cfg(test)]
pub(crate) mod testing;

use crate::tree::Tree;

/// How deep a patch or its result may nest. Decoders refuse deeper documents; this keeps patches
/// from building one (a copy into itself doubles the depth each time).
pub use crate::decode::DEPTH_MAX;

/// A document nests deeper than [`DEPTH_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("exceeded max depth")]
pub struct TooDeep;

/// How many levels a tree has, scalars having none; without recursion.
pub fn depth(tree: &Tree) -> usize {
    let mut deepest = 0;
    let mut open = vec![(tree, 1)];
    while let Some((tree, level)) = open.pop() {
        match tree {
            Tree::List(items) => {
                deepest = deepest.max(level);
                open.extend(items.iter().filter(|item| is_container(item)).map(|item| (item, level + 1)));
            }
            Tree::Map(map) => {
                deepest = deepest.max(level);
                open.extend(map.values().filter(|item| is_container(item)).map(|item| (item, level + 1)));
            }
            _ => {}
        }
    }
    deepest
}

/// Checks that a tree nests at most [`DEPTH_MAX`] levels deep.
///
/// # Errors
/// When it is deeper.
pub fn check_depth(tree: &Tree) -> Result<(), TooDeep> {
    if depth(tree) > DEPTH_MAX { Err(TooDeep) } else { Ok(()) }
}

const fn is_container(tree: &Tree) -> bool {
    matches!(tree, Tree::List(_) | Tree::Map(_))
}
