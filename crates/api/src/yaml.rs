//! YAML until the object crate has it: JSON is a subset of it, and the rest is refused clearly.

use skiff_object::decode::{DecodeError, Issues};
use skiff_object::{Schema, Tree, TypeId, json};

pub(crate) fn decode(bytes: &[u8], schema: &Schema, ty: TypeId) -> Result<(Tree, Issues), DecodeError> {
    json::decode(bytes, schema, ty)
}

pub(crate) fn decode_untyped(bytes: &[u8]) -> Result<Tree, DecodeError> {
    json::decode_untyped(bytes)
}

pub(crate) fn encode_untyped(tree: &Tree) -> Vec<u8> {
    json::encode_untyped(tree)
}
