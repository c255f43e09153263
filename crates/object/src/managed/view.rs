//! An object as Go would hold it: what a value struct shows although nobody set it, and nothing that
//! a zero value hides.
//!
//! Ownership depends on it: upstream compares Go structs, in which `resources: {}` is there from the
//! start and an empty map is not.

use std::borrow::Cow;

use crate::schema::{Absent, Field, Scalar, Schema, Shape, TypeId};
use crate::tree::{Map, Tree};

/// How far absent value structs are filled in; Go types do not nest by value much deeper.
const FILL_DEPTH_MAX: usize = 32;

/// The object as a Go struct of the type `ty` would be encoded.
pub(super) fn as_go(schema: &Schema, ty: TypeId, object: &Tree) -> Tree {
    value(schema, ty, Cow::Borrowed(object), 0)
}

fn value(schema: &Schema, ty: TypeId, tree: Cow<'_, Tree>, filled: usize) -> Tree {
    match (&schema.get(ty).shape, tree.as_ref()) {
        // Without a protobuf form there is no Go struct: custom resources are kept as they are.
        (Shape::Struct(fields), Tree::Map(map)) if !fields.wire.is_empty() => {
            let mut out = Map::new();
            for field in &fields.fields {
                if let Some(value) = entry(schema, field, map.get(field.name.as_str()), filled) {
                    out.push_unchecked(field.name.clone(), value);
                }
            }
            if fields.preserve_unknown {
                for (key, value) in map.iter().filter(|(key, _)| fields.field(key.as_str()).is_none()) {
                    out.push_unchecked(key.clone(), value.clone());
                }
            }
            Tree::Map(out)
        }
        (Shape::Map { value: inner, .. }, Tree::Map(map)) if !is_leaf(schema, *inner) => {
            let entries =
                map.iter().map(|(key, tree)| (key.clone(), value(schema, *inner, Cow::Borrowed(tree), filled)));
            Tree::Map(entries.collect())
        }
        (Shape::List(list), Tree::List(items)) if !is_leaf(schema, list.item) => {
            Tree::List(items.iter().map(|tree| value(schema, list.item, Cow::Borrowed(tree), filled)).collect())
        }
        _ => tree.into_owned(),
    }
}

fn is_leaf(schema: &Schema, ty: TypeId) -> bool {
    matches!(schema.get(ty).shape, Shape::Scalar(_) | Shape::Any | Shape::Either(_))
}

fn entry(schema: &Schema, field: &Field, tree: Option<&Tree>, filled: usize) -> Option<Tree> {
    match tree.filter(|tree| !tree.is_null()) {
        Some(tree) if field.absent == Absent::Omitted && is_zero(schema, field, tree) => None,
        Some(tree) => Some(value(schema, field.ty, Cow::Borrowed(tree), filled)),
        None => match field.absent {
            Absent::Omitted => None,
            Absent::Null => Some(Tree::Null),
            Absent::Zero => Some(zero(schema, field.ty)),
            Absent::EmptyStruct if filled >= FILL_DEPTH_MAX => None,
            Absent::EmptyStruct => Some(value(schema, field.ty, Cow::Owned(Tree::map()), filled + 1)),
        },
    }
}

/// Whether Go's `omitempty` hides the value.
fn is_zero(schema: &Schema, field: &Field, tree: &Tree) -> bool {
    match (&schema.get(field.ty).shape, tree) {
        (Shape::List(_), Tree::List(items)) => items.is_empty(),
        (Shape::Map { .. }, Tree::Map(map)) => map.is_empty(),
        (Shape::Scalar(_), _) if field.pointer => false,
        (Shape::Scalar(_), tree) => match tree {
            Tree::Str(text) => text.is_empty(),
            Tree::Int(number) => *number == 0,
            Tree::Float(number) => *number == 0.0,
            Tree::Bool(value) => !value,
            _ => false,
        },
        _ => false,
    }
}

fn zero(schema: &Schema, ty: TypeId) -> Tree {
    match &schema.get(ty).shape {
        Shape::Scalar(scalar) => match scalar {
            Scalar::Bool => Tree::Bool(false),
            Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString => Tree::Int(0),
            Scalar::Double => Tree::Float(0.0),
            Scalar::Quantity => "0".into(),
            Scalar::Duration => "0s".into(),
            Scalar::String | Scalar::Bytes => "".into(),
            Scalar::Time | Scalar::MicroTime | Scalar::FieldsV1 => Tree::Null,
        },
        _ => Tree::Null,
    }
}
