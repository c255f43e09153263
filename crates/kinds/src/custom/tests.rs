use std::sync::Arc;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use skiff_object::time::Time;
use skiff_object::{Tree, errors, json};

use super::*;

/// A kind whose `spec` has this schema.
fn kind_of(spec: &str) -> Arc<dyn Kind> {
    let definition = format!(
        r#"{{"metadata":{{"name":"widgets.example.com","uid":"u","generation":1}},"spec":{{"group":"example.com",
        "scope":"Namespaced","names":{{"plural":"widgets","kind":"Widget","shortNames":["wd"]}},
        "versions":[{{"name":"v1","served":true,"storage":true,
          "subresources":{{"status":{{}},"scale":{{"specReplicasPath":".spec.size","statusReplicasPath":".status.size"}}}},
          "selectableFields":[{{"jsonPath":".spec.color"}}],
          "additionalPrinterColumns":[{{"name":"Ready","type":"string",
            "jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}}],
          "schema":{{"openAPIV3Schema":{{"type":"object","required":["spec"],"properties":{{
            "spec":{spec},"status":{{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}}}}}}]}}}}"#
    );
    let tree = json::decode_untyped(definition.as_bytes()).unwrap();
    let source: Source = Arc::new(definition.into_bytes());
    kinds(&source, &tree, |_| String::new()).remove(0)
}

const WIDGET: &str = r#"{"type":"object","required":["size"],"properties":{
    "size":{"type":"integer","minimum":1},
    "color":{"type":"string","default":"blue","enum":["blue","red"]},
    "name":{"type":"string","pattern":"^[a-z]+$","maxLength":4,"minLength":2},
    "ports":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["port"],"maxItems":3,
      "items":{"type":"object","required":["port"],"properties":{"port":{"type":"integer","maximum":9},
        "name":{"type":"string","default":"p"}}}},
    "tags":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
    "target":{"x-kubernetes-int-or-string":true},
    "maybe":{"type":"string","nullable":true},
    "ratio":{"type":"number","exclusiveMinimum":true,"minimum":0,"multipleOf":0.5},
    "when":{"type":"string","format":"date-time"},
    "labels":{"type":"object","additionalProperties":{"type":"string"},"minProperties":1},
    "either":{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}},
      "oneOf":[{"required":["a"]},{"required":["b"]}]},
    "template":{"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true},
    "free":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}"#;

fn widget() -> Arc<dyn Kind> {
    kind_of(WIDGET)
}

fn read_as(kind: &dyn Kind, text: &str) -> (Tree, String) {
    let (mut tree, issues) = json::decode(text.as_bytes(), kind.schema(), kind.facts().ty).unwrap();
    kind.default(&mut tree);
    (tree, issues.to_string())
}

fn read(text: &str) -> (Tree, String) {
    read_as(widget().as_ref(), text)
}

fn spec(text: &str) -> Tree {
    read(&format!(r#"{{"spec":{text}}}"#)).0
}

#[test]
fn unknown_fields_are_pruned_and_defaults_filled_in() {
    let kind = widget();
    let (tree, issues) = read(
        r#"{"kind":"Widget","apiVersion":"example.com/v1","metadata":{"name":"w","foo":1},
        "spec":{"size":1,"bad":2,"free":{"any":[1]},"ports":[{"port":1,"x":1}],"maybe":null,"name":null}}"#,
    );
    assert_eq!(issues, r#"unknown field "metadata.foo", unknown field "spec.bad", unknown field "spec.ports[0].x""#);
    assert_eq!(
        String::from_utf8(json::encode(&tree, kind.schema(), kind.facts().ty)).unwrap(),
        concat!(
            r#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"color":"blue","#,
            r#""free":{"any":[1]},"maybe":null,"ports":[{"name":"p","port":1}],"size":1}}"#
        )
    );
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&errors::message(&widget().validate_create(&spec(text))));
}

#[test]
fn rules_of_the_schema_are_checked_in_upstream_s_words() {
    assert_eq!(widget().validate_create(&spec(r#"{"size":2,"maybe":null,"target":"50%"}"#)), []);
    assert_eq!(errors::message(&widget().validate_create(&read("{}").0)), "spec: Required value");
    assert_eq!(
        errors::message(&widget().validate_create(&read(r#"{"spec":"x"}"#).0)),
        r#"spec: Invalid value: "string": spec in body must be of type object: "string""#
    );
    check("{}", expect!["spec.size: Required value"]);
    check(r#"{"size":null}"#, expect!["spec.size: Required value"]);
    check(
        r#"{"size":"x"}"#,
        expect![[
            r#"[spec.size: Invalid value: "string": spec.size in body must be of type integer: "string", .spec.size: Invalid value: 0: .spec.size accessor error: x is not an int64]"#
        ]],
    );
    check(
        r#"{"size":0}"#,
        expect!["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"],
    );
    check(
        r#"{"size":1,"color":"green"}"#,
        expect![[r#"spec.color: Unsupported value: "green": supported values: "blue", "red""#]],
    );
    check(
        r#"{"size":1,"name":"A"}"#,
        expect![[
            r#"[spec.name: Invalid value: "A": spec.name in body should be at least 2 chars long, spec.name: Invalid value: "A": spec.name in body should match '^[a-z]+$']"#
        ]],
    );
    check(r#"{"size":1,"name":"abcde"}"#, expect!["spec.name: Too long: may not be more than 4 bytes"]);
    check(
        r#"{"size":1,"ports":[{"port":1},{"port":10},{"port":1}]}"#,
        expect![[
            r#"[spec.ports[1].port: Invalid value: 10: spec.ports[1].port in body should be less than or equal to 9, spec.ports[2]: Duplicate value: {"port":1}]"#
        ]],
    );
    check(
        r#"{"size":1,"ports":[{"port":1},{"port":2},{"port":3},{}]}"#,
        expect!["[spec.ports[3].port: Required value, spec.ports: Too many: 4: must have at most 3 items]"],
    );
    check(r#"{"size":1,"tags":["a","b","a","a"]}"#, expect![[r#"spec.tags[2]: Duplicate value: "a""#]]);
    check(
        r#"{"size":1,"target":true}"#,
        expect![[
            r#"spec.target: Invalid value: "boolean": spec.target in body must be of type integer,string: "boolean""#
        ]],
    );
    check(
        r#"{"size":1,"ratio":-0.3}"#,
        expect![
            "[spec.ratio: Invalid value: -0.3: spec.ratio in body should be a multiple of 0.5, spec.ratio: Invalid value: -0.3: spec.ratio in body should be greater than 0]"
        ],
    );
    check(
        r#"{"size":1,"when":"now"}"#,
        expect![[r#"spec.when: Invalid value: "now": spec.when in body must be of type date-time: "now""#]],
    );
    check(
        r#"{"size":1,"labels":{"a":1}}"#,
        expect![[
            r#"spec.labels.a: Invalid value: "integer": spec.labels.a in body must be of type string: "integer""#
        ]],
    );
    check(
        r#"{"size":1,"labels":{}}"#,
        expect!["spec.labels: Invalid value: 0: spec.labels in body should have at least 1 properties"],
    );
    check(
        r#"{"size":1,"either":{}}"#,
        expect![[
            r#"[<nil>: Invalid value: "": "spec.either" must validate one and only one schema (oneOf). Found none valid, spec.either.a: Required value]"#
        ]],
    );
    check(
        r#"{"size":1,"either":{"a":"","b":""}}"#,
        expect![[
            r#"<nil>: Invalid value: "": "spec.either" must validate one and only one schema (oneOf). Found 2 valid alternatives"#
        ]],
    );
    check(
        r#"{"size":1,"template":{"metadata":{"name":"A/b"}}}"#,
        expect![
            "[spec.template.apiVersion: Required value: must not be empty, spec.template.kind: Required value: must not be empty, spec.template.metadata.name: Invalid value: \"A/b\": may not contain '/']"
        ],
    );
}

#[test]
fn an_update_is_not_blamed_for_what_was_wrong_before() {
    let kind = widget();
    let update = |old: &str, new: &str| errors::message(&kind.validate_update(&spec(new), &spec(old)));
    let none = errors::message(&[]);
    assert_eq!(update(r#"{"size":1,"name":"A"}"#, r#"{"size":2,"name":"A"}"#), none);
    assert!(update(r#"{"size":1,"name":"A"}"#, r#"{"size":2,"name":"B"}"#).contains("should match"));
    // Items of a map list are the same item wherever they stand; those of other lists are not.
    let (old, new) = (r#"{"size":1,"ports":[{"port":99}]}"#, r#"{"size":1,"ports":[{"port":1},{"port":99}]}"#);
    assert_eq!(update(old, new), none);
    assert_eq!(update(r#"{"size":1,"tags":["a","a"]}"#, r#"{"size":2,"tags":["a","a"]}"#), none);
    assert_eq!(update("{}", r#"{"color":"red"}"#), "spec.size: Required value");
}

#[test]
fn writes_to_status_change_nothing_else_and_are_judged_alone() {
    let kind = widget();
    let old = read(r#"{"metadata":{"name":"w","labels":{"a":"b"}},"spec":{"size":1}}"#).0;
    let mut new = read(r#"{"metadata":{"name":"w"},"spec":{"size":7},"status":{"size":-1}}"#).0;
    kind.prepare_subresource("status", &mut new, &old);
    assert_eq!(new.int_at(&["spec", "size"]), Some(1));
    assert_eq!(new.str_at(&["metadata", "labels", "a"]), "b");
    assert_eq!(
        errors::message(&kind.validate_subresource("status", &new, &old)),
        ".status.size: Invalid value: -1: should be a non-negative integer"
    );
}

#[test]
fn tables_and_selectors_follow_the_definition() {
    let kind = widget();
    let (tree, _) = read(
        r#"{"metadata":{"name":"w"},"spec":{"size":1},"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#,
    );
    assert_eq!(kind.row(&tree, Time::default()), vec![Tree::from("w"), Tree::from("True")]);
    assert!(kind.accepts_field("spec.color") && !kind.accepts_field("spec.size"));
    assert_eq!(kind.field_value(&tree, "spec.color"), "blue");
    assert!(!widget().custom().unwrap().is_compiled());
}

#[test]
fn warnings_name_what_is_deprecated_and_finalizers_without_a_domain() {
    let (tree, _) = read(r#"{"metadata":{"name":"w","finalizers":["mine","a.b/c","x.y"]}}"#);
    let warnings = widget().warnings(&tree, None);
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].starts_with(r#"metadata.finalizers: "mine": prefer a domain-qualified finalizer name to"#));
    assert!(warnings[1].contains("including a path (/)"));
}

const RULED: &str = r#"{"type":"object","x-kubernetes-validations":[
      {"rule":"self.min <= self.max","message":"min must not be above max","fieldPath":".min","reason":"FieldValueForbidden"},
      {"rule":"self.max <= 100","messageExpression":"'max ' + string(self.max) + ' is above 100'"},
      {"rule":"!has(oldSelf.kind) || self.kind == oldSelf.kind"}],
    "properties":{"min":{"type":"integer"},"max":{"type":"integer"},
      "kind":{"type":"string","x-kubernetes-validations":[{"rule":"self != 'bad'"},
        {"rule":"oldSelf.orValue(self) == self || self == 'free'","optionalOldSelf":true,"message":"kind is fixed"}]},
      "parts":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"],
        "items":{"type":"object","required":["name"],"properties":{"name":{"type":"string"},
          "size":{"type":"integer","x-kubernetes-validations":[{"rule":"self >= oldSelf","message":"may not shrink"}]}}}},
      "labels":{"type":"object","additionalProperties":{"type":"string","x-kubernetes-validations":[{"rule":"self.size() < 3"}]}}}}"#;

#[test]
fn expressions_are_evaluated_with_their_messages() {
    let kind = kind_of(RULED);
    let spec = |text: &str| read_as(kind.as_ref(), &format!(r#"{{"spec":{text}}}"#)).0;
    let create =
        |text: &str, expected: Expect| expected.assert_eq(&errors::message(&kind.validate_create(&spec(text))));
    let update = |old: &str, new: &str, expected: Expect| {
        expected.assert_eq(&errors::message(&kind.validate_update(&spec(new), &spec(old))));
    };
    create(r#"{"min":1,"max":2,"kind":"a"}"#, expect!["[]"]);
    create(r#"{"min":3,"max":2}"#, expect!["spec.min: Forbidden: min must not be above max"]);
    create(r#"{"min":3,"max":200}"#, expect!["spec: Invalid value: max 200 is above 100"]);
    create(
        r#"{"min":1,"max":2,"kind":"bad"}"#,
        expect![[r#"spec.kind: Invalid value: "bad": failed rule: self != 'bad'"#]],
    );
    create(
        r#"{"min":1}"#,
        expect![[
            r#"[spec: Invalid value: "object": no such key: max evaluating rule: min must not be above max, spec: Invalid value: "object": no such key: max evaluating rule: self.max <= 100]"#
        ]],
    );
    create(
        r#"{"min":"1","max":2}"#,
        expect![[
            r#"[spec.min: Invalid value: "string": spec.min in body must be of type integer: "string", <nil>: Invalid value: "null": some validation rules were not checked because the object was invalid; correct the existing errors to complete validation]"#
        ]],
    );
    create(
        r#"{"min":1,"max":2,"labels":{"x":"long"}}"#,
        expect![[r#"spec.labels[x]: Invalid value: "long": failed rule: self.size() < 3"#]],
    );
    update(
        r#"{"min":1,"max":2,"kind":"a"}"#,
        r#"{"min":1,"max":2,"kind":"b"}"#,
        expect![[
            r#"[spec: Invalid value: failed rule: !has(oldSelf.kind) || self.kind == oldSelf.kind, spec.kind: Invalid value: "b": kind is fixed]"#
        ]],
    );
    // Unchanged values are not judged anew, changed neighbours are.
    update(r#"{"min":1,"max":2,"kind":"bad"}"#, r#"{"min":2,"max":2,"kind":"bad"}"#, expect!["[]"]);
    update(
        r#"{"min":3,"max":2}"#,
        r#"{"min":3,"max":2,"labels":{"x":"y"}}"#,
        expect!["spec.min: Forbidden: min must not be above max"],
    );
    update(
        r#"{"min":1,"max":2,"parts":[{"name":"a","size":5},{"name":"b","size":5}]}"#,
        r#"{"min":1,"max":2,"parts":[{"name":"b","size":5},{"name":"a","size":4}]}"#,
        expect!["spec.parts[1].size: Invalid value: 4: may not shrink"],
    );
}

/// Any schema of a value, with all that a hostile one may say.
fn schemas() -> impl Strategy<Value = Tree> {
    let text =
        prop_oneof![Just("string"), Just("integer"), Just("number"), Just("boolean"), Just("nonsense"), Just("")];
    let leaf = (text, any::<bool>(), any::<bool>(), -2_i64..4, prop_oneof![Just("^a"), Just("("), Just("a{1,9}")])
        .prop_map(|(ty, nullable, filled, bound, pattern)| {
            let mut tree = Tree::map();
            tree.set(&["type"], ty);
            tree.set(&["nullable"], nullable);
            tree.set(&["minimum"], bound);
            tree.set(&["multipleOf"], bound);
            tree.set(&["maxLength"], bound);
            tree.set(&["pattern"], pattern);
            if filled {
                tree.set(&["default"], bound);
            }
            tree
        });
    leaf.prop_recursive(4, 24, 4, |inner| {
        let properties = proptest::collection::btree_map("[ab]", inner.clone(), 0..3);
        let object = (properties, inner.clone(), any::<bool>(), any::<bool>()).prop_map(|(map, other, keep, free)| {
            let mut tree = Tree::map();
            tree.set(&["type"], "object");
            let properties: skiff_object::Map = map.into_iter().map(|(key, tree)| (key.into(), tree)).collect();
            tree.set(&["properties"], properties);
            tree.set(&["x-kubernetes-preserve-unknown-fields"], keep);
            tree.set(&["required"], vec![Tree::from("a")]);
            if free {
                tree.set(&["additionalProperties"], other.clone());
            }
            tree.set(&["anyOf"], vec![other]);
            tree
        });
        let list = (inner, prop_oneof![Just("set"), Just("map"), Just("atomic")]).prop_map(|(items, ty)| {
            let mut tree = Tree::map();
            tree.set(&["type"], "array");
            tree.set(&["items"], items);
            tree.set(&["x-kubernetes-list-type"], ty);
            tree.set(&["x-kubernetes-list-map-keys"], vec![Tree::from("a")]);
            tree
        });
        prop_oneof![object, list]
    })
}

fn values() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        any::<i64>().prop_map(Tree::Int),
        (-9_i32..9).prop_map(|number| Tree::Float(f64::from(number) / 4.0)),
        "[aé]{0,4}".prop_map(Tree::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Tree::from),
            proptest::collection::btree_map("[abc]", inner, 0..4).prop_map(|map| {
                Tree::Map(map.into_iter().map(|(key, tree)| (skiff_object::Key::from(key), tree)).collect())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn pruning_and_defaulting_settle_and_nothing_panics(schema in schemas(), value in values(), old in values()) {
        let kind = kind_of(&String::from_utf8(json::encode_untyped(&schema)).unwrap());
        let object = |value: &Tree| {
            let mut tree = Tree::map();
            tree.set(&["spec"], value.clone());
            String::from_utf8(json::encode_untyped(&tree)).unwrap()
        };
        let (once, _) = read_as(kind.as_ref(), &object(&value));
        let again = json::encode(&once, kind.schema(), kind.facts().ty);
        let (twice, issues) = read_as(kind.as_ref(), std::str::from_utf8(&again).unwrap());
        prop_assert_eq!(issues, "");
        prop_assert_eq!(json::encode(&twice, kind.schema(), kind.facts().ty), again);
        kind.validate_create(&once);
        let (old, _) = read_as(kind.as_ref(), &object(&old));
        kind.validate_update(&once, &old);
        // Nothing is held against an update that changes nothing.
        prop_assert_eq!(
            kind.validate_update(&once, &once).into_iter().filter(|error| !error.field.starts_with('.')).count(),
            0
        );
        kind.row(&once, Time::default());
    }
}
