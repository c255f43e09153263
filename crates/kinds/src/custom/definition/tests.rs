use expect_test::{Expect, expect};
use skiff_object::{Tree, errors, json};

use super::*;

/// A good definition whose `spec` schema is this.
fn with_spec(spec: &str) -> Tree {
    json::decode_untyped(
        format!(
            r#"{{"metadata":{{"name":"boats.sea.io"}},"spec":{{"group":"sea.io","scope":"Namespaced",
            "names":{{"plural":"boats","singular":"boat","kind":"Boat","listKind":"BoatList"}},
            "conversion":{{"strategy":"None"}},
            "versions":[{{"name":"v1","served":true,"storage":true,"schema":{{"openAPIV3Schema":
            {{"type":"object","properties":{{"spec":{spec}}}}}}}}}]}},"status":{{"storedVersions":["v1"]}}}}"#
        )
        .as_bytes(),
    )
    .unwrap()
}

fn schema(spec: &str, expected: Expect) {
    let root = "spec.validation.openAPIV3Schema.properties[spec]";
    expected.assert_eq(&errors::message(&validate(&with_spec(spec), None)).replace(root, "…"));
}

/// A good definition after a JSON patch.
fn changed(patch: &str) -> Tree {
    let patch = json::decode_untyped(patch.as_bytes()).unwrap();
    skiff_object::patch::merge::apply(with_spec(r#"{"type":"object"}"#), patch).unwrap()
}

fn definition(patch: &str, expected: Expect) {
    expected.assert_eq(&errors::message(&validate(&changed(patch), None)));
}

#[test]
fn schemas_must_be_structural() {
    schema(r#"{"type":"object"}"#, expect!["[]"]);
    schema(r#"{}"#, expect!["….type: Required value: must not be empty for specified object fields"]);
    schema(r#"{"type":"array"}"#, expect!["….items: Required value: must be specified"]);
    schema(
        r#"{"type":"object","anyOf":[{"properties":{"a":{"type":"string"}}}]}"#,
        expect!["….anyOf[0].properties[a].type: Forbidden: must be empty to be structural"],
    );
    schema(r#"{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"},{"type":"string"}]}"#, expect!["[]"]);
    schema(
        r#"{"type":"string","pattern":"("}"#,
        expect![[
            r#"….pattern: Invalid value: "(": must be a valid regular expression, but isn't: error parsing regexp: unclosed group"#
        ]],
    );
    schema(
        r#"{"type":"string","x-kubernetes-embedded-resource":true}"#,
        expect![[
            r#"[….properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields, ….type: Invalid value: "string": must be object if x-kubernetes-embedded-resource is true]"#
        ]],
    );
    schema(
        r#"{"type":"array","uniqueItems":true,"items":{"type":"string"}}"#,
        expect![
            "….uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        ],
    );
    schema(
        r#"{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":{"type":"string"}}"#,
        expect!["….additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
    );
    schema(
        r#"{"type":"number","$ref":"x","definitions":{"a":{}}}"#,
        expect!["[….definitions: Forbidden: definitions is not supported, ….$ref: Forbidden: $ref is not supported]"],
    );
}

#[test]
fn lists_and_maps_have_their_keys() {
    schema(
        r#"{"type":"array","x-kubernetes-list-type":"map","items":{"type":"object","properties":{"a":{"type":"string"}}}}"#,
        expect!["….x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"],
    );
    schema(
        r#"{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["a","b"],
        "items":{"type":"object","properties":{"a":{"type":"string","nullable":true}}}}"#,
        expect![[
            r#"[….x-kubernetes-list-map-keys: Invalid value: ["a","b"]: entries must all be names of item properties, ….items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property, ….items.properties[a].nullable: Forbidden: this property is in x-kubernetes-list-map-keys, so it cannot be nullable]"#
        ]],
    );
    schema(
        r#"{"type":"object","x-kubernetes-list-type":"set","x-kubernetes-map-type":"round"}"#,
        expect![[
            r#"[….x-kubernetes-map-type: Unsupported value: "round": supported values: "atomic", "granular", ….type: Invalid value: "object": must be array if x-kubernetes-list-type is specified]"#
        ]],
    );
}

#[test]
fn defaults_fit_their_schema() {
    schema(
        r#"{"type":"object","default":{"a":1,"b":2},"properties":{"a":{"type":"string"}}}"#,
        expect![[
            r#"[….default: Invalid value: {"a":1,"b":2}: must not have unknown fields, ….default.a: Invalid value: "integer": a in body must be of type string: "integer"]"#
        ]],
    );
    schema(r#"{"type":"object","properties":{"a":{"type":"string","default":"x","enum":["x"]}}}"#, expect!["[]"]);
}

#[test]
fn expressions_have_a_shape() {
    schema(
        r#"{"type":"object","properties":{"a":{"type":"string"}},"x-kubernetes-validations":[
        {"rule":""},{"rule":"a\nb"},{"rule":"true","message":" "},{"rule":"true","reason":"No"},
        {"rule":"true","fieldPath":".b"},{"rule":"true","fieldPath":".a"}]}"#,
        expect![[
            r#"[….x-kubernetes-validations[0].rule: Required value: rule is not specified, ….x-kubernetes-validations[1].message: Required value: message must be specified if rule contains line breaks, ….x-kubernetes-validations[2].message: Invalid value: " ": must be non-empty if specified, ….x-kubernetes-validations[3].reason: Unsupported value: "No": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired", ….x-kubernetes-validations[4].fieldPath: Invalid value: ".b": must be a valid path]"#
        ]],
    );
}

#[test]
fn names_versions_and_conversion_are_checked() {
    definition(r#"{}"#, expect!["[]"]);
    definition(
        r#"{"metadata":{"name":"x"},"spec":{"group":"sea","scope":"Moon","names":{"kind":"bad_kind"}}}"#,
        expect![[
            r#"[metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group, spec.group: Invalid value: "sea": should be a domain with at least one dot, spec.scope: Unsupported value: "Moon": supported values: "Cluster", "Namespaced", spec.names.kind: Invalid value: "bad_kind": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')]"#
        ]],
    );
    definition(
        r#"{"spec":{"conversion":{"strategy":"Webhook"}}}"#,
        expect![
            "[spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook, spec.conversion.conversionReviewVersions: Required value]"
        ],
    );
    definition(
        r#"{"spec":{"conversion":{"strategy":"Webhook","webhook":{"clientConfig":{"url":"http://a"},"conversionReviewVersions":["v3"]}}}}"#,
        expect![[
            r#"[spec.conversion.webhookClientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path], spec.conversion.conversionReviewVersions: Invalid value: ["v3"]: must include at least one of v1, v1beta1]"#
        ]],
    );
    definition(
        r#"{"spec":{"versions":[{"name":"v1","served":true,"storage":false}]}}"#,
        expect![[
            r#"[spec.versions[0].schema.openAPIV3Schema: Required value, spec.versions: Invalid value: [{"name":"v1","served":true,"storage":false}]: must have exactly one version marked as storage version]"#
        ]],
    );
    definition(
        r#"{"status":{"storedVersions":["v0"]}}"#,
        expect![[
            r#"[status.storedVersions: Invalid value: ["v0"]: must have the storage version v1, status.storedVersions[0]: Invalid value: "v0": missing from spec.versions; v0 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v0 and removes v0 from status.storedVersions]"#
        ]],
    );
    definition(
        r#"{"metadata":{"name":"boats.x.k8s.io"},"spec":{"group":"x.k8s.io"}}"#,
        expect![[
            r#"metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation "api-approved.kubernetes.io", see https://github.com/kubernetes/enhancements/pull/1111"#
        ]],
    );
}

#[test]
fn parts_of_a_version_are_checked() {
    let version = |more: &str| {
        let text = format!(
            r#"{{"spec":{{"versions":[{{"name":"v1","served":true,"storage":true,"schema":{{"openAPIV3Schema":
            {{"type":"object","properties":{{"spec":{{"type":"object","properties":{{"a":{{"type":"string"}}}}}}}}}}}},{more}}}]}}}}"#
        );
        errors::message(&validate(&changed(&text), None))
    };
    assert_eq!(version(r#""selectableFields":[{"jsonPath":".spec.a"}]"#), "[]");
    expect![[r#"[spec.selectableFields[0].jsonPath: Invalid value: ".spec.b": is an invalid path: does not refer to a valid field, spec.selectableFields[1].jsonPath: Invalid value: ".spec": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.]"#]]
        .assert_eq(&version(r#""selectableFields":[{"jsonPath":".spec.b"},{"jsonPath":".spec"}]"#));
    expect![[r#"[spec.additionalPrinterColumns[0].type: Invalid value: "x": must be one of boolean,date,integer,number,string, spec.additionalPrinterColumns[0].JSONPath: Invalid value: "spec": must be a simple json path starting with .]"#]]
        .assert_eq(&version(r#""additionalPrinterColumns":[{"name":"a","type":"x","jsonPath":"spec"}]"#));
    expect![[r#"[spec.subresources.scale.specReplicasPath: Invalid value: ".status.a": should be a json path under .spec, spec.subresources.scale.statusReplicasPath: Required value]"#]]
        .assert_eq(&version(r#""subresources":{"scale":{"specReplicasPath":".status.a"}}"#));
    expect![[r#"spec.versions[0].deprecationWarning: Invalid value: "old": can only be set for deprecated versions"#]]
        .assert_eq(&version(r#""deprecationWarning":"old""#));
}

#[test]
fn what_cannot_change_does_not() {
    let old = changed(r#"{"status":{"conditions":[{"type":"Established","status":"True"}]}}"#);
    let update = |patch: &str| {
        let patch = json::decode_untyped(patch.as_bytes()).unwrap();
        let new = skiff_object::patch::merge::apply(old.clone(), patch).unwrap();
        errors::message(&validate(&new, Some(&old)))
    };
    assert_eq!(update("{}"), "[]");
    expect![[r#"[spec.scope: Invalid value: "Cluster": field is immutable, spec.names.kind: Invalid value: "Ship": field is immutable, spec.group: Invalid value: "lake.io": field is immutable]"#]]
        .assert_eq(&update(r#"{"spec":{"group":"lake.io","scope":"Cluster","names":{"kind":"Ship"}}}"#));
}

#[test]
fn expressions_compile_and_cost_what_they_may() {
    let rules = |rules: &str| {
        format!(
            r#"{{"type":"object","properties":{{"a":{{"type":"string"}},"n":{{"type":"integer"}},
            "l":{{"type":"array","items":{{"type":"string"}}}},
            "m":{{"type":"array","maxItems":5,"items":{{"type":"string","maxLength":5}}}}}},
            "x-kubernetes-validations":[{rules}]}}"#
        )
    };
    schema(
        &rules(r#"{"rule":"self.n > 1","messageExpression":"self.n < 0 ? 'n is negative' : 'n is small'"}"#),
        expect!["[]"],
    );
    schema(&rules(r#"{"rule":"self.m.all(x, self.m.exists_one(y, x == y))"}"#), expect!["[]"]);
    schema(
        &rules(r#"{"rule":"self.b"}"#),
        expect![[r#"
        ….x-kubernetes-validations[0].rule: Invalid value: {"Rule":"self.b","Message":"","MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}: compilation failed: ERROR: <input>:1:5: undefined field 'b'
         | self.b
         | ....^"#]],
    );
    schema(
        &rules(r#"{"rule":"self.n"}"#),
        expect![[
            r#"….x-kubernetes-validations[0].rule: Invalid value: {"Rule":"self.n","Message":"","MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}: cel expression must evaluate to a bool"#
        ]],
    );
    schema(
        &rules(r#"{"rule":"self.l.all(x, self.l.all(y, x != y))"}"#),
        expect![
            "[….x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared), ….x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema, spec.validation.openAPIV3Schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)]"
        ],
    );
    schema(
        &rules(r#"{"rule":"true","messageExpression":"self.n"}"#),
        expect![[
            r#"….x-kubernetes-validations[0].messageExpression: Invalid value: {"Rule":"true","Message":"","MessageExpression":"self.n","Reason":null,"FieldPath":"","OptionalOldSelf":null}: messageExpression must evaluate to a string"#
        ]],
    );
    schema(
        &rules(r#"{"rule":"true","optionalOldSelf":true}"#),
        expect![
            "….x-kubernetes-validations[0].optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"
        ],
    );
    schema(
        &rules(
            r#"{"rule":"self.n >= oldSelf.n"},{"rule":"!oldSelf.hasValue() || self.n >= oldSelf.value().n","optionalOldSelf":true}"#,
        ),
        expect!["[]"],
    );
    schema(
        r#"{"type":"object","properties":{"l":{"type":"array","maxItems":3,"items":{"type":"integer","x-kubernetes-validations":[{"rule":"self == oldSelf"}]}}}}"#,
        expect![[
            r#"….properties[l].items.x-kubernetes-validations[0].rule: Invalid value: "self == oldSelf": oldSelf cannot be used on the uncorrelatable portion of the schema within ….properties[l]"#
        ]],
    );
    schema(
        r#"{"type":"integer","default":0,"x-kubernetes-validations":[{"rule":"self > 0"}]}"#,
        expect!["….default: Invalid value: 0: failed rule: self > 0"],
    );
}
