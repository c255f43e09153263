//! What an API object is, and every pure operation on it.
//!
//! No clock, no I/O, no runtime: everything here is a function from values to values.
//!
//! Map, in reading order: [`tree`] (the value), [`schema`] (what is known about a type), [`path`] and
//! [`errors`] (what is wrong where), [`name`], [`quantity`], [`time`], [`selector`] (the scalar formats),
//! [`patch`] and [`managed`] (changes).

pub mod conform;
pub mod decode;
pub mod errors;
pub mod json;
pub mod managed;
pub mod name;
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
