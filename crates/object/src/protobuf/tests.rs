//! Messages that are well-formed and yet no objects: what could not be stored as JSON and read again.

use super::decode;
use super::wire::{Layout, put_message, put_number, put_tag};
use crate::decode::{DEPTH_MAX, DecodeError};
use crate::schema::{Field, ListKind, ListType, Scalar, Schema, Shape, StructType, Type, TypeId, Wire};
use crate::{Key, Tree, json};

const ROOT: TypeId = TypeId(0);

/// `Thing{things []Thing = 1, when Time = 2, much double = 3}`
fn schema() -> Schema {
    let fields = vec![Field::new("things", TypeId(1)), Field::new("when", TypeId(2)), Field::new("much", TypeId(3))];
    let wire = (0..3).map(|index| Wire::Field { number: u32::from(index) + 1, index }).collect();
    let anonymous = |shape| Type { name: Key::Static(""), shape };
    Schema {
        lenient: false,
        types: vec![
            Type {
                name: Key::Static("io.k8s.api.test.v1.Thing"),
                shape: Shape::Struct(StructType { fields, wire, ..StructType::default() }),
            },
            anonymous(Shape::List(ListType { item: ROOT, kind: ListKind::Atomic, wrapped: false })),
            anonymous(Shape::Scalar(Scalar::Time)),
            anonymous(Shape::Scalar(Scalar::Double)),
        ],
    }
}

fn when(seconds: i64) -> Result<Option<Tree>, DecodeError> {
    let mut message = Vec::new();
    put_message(&mut message, 2, |out| put_number(out, 1, seconds));
    decode(&message, &schema(), ROOT).map(|tree| tree.get("when").cloned())
}

#[test]
fn times_that_have_no_text_are_refused() {
    assert_eq!(when(0), Ok(Some("1970-01-01T00:00:00Z".into())));
    assert_eq!(when(-62_135_596_800), Ok(None), "Go's zero time is no time");
    for seconds in [i64::MIN, -62_167_219_201, 253_402_300_800, i64::MAX] {
        assert!(matches!(when(seconds), Err(DecodeError::Type(_))), "{seconds}");
    }
}

#[test]
fn numbers_that_json_does_not_have_are_refused() {
    let much = |number: f64| {
        let mut message = Vec::new();
        put_tag(&mut message, 3, Layout::Fixed64);
        message.extend_from_slice(&number.to_le_bytes());
        decode(&message, &schema(), ROOT)
    };
    assert_eq!(much(1.5).unwrap().get("much"), Some(&Tree::Float(1.5)));
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(matches!(much(number), Err(DecodeError::Type(_))), "{number}");
    }
}

#[test]
fn what_is_read_is_no_deeper_than_json_may_be() {
    let nested = |levels: usize| {
        let mut message = Vec::new();
        for _ in 0..levels {
            let inner = std::mem::take(&mut message);
            put_message(&mut message, 1, |out| out.extend_from_slice(&inner));
        }
        message
    };
    // Each level is a list and an object.
    let deepest = decode(&nested(DEPTH_MAX / 2 - 1), &schema(), ROOT).unwrap();
    assert!(json::decode(&json::encode(&deepest, &schema(), ROOT), &schema(), ROOT).is_ok());
    assert_eq!(decode(&nested(DEPTH_MAX / 2), &schema(), ROOT), Err(DecodeError::TooDeep));
}
