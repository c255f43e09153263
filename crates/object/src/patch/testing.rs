//! Trees for the tests of patches.

use proptest::prelude::*;

use crate::schema::{
    Absent, Field, ListKey, ListKind, ListType, PatchStrategy, Scalar, Schema, Shape, StructType, Type, TypeId,
};
use crate::tree::{Key, Map, Tree};

/// A tree from JSON text.
pub(crate) fn json(text: &str) -> Tree {
    from_value(serde_json::from_str(text).unwrap())
}

fn from_value(value: serde_json::Value) -> Tree {
    match value {
        serde_json::Value::Null => Tree::Null,
        serde_json::Value::Bool(value) => Tree::Bool(value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => Tree::Int(number),
            None => Tree::Float(number.as_f64().unwrap()),
        },
        serde_json::Value::String(text) => text.into(),
        serde_json::Value::Array(items) => Tree::List(items.into_iter().map(from_value).collect()),
        serde_json::Value::Object(map) => {
            map.into_iter().map(|(key, value)| (Key::from(key), from_value(value))).collect::<Map>().into()
        }
    }
}

/// Any small tree.
pub(crate) fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        (0_i64..5).prop_map(Tree::Int),
        "[a-c]{0,2}".prop_map(Tree::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::List),
            prop::collection::vec(("[a-d/~]{1,2}", inner), 0..4).prop_map(|entries| entries
                .into_iter()
                .map(|(key, value)| (Key::from(key), value))
                .collect::<Map>()
                .into()),
        ]
    })
}

/// A small schema with one of everything: `Thing`.
pub(crate) fn schema() -> Schema {
    let mut schema = Schema::default();
    let mut add = |name: &'static str, shape: Shape| {
        schema.types.push(Type { name: name.into(), shape });
        TypeId(schema.types.len() as u32 - 1)
    };
    let string = add("", Shape::Scalar(Scalar::String));
    let int = add("", Shape::Scalar(Scalar::Int32));
    let any = add("", Shape::Any);
    let labels = add("", Shape::Map { value: string, atomic: false });
    let selector = add("", Shape::Map { value: string, atomic: true });
    let port = add(
        "Port",
        Shape::Struct(StructType {
            fields: vec![field("port", int), field("protocol", string), field("name", string)],
            ..StructType::default()
        }),
    );
    let key = |name: &'static str, default: Option<&'static str>| ListKey {
        name: name.into(),
        default: default.map(Key::from),
    };
    let ports = add(
        "",
        Shape::List(ListType {
            item: port,
            kind: ListKind::Map(vec![key("port", None), key("protocol", Some("TCP"))]),
            wrapped: false,
        }),
    );
    let item = add(
        "Item",
        Shape::Struct(StructType {
            fields: vec![field("name", string), field("n", int), field("labels", labels), field("ports", ports)],
            ..StructType::default()
        }),
    );
    let items = add("", Shape::List(ListType { item, kind: ListKind::Map(vec![key("name", None)]), wrapped: false }));
    let plain = add("", Shape::List(ListType { item, kind: ListKind::Atomic, wrapped: false }));
    let finalizers = add("", Shape::List(ListType { item: string, kind: ListKind::Set, wrapped: false }));
    let meta = add(
        "Meta",
        Shape::Struct(StructType {
            fields: vec![
                field("name", string),
                field("uid", string),
                field("labels", labels),
                field("annotations", labels),
                field("managedFields", plain),
            ],
            ..StructType::default()
        }),
    );
    let rolling = add("Rolling", Shape::Struct(StructType { fields: vec![field("x", int)], ..StructType::default() }));
    let strategy = add(
        "Strategy",
        Shape::Struct(StructType {
            fields: vec![field("type", string), field("rolling", rolling)],
            ..StructType::default()
        }),
    );
    let merging = |name, ty, merge_key: Option<&'static str>| Field {
        patch: PatchStrategy::Merge,
        patch_merge_key: merge_key.map(Key::from),
        ..field(name, ty)
    };
    add(
        "Thing",
        Shape::Struct(StructType {
            fields: vec![
                field("apiVersion", string),
                field("kind", string),
                Field { absent: Absent::EmptyStruct, ..field("metadata", meta) },
                field("labels", labels),
                field("selector", selector),
                merging("items", items, Some("name")),
                merging("finalizers", finalizers, None),
                field("plain", plain),
                Field { patch: PatchStrategy::RetainKeys, absent: Absent::EmptyStruct, ..field("strategy", strategy) },
                field("replicas", int),
                field("any", any),
            ],
            ..StructType::default()
        }),
    );
    schema
}

fn field(name: &'static str, ty: TypeId) -> Field {
    Field::new(name, ty)
}
