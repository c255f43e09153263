//! An OpenAPI 3 document as protobuf, for clients that ask for it by its media type.
//!
//! The message is `openapi.v3.Document` of gnostic; the numbers below are its. Only what our own documents contain is
//! written.

use skiff_object::Tree;

use super::proto::{Message, any};

/// `Document`
pub(super) fn document(tree: &Tree) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, tree.str_at(&["openapi"]));
    let mut info = Message::default();
    info.text(1, tree.str_at(&["info", "title"]));
    info.text(6, tree.str_at(&["info", "version"]));
    message.message(2, info);
    message.map(4, tree.get("paths"), path_item);
    let mut components = Message::default();
    components.map(1, tree.at(&["components", "schemas"]), schema_or_reference);
    components.map(7, tree.at(&["components", "securitySchemes"]), |scheme| {
        let mut written = Message::default();
        for (number, key) in [(1, "type"), (2, "description"), (3, "name"), (4, "in")] {
            written.text(number, scheme.str_at(&[key]));
        }
        written.within(1)
    });
    message.message(5, components);
    message.into_bytes()
}

fn path_item(tree: &Tree) -> Message {
    let mut message = Message::default();
    let methods = [("get", 4), ("put", 5), ("post", 6), ("delete", 7), ("options", 8), ("head", 9), ("patch", 10)];
    for (method, number) in methods {
        if let Some(operation) = tree.get(method) {
            message.message(number, self::operation(operation));
        }
    }
    for parameter in tree.list_at(&["parameters"]) {
        message.message(13, self::parameter(parameter));
    }
    message
}

fn operation(tree: &Tree) -> Message {
    let mut message = Message::default();
    message.texts(1, tree.get("tags"));
    message.text(3, tree.str_at(&["description"]));
    message.text(5, tree.str_at(&["operationId"]));
    for parameter in tree.list_at(&["parameters"]) {
        message.message(6, self::parameter(parameter));
    }
    if let Some(body) = tree.get("requestBody") {
        let mut written = Message::default();
        written.map(2, body.get("content"), media_type);
        written.flag(3, body.bool_at(&["required"]));
        message.message(7, written.within(1));
    }
    if let Some(responses) = tree.get("responses") {
        let mut written = Message::default();
        written.named(
            2,
            responses,
            |_| true,
            |response| {
                let mut one = Message::default();
                one.text(1, response.str_at(&["description"]));
                one.map(3, response.get("content"), media_type);
                one.within(1)
            },
        );
        message.message(8, written);
    }
    message.extensions(13, tree);
    message
}

fn parameter(tree: &Tree) -> Message {
    let mut message = Message::default();
    message.text(1, tree.str_at(&["name"]));
    message.text(2, tree.str_at(&["in"]));
    message.text(3, tree.str_at(&["description"]));
    message.flag(4, tree.bool_at(&["required"]));
    if let Some(schema) = tree.get("schema") {
        message.message(10, schema_or_reference(schema));
    }
    message.within(1)
}

fn media_type(tree: &Tree) -> Message {
    let mut message = Message::default();
    if let Some(schema) = tree.get("schema") {
        message.message(1, schema_or_reference(schema));
    }
    message
}

fn schema_or_reference(tree: &Tree) -> Message {
    match tree.get("$ref").and_then(Tree::as_str) {
        Some(target) => {
            let mut reference = Message::default();
            reference.text(1, target);
            reference.within(2)
        }
        None => schema(tree).within(1),
    }
}

fn schema(tree: &Tree) -> Message {
    let mut message = Message::default();
    let text = |key: &str| tree.get(key).and_then(Tree::as_str).unwrap_or("");
    let flag = |key: &str| tree.bool_at(&[key]);
    message.flag(1, flag("nullable"));
    if let Some(example) = tree.get("example") {
        message.message(7, any(example));
    }
    message.text(9, text("title"));
    message.double(10, tree.get("multipleOf"));
    message.double(11, tree.get("maximum"));
    message.flag(12, flag("exclusiveMaximum"));
    message.double(13, tree.get("minimum"));
    message.flag(14, flag("exclusiveMinimum"));
    message.integer(15, tree.get("maxLength"));
    message.integer(16, tree.get("minLength"));
    message.text(17, text("pattern"));
    message.integer(18, tree.get("maxItems"));
    message.integer(19, tree.get("minItems"));
    message.flag(20, flag("uniqueItems"));
    message.integer(21, tree.get("maxProperties"));
    message.integer(22, tree.get("minProperties"));
    message.texts(23, tree.get("required"));
    tree.list_at(&["enum"]).iter().for_each(|value| message.message(24, any(value)));
    message.text(25, text("type"));
    for (number, key) in [(26, "allOf"), (27, "oneOf"), (28, "anyOf")] {
        tree.list_at(&[key]).iter().for_each(|one| message.message(number, schema_or_reference(one)));
    }
    if let Some(not) = tree.get("not") {
        message.message(29, schema(not));
    }
    if let Some(items) = tree.get("items") {
        message.message(30, schema_or_reference(items).within(1));
    }
    message.map(31, tree.get("properties"), schema_or_reference);
    match tree.get("additionalProperties") {
        Some(Tree::Bool(allowed)) => {
            let mut item = Message::default();
            item.chosen_flag(2, *allowed);
            message.message(32, item);
        }
        Some(value) => message.message(32, schema_or_reference(value).within(1)),
        None => {}
    }
    if let Some(default) = tree.get("default") {
        message.message(33, default_type(default));
    }
    message.text(34, text("description"));
    message.text(35, text("format"));
    message.extensions(36, tree);
    message
}

/// Numbers, truth values and texts only: the message has no place for others, and they are written as nothing.
fn default_type(tree: &Tree) -> Message {
    let mut message = Message::default();
    match tree {
        Tree::Bool(value) => message.chosen_flag(2, *value),
        Tree::Str(text) => message.bytes(3, text.as_bytes()),
        number => {
            if let Some(number) = super::proto::number(number) {
                message.chosen_double(1, number);
            }
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use skiff_object::json;

    use super::*;

    #[test]
    fn a_document_has_the_numbers_of_the_message() {
        let tree = json::decode_untyped(
            br##"{"openapi":"3.0.0","info":{"title":"K","version":"u"},
                "paths":{"/a":{"get":{"operationId":"o","responses":{"200":{"description":"OK"}}}}},
                "components":{"schemas":{"S":{"type":"object","default":{},"properties":{
                "p":{"$ref":"#/x"},"n":{"type":"integer","default":0,"maximum":2}}}}}}"##,
        )
        .unwrap();
        let bytes = document(&tree);
        assert!(bytes.starts_with(b"\x0a\x053.0.0\x12\x06\x0a\x01K\x32\x01u\x22"));
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        // The type is field 25, the default of an object is there and empty, a reference is the second choice.
        assert!(has(b"\xca\x01\x06object"));
        assert!(has(b"\x8a\x02\x00"));
        assert!(has(b"\x0a\x01p\x12\x07\x12\x05\x0a\x03#/x"));
        // maximum 2 as a double; the default 0 is said.
        assert!(has(b"\x59\0\0\0\0\0\0\0\x40"));
        assert!(has(b"\x8a\x02\x09\x09\0\0\0\0\0\0\0\0"));
        assert!(has(b"\x2a\x01o\x42"));
        assert!(has(b"\x12\x0d\x0a\x03200\x12\x06\x0a\x04\x0a\x02OK"));
    }
}
