//! YAML, read and written as `sigs.k8s.io/yaml` does: as a notation for JSON.
//!
//! Plain scalars follow YAML 1.1 (`yes` is true, `010` is eight), keys become strings, merge keys
//! work, and only the first document counts. Aliases are copied within a budget.

mod read;
mod resolve;
mod write;

pub use read::{decode, decode_untyped, decode_untyped_strict};
pub use write::encode_untyped;
