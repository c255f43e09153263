//! The Swagger 2 document as protobuf, which `kubectl` asks for by preference.
//!
//! The message is `openapi.v2.Document` of gnostic; the numbers below are its. Only what our own
//! documents contain is written.

use skiff_object::{Tree, yaml};

/// A protobuf message under construction.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(super) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn message(&mut self, number: u32, message: Self) {
        self.bytes(number, &message.0);
    }

    /// A text, left out when empty as proto3 does.
    pub(super) fn text(&mut self, number: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(number, text.as_bytes());
        }
    }

    pub(super) fn texts(&mut self, number: u32, tree: Option<&Tree>) {
        for text in tree.and_then(Tree::as_list).into_iter().flatten().filter_map(Tree::as_str) {
            self.bytes(number, text.as_bytes());
        }
    }

    pub(super) fn flag(&mut self, number: u32, value: Option<bool>) {
        if value == Some(true) {
            self.varint(u64::from(number) << 3);
            self.varint(1);
        }
    }

    /// A message of its own around it, as the field that a `oneof` chooses, say.
    pub(super) fn within(self, number: u32) -> Self {
        let mut outer = Self::default();
        outer.message(number, self);
        outer
    }

    /// A map, as a message of named values; nothing without one.
    pub(super) fn map(&mut self, number: u32, tree: Option<&Tree>, value: impl Fn(&Tree) -> Self) {
        if let Some(tree) = tree {
            let mut named = Self::default();
            named.named(1, tree, |_| true, value);
            self.message(number, named);
        }
    }

    /// A whole number, left out when 0.
    pub(super) fn integer(&mut self, number: u32, tree: Option<&Tree>) {
        if let Some(value) = tree.and_then(self::number).filter(|value| *value != 0.0) {
            self.varint(u64::from(number) << 3);
            self.varint(value as i64 as u64);
        }
    }

    /// A number, left out when 0.
    pub(super) fn double(&mut self, number: u32, tree: Option<&Tree>) {
        if let Some(value) = tree.and_then(self::number).filter(|value| *value != 0.0) {
            self.chosen_double(number, value);
        }
    }

    /// A number that a `oneof` chooses: also when it is 0.
    pub(super) fn chosen_double(&mut self, number: u32, value: f64) {
        self.varint(u64::from(number) << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A truth value that a `oneof` chooses.
    pub(super) fn chosen_flag(&mut self, number: u32, value: bool) {
        self.varint(u64::from(number) << 3);
        self.varint(u64::from(value));
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// `Named…{name, value}` for every key that `keep` says yes to.
    pub(super) fn named(
        &mut self,
        number: u32,
        tree: &Tree,
        keep: impl Fn(&str) -> bool,
        value: impl Fn(&Tree) -> Self,
    ) {
        for (key, item) in
            tree.as_map().into_iter().flat_map(skiff_object::Map::iter).filter(|(key, _)| keep(key.as_str()))
        {
            let mut named = Self::default();
            named.text(1, key.as_str());
            named.message(2, value(item));
            self.message(number, named);
        }
    }

    /// The `x-…` extensions, each as YAML text.
    pub(super) fn extensions(&mut self, number: u32, tree: &Tree) {
        self.named(number, tree, |key| key.starts_with("x-"), any);
    }
}

pub(super) fn any(tree: &Tree) -> Message {
    let mut message = Message::default();
    message.bytes(2, &yaml::encode_untyped(tree));
    message
}

/// The value of a number.
pub(super) fn number(tree: &Tree) -> Option<f64> {
    match tree {
        Tree::Int(number) => Some(*number as f64),
        Tree::Float(number) => Some(*number),
        _ => None,
    }
}

/// `Document`
pub(crate) fn document(tree: &Tree) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, tree.str_at(&["swagger"]));
    let mut info = Message::default();
    info.text(1, tree.str_at(&["info", "title"]));
    info.text(2, tree.str_at(&["info", "version"]));
    message.message(2, info);
    if let Some(paths) = tree.get("paths") {
        let mut written = Message::default();
        written.named(2, paths, |_| true, path_item);
        message.message(8, written);
    }
    if let Some(definitions) = tree.get("definitions") {
        let mut written = Message::default();
        written.named(1, definitions, |_| true, schema);
        message.message(9, written);
    }
    for requirement in tree.list_at(&["security"]) {
        let mut written = Message::default();
        written.named(
            1,
            requirement,
            |_| true,
            |scopes| {
                let mut array = Message::default();
                array.texts(1, Some(scopes));
                array
            },
        );
        message.message(12, written);
    }
    if let Some(definitions) = tree.get("securityDefinitions") {
        let mut written = Message::default();
        written.named(
            1,
            definitions,
            |_| true,
            |scheme| {
                let mut key = Message::default();
                key.text(1, scheme.str_at(&["type"]));
                key.text(2, scheme.str_at(&["name"]));
                key.text(3, scheme.str_at(&["in"]));
                key.text(4, scheme.str_at(&["description"]));
                let mut item = Message::default();
                item.message(2, key);
                item
            },
        );
        message.message(13, written);
    }
    message.0
}

fn path_item(tree: &Tree) -> Message {
    let mut message = Message::default();
    let methods = [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];
    for (method, number) in methods {
        if let Some(operation) = tree.get(method) {
            message.message(number, self::operation(operation));
        }
    }
    for parameter in tree.list_at(&["parameters"]) {
        message.message(9, parameters_item(parameter));
    }
    message
}

fn operation(tree: &Tree) -> Message {
    let mut message = Message::default();
    message.texts(1, tree.get("tags"));
    message.text(3, tree.str_at(&["description"]));
    message.text(5, tree.str_at(&["operationId"]));
    message.texts(6, tree.get("produces"));
    message.texts(7, tree.get("consumes"));
    for parameter in tree.list_at(&["parameters"]) {
        message.message(8, parameters_item(parameter));
    }
    if let Some(responses) = tree.get("responses") {
        let mut written = Message::default();
        written.named(
            1,
            responses,
            |_| true,
            |response| {
                let mut one = Message::default();
                one.text(1, response.str_at(&["description"]));
                if let Some(schema) = response.get("schema") {
                    let mut item = Message::default();
                    item.message(1, self::schema(schema));
                    one.message(2, item);
                }
                let mut value = Message::default();
                value.message(1, one);
                value
            },
        );
        message.message(9, written);
    }
    message.texts(10, tree.get("schemes"));
    message.extensions(13, tree);
    message
}

fn parameters_item(tree: &Tree) -> Message {
    let mut parameter = Message::default();
    match tree.str_at(&["in"]) {
        "body" => {
            let mut body = Message::default();
            body.text(1, tree.str_at(&["description"]));
            body.text(2, tree.str_at(&["name"]));
            body.text(3, "body");
            body.flag(4, tree.bool_at(&["required"]));
            if let Some(schema) = tree.get("schema") {
                body.message(5, self::schema(schema));
            }
            parameter.message(1, body);
        }
        place => {
            // Query parameters have one field more (allow_empty_value) before the type.
            let (variant, shift) = if place == "query" { (3, 1) } else { (4, 0) };
            let mut sub = Message::default();
            sub.flag(1, tree.bool_at(&["required"]));
            sub.text(2, place);
            sub.text(3, tree.str_at(&["description"]));
            sub.text(4, tree.str_at(&["name"]));
            sub.text(5 + shift, tree.str_at(&["type"]));
            sub.flag(19 + shift, tree.bool_at(&["uniqueItems"]));
            let mut other = Message::default();
            other.message(variant, sub);
            parameter.message(2, other);
        }
    }
    let mut item = Message::default();
    item.message(1, parameter);
    item
}

fn schema(tree: &Tree) -> Message {
    let mut message = Message::default();
    message.text(1, tree.str_at(&["$ref"]));
    message.text(2, tree.str_at(&["format"]));
    message.text(4, tree.str_at(&["description"]));
    message.texts(19, tree.get("required"));
    if let Some(value) = tree.get("additionalProperties") {
        let mut item = Message::default();
        item.message(1, schema(value));
        message.message(21, item);
    }
    if let Some(ty) = tree.get("type").and_then(Tree::as_str) {
        let mut item = Message::default();
        item.text(1, ty);
        message.message(22, item);
    }
    if let Some(value) = tree.get("items") {
        let mut item = Message::default();
        item.message(1, schema(value));
        message.message(23, item);
    }
    if let Some(properties) = tree.get("properties") {
        let mut written = Message::default();
        written.named(1, properties, |_| true, schema);
        message.message(25, written);
    }
    message.extensions(31, tree);
    message
}
