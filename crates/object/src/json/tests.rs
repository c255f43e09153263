//! JSON by example, and as properties.

use proptest::prelude::*;

use super::{decode, decode_untyped, decode_untyped_strict, encode, encode_sorted, encode_untyped};
use crate::decode::DecodeError;
use crate::schema::{Absent, Field, ListKind, ListType, Scalar, Schema, Shape, StructType, Type, TypeId};
use crate::tree::{Key, Map, Tree};

const ROOT: TypeId = TypeId(0);

/// `v1.Thing{metadata Meta, spec *Spec}`, `Meta{name, labels}`, `Spec{replicas *int32, host bool, items []Spec,
/// when Time, raw RawExtension, words []string (kept)}`.
fn schema() -> Schema {
    let field = |name: &'static str, ty: u32, pointer: bool, absent: Absent| Field {
        pointer,
        absent,
        ..Field::new(name, TypeId(ty))
    };
    let structure = |name: &'static str, fields: Vec<Field>| Type {
        name: Key::Static(name),
        shape: Shape::Struct(StructType { fields, ..StructType::default() }),
    };
    let anonymous = |shape| Type { name: Key::Static(""), shape };
    let list = |item| Shape::List(ListType { item: TypeId(item), kind: ListKind::Atomic, wrapped: false });
    let (omitted, value) = (Absent::Omitted, false);
    Schema {
        lenient: false,
        types: vec![
            structure(
                "io.k8s.api.test.v1.Thing",
                vec![
                    field("kind", 3, value, omitted),
                    field("metadata", 1, value, Absent::EmptyStruct),
                    field("spec", 2, true, omitted),
                ],
            ),
            structure(
                "io.k8s.api.test.v1.Meta",
                vec![field("name", 3, value, omitted), field("labels", 4, value, omitted)],
            ),
            structure(
                "io.k8s.api.test.v1.ThingSpec",
                vec![
                    field("replicas", 5, true, omitted),
                    field("host", 6, value, omitted),
                    field("items", 7, value, omitted),
                    field("when", 8, value, Absent::Null),
                    field("raw", 9, value, Absent::Null),
                    field("words", 10, value, Absent::Null),
                ],
            ),
            anonymous(Shape::Scalar(Scalar::String)),
            anonymous(Shape::Map { value: TypeId(3), atomic: false }),
            anonymous(Shape::Scalar(Scalar::Int32)),
            anonymous(Shape::Scalar(Scalar::Bool)),
            anonymous(list(2)),
            anonymous(Shape::Scalar(Scalar::Time)),
            anonymous(Shape::Any),
            anonymous(list(3)),
        ],
    }
}

/// Decodes and encodes again; issues behind a bar.
fn round(text: &str) -> String {
    match decode(text.as_bytes(), &schema(), ROOT) {
        Err(error) => format!("error: {error}"),
        Ok((tree, issues)) => {
            let json = String::from_utf8(encode(&tree, &schema(), ROOT)).unwrap();
            if issues.is_empty() { json } else { format!("{json} | {issues}") }
        }
    }
}

#[test]
fn absent_fields_have_the_shape_go_gives_them() {
    assert_eq!(round("{}"), r#"{"metadata":{}}"#);
    assert_eq!(round(r#"{"spec":{}}"#), r#"{"metadata":{},"spec":{"when":null,"raw":null,"words":null}}"#);
    assert_eq!(round(r#"{"spec":null,"metadata":null}"#), r#"{"metadata":{}}"#);
}

#[test]
fn what_go_cannot_tell_from_absence_is_absent() {
    let spec = r#"{"spec":{"replicas":0,"host":false,"items":[],"words":[]}}"#;
    assert_eq!(round(spec), r#"{"metadata":{},"spec":{"replicas":0,"when":null,"raw":null,"words":[]}}"#);
}

#[test]
fn fields_come_in_the_order_of_the_type_and_map_keys_sorted() {
    assert_eq!(
        round(r#"{"metadata":{"labels":{"b":"2","a":null},"name":"x"},"kind":"Thing"}"#),
        r#"{"kind":"Thing","metadata":{"name":"x","labels":{"a":"","b":"2"}}}"#
    );
}

#[test]
fn unknown_and_duplicate_fields_are_named_with_their_paths() {
    assert_eq!(
        round(r#"{"spec":{"items":[{"foo":{"x":1,"x":2}}],"host":true,"host":true},"Kind":1}"#),
        r#"{"metadata":{},"spec":{"host":true,"items":[{"when":null,"raw":null,"words":null}],"when":null,"raw":null,"words":null}} | unknown field "spec.items[0].foo", duplicate field "spec.host", unknown field "Kind""#
    );
    assert_eq!(
        round(r#"{"metadata":{"labels":{"a":"1","a":"2"}}}"#),
        r#"{"metadata":{"labels":{"a":"2"}}} | duplicate field "metadata.labels.a""#
    );
}

#[test]
fn values_of_the_wrong_type_are_refused_in_go_s_words() {
    for (text, wanted) in [
        (
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field ThingSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field ThingSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field ThingSpec.spec.replicas of type int32",
        ),
        (r#"{"spec":[]}"#, "json: cannot unmarshal array into Go struct field Thing.spec of type v1.ThingSpec"),
        (
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field Meta.metadata.labels of type string",
        ),
        (r#"{"spec":{"when":1}}"#, "json: cannot unmarshal number into Go value of type string"),
        ("[]", "json: cannot unmarshal array into Go value of type v1.Thing"),
    ] {
        assert_eq!(round(text), format!("error: {wanted}"), "{text}");
    }
}

#[test]
fn malformed_json_is_refused_in_go_s_words() {
    for (text, wanted) in [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        ("{\"a\":1", "unexpected end of JSON input"),
        ("{a}", "invalid character 'a' looking for beginning of object key string"),
        ("{\"a\" 1}", "invalid character '1' after object key"),
        ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("{} x", "invalid character 'x' after top-level value"),
        ("{\"a\":tru}", "invalid character '}' in literal true (expecting 'e')"),
        ("{\"a\":01}", "invalid character '1' after object key:value pair"),
        ("{\"a\":1.}", "invalid character '}' after decimal point in numeric literal"),
        ("\"\u{1}\"", "invalid character '\\x01' in string literal"),
        ("\"\\q\"", "invalid character 'q' in string escape code"),
        ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
    ] {
        assert_eq!(decode_untyped(text.as_bytes()), Err(DecodeError::Syntax(wanted.to_owned())), "{text}");
    }
}

#[test]
fn nesting_is_limited_everywhere() {
    let deep = "[".repeat(10_000);
    assert_eq!(decode_untyped(deep.as_bytes()), Err(DecodeError::TooDeep));
    let unknown = format!("{{\"x\":{deep}");
    assert_eq!(decode(unknown.as_bytes(), &schema(), ROOT), Err(DecodeError::TooDeep));
    let typed = "{\"spec\":{\"items\":[".to_owned() + &"{\"items\":[".repeat(5_000);
    assert_eq!(decode(typed.as_bytes(), &schema(), ROOT), Err(DecodeError::TooDeep));
}

#[test]
fn many_keys_cost_no_more_than_their_number() {
    let keys: Vec<String> = (0..16_384).map(|key| format!("\"k{key}\":\"\"")).collect();
    let text = format!("{{\"metadata\":{{\"labels\":{{{},\"k7\":\"x\"}}}}}}", keys.join(","));
    let (_, issues) = decode(text.as_bytes(), &schema(), ROOT).unwrap();
    assert_eq!(issues.to_string(), "duplicate field \"metadata.labels.k7\"");
    let text = text.replace("\"k7\":\"x\"", "\"more\":\"x\"");
    assert_eq!(decode(text.as_bytes(), &schema(), ROOT), Err(DecodeError::TooManyKeys));
}

#[test]
fn strings_are_repaired_and_escaped_as_go_does() {
    let round = |bytes: &[u8]| String::from_utf8(encode_untyped(&decode_untyped(bytes).unwrap())).unwrap();
    assert_eq!(round(b"\"\xff\\ud800x\\ud83d\\ude00\""), "\"\u{fffd}\u{fffd}x\u{1f600}\"");
    assert_eq!(round("\"<a & b>\u{2028}\\u0001\\n\\/\"".as_bytes()), r#""\u003ca \u0026 b\u003e\u2028\u0001\n/""#);
}

#[test]
fn numbers_are_written_as_go_does() {
    let round = |text: &str| String::from_utf8(encode_untyped(&decode_untyped(text.as_bytes()).unwrap())).unwrap();
    for (text, wanted) in [
        ("9223372036854775807", "9223372036854775807"),
        ("-0", "0"),
        ("1.0", "1"),
        ("0.5", "0.5"),
        ("1e21", "1e+21"),
        ("1e20", "100000000000000000000"),
        ("1.5e-7", "1.5e-7"),
        ("0.000001", "0.000001"),
        ("18446744073709551616", "18446744073709552000"),
    ] {
        assert_eq!(round(text), wanted, "{text}");
    }
}

#[test]
fn untyped_reading_keeps_nulls_and_reports_duplicates() {
    let (tree, issues) = decode_untyped_strict(br#"{"a":null,"b":{"c":1,"c":2},"d":{}}"#).unwrap();
    assert_eq!(encode_untyped(&tree), br#"{"a":null,"b":{"c":2},"d":{}}"#);
    assert_eq!(issues.to_string(), "duplicate field \"b.c\"");
    assert_eq!(
        encode_sorted(&decode_untyped(br#"{"b":{"d":1,"c":2},"a":0}"#).unwrap()),
        br#"{"a":0,"b":{"c":2,"d":1}}"#
    );
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        any::<i64>().prop_map(Tree::Int),
        ".*".prop_map(Tree::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Tree::List),
            prop::collection::vec((".{0,8}", inner), 0..8).prop_map(|entries| {
                Tree::Map(entries.into_iter().map(|(key, value)| (Key::from(key), value)).collect::<Map>())
            }),
        ]
    })
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it is about time")]
fn a_body_of_repetitions_is_read_in_one_pass() {
    let mut text = "{".to_owned();
    (0..crate::decode::KEYS_MAX).for_each(|key| text.push_str(&format!("\"{key}\":0,")));
    let last = format!("\"{}\":1,", crate::decode::KEYS_MAX - 1);
    text.push_str(&last.repeat(250_000));
    text.push_str("\"0\":2}");
    let started = std::time::Instant::now();
    let tree = decode_untyped(text.as_bytes()).unwrap();
    assert_eq!(tree.as_map().map(Map::len), Some(crate::decode::KEYS_MAX));
    assert_eq!((tree.int_at(&["0"]), tree.int_at(&["16383"])), (Some(2), Some(1)));
    // Searching the map for each repetition takes minutes without optimization.
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn what_keeps_the_limits_can_be_read_again() {
    use crate::decode::{DEPTH_MAX, KEYS_MAX, check};
    let deep = |levels: usize| (0..levels).fold(Tree::Int(1), |inner, _| Tree::List(vec![inner]));
    let wide = |keys: usize| {
        let mut map = Map::new();
        (0..keys).for_each(|key| map.push_unchecked(Key::from(key.to_string()), Tree::Null));
        Tree::Map(map)
    };
    for tree in [deep(DEPTH_MAX), deep(DEPTH_MAX + 1), wide(KEYS_MAX), wide(KEYS_MAX + 1)] {
        assert_eq!(check(&tree), decode_untyped(&encode_untyped(&tree)).map(|_| ()));
    }
}

#[test]
fn the_zero_time_is_no_time_and_years_beyond_four_digits_are_refused() {
    let typed =
        |text: &str| decode(text.as_bytes(), &schema(), ROOT).map(|(tree, _)| tree.at(&["spec", "when"]).cloned());
    assert_eq!(typed(r#"{"spec":{"when":"0001-01-01T00:00:00Z"}}"#), Ok(None));
    for text in ["0000-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"] {
        let refused = typed(&format!(r#"{{"spec":{{"when":"{text}"}}}}"#)).unwrap_err();
        assert!(refused.to_string().ends_with("year out of range"), "{refused}");
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(tree in any_tree()) {
        prop_assert_eq!(decode_untyped(&encode_untyped(&tree)), Ok(tree.clone()));
        prop_assert_eq!(decode_untyped(&encode_sorted(&tree)), Ok(tree.clone()));
    }

    #[test]
    fn yaml_that_is_written_reads_the_same(tree in any_tree()) {
        prop_assert_eq!(crate::yaml::decode_untyped(&crate::yaml::encode_untyped(&tree)), Ok(tree));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let schema = schema();
        let _ = decode(&bytes, &schema, ROOT);
        let _ = crate::yaml::decode(&bytes, &schema, ROOT);
        let _ = crate::protobuf::decode(&bytes, &schema, ROOT);
        let _ = crate::protobuf::envelope::decode(&bytes);
    }

    #[test]
    fn no_json_like_text_makes_a_decoder_panic(text in r#"[\{\}\[\],:"a-c0-9\\. nul-]{0,64}"#) {
        let _ = decode(text.as_bytes(), &schema(), ROOT);
        let _ = crate::yaml::decode(text.as_bytes(), &schema(), ROOT);
    }

    #[test]
    fn serde_agrees_about_what_is_json(text in r#"[\{\}\[\],:"a0-9 .e+\\-]{0,24}"#) {
        let ours = decode_untyped(text.as_bytes()).is_ok();
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        prop_assert_eq!(ours, theirs);
    }
}
