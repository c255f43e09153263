//! Trees for the tests of patches.

use proptest::prelude::*;

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
