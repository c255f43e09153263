//! Protobuf, as Kubernetes' serialiser reads and writes it.
//!
//! The messages are proto2 without presence for what is no pointer in Go: such fields are always
//! written, and their zero value reads as absence. Fields are written by number, maps by key.
//! `apiVersion` and `kind` are no part of a message; they travel in the [`envelope`].

pub mod envelope;
mod read;
#[cfg(test)]
mod tests;
mod wire;
mod write;

pub use read::decode;
pub use write::encode;
