//! A custom kind with what only custom kinds have: lenient leaves, fields that are kept unknown, lists with keys.

use std::sync::{Arc, LazyLock};

use skiff_object::json;

use crate::Kind;

pub(crate) const KIND: &str = "Thing";

const DEFINITION: &str = r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
"metadata":{"name":"things.example.com","uid":"1","generation":1},
"spec":{"group":"example.com","scope":"Namespaced","names":{"kind":"Thing","plural":"things","singular":"thing"},
"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{
    "spec":{"type":"object","properties":{
        "name":{"type":"string"},
        "count":{"type":"integer","nullable":true},
        "ratio":{"type":"number"},
        "port":{"x-kubernetes-int-or-string":true},
        "labels":{"type":"object","additionalProperties":{"type":"string"}},
        "whole":{"type":"object","x-kubernetes-map-type":"atomic","properties":{"a":{"type":"string"}}},
        "tags":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
        "items":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["key","port"],
            "items":{"type":"object","required":["key"],"properties":{"key":{"type":"string"},
                "port":{"type":"integer","default":80},"name":{"type":"string"}}}},
        "open":{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"a":{"type":"integer"}}},
        "pod":{"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true}}},
    "status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}]}}"#;

pub(crate) static CUSTOM: LazyLock<Kind> = LazyLock::new(|| {
    let definition = json::decode_untyped(DEFINITION.as_bytes()).expect("the definition is JSON");
    let mut kinds = skiff_kinds::custom::kinds(&(Arc::new(DEFINITION) as _), &definition, |_| String::new());
    let kind = kinds.pop().expect("one version is served");
    // Alive as long as the process, like the built-in ones.
    let kind: &'static dyn skiff_kinds::Kind = &**Box::leak(Box::new(kind));
    Kind { api_version: "example.com/v1", kind: KIND, schema: kind.schema(), ty: kind.facts().ty }
});
