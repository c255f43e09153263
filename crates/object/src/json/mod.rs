//! JSON, as Kubernetes' serialiser reads and writes it.
//!
//! Reading is case-sensitive, keeps whole numbers whole, reports unknown and duplicate fields with
//! their paths, and gives the canonical tree: what Go could not tell from absence is absent.
//! Writing is byte for byte what Go writes for the same object.

mod read;
mod write;

pub use read::{decode, decode_untyped, decode_untyped_strict};
pub use write::{encode, encode_sorted, encode_untyped};

#[cfg(test)]
mod tests;
