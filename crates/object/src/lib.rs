//! What an API object is, and every pure operation on it.
//!
//! No clock, no I/O, no runtime: everything here is a function from values to values.
//!
//! Map, in reading order: [`tree`] (the value), [`schema`] (what is known about a type), [`path`] and
//! [`errors`] (what is wrong where), [`json`], [`yaml`] and [`protobuf`] (bytes) over [`decode`] and
//! [`conform`] (what they share), [`name`], [`quantity`], [`time`], [`selector`] (the scalar formats),
//! [`patch`] and [`managed`] (changes).
//!
//! ```
//! use skiff_object::json;
//!
//! let mut tree = json::decode_untyped(br#"{"kind":"Pod","metadata":{"name":"web"}}"#).unwrap();
//! tree.set(&["metadata", "namespace"], "default");
//! assert_eq!(tree.str_at(&["metadata", "name"]), "web");
//! assert_eq!(json::encode_untyped(&tree), br#"{"kind":"Pod","metadata":{"name":"web","namespace":"default"}}"#);
//! ```

pub mod conform;
pub mod decode;
pub mod errors;
pub mod json;
pub mod managed;
pub mod name;
pub mod net;
pub mod patch;
pub mod path;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod time;
pub mod tree;
pub mod yaml;

pub use schema::{Schema, TypeId};
pub use tree::{Key, Map, Tree};
