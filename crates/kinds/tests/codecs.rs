//! Every kind through every codec, with fields present and absent at random.

use proptest::prelude::*;
use skiff_object::schema::{Field, Or, Scalar, Schema, Shape};
use skiff_object::{Key, Map, Tree, TypeId, conform, json, protobuf, yaml};

/// Makes canonical objects of any type: a small generator of its own, because a strategy per type
/// would be larger than what it tests.
struct Maker<'a> {
    schema: &'a Schema,
    state: u64,
}

impl Maker<'_> {
    fn next(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % below
    }

    fn value(&mut self, ty: TypeId, depth: usize) -> Tree {
        let schema = self.schema;
        match &schema.get(ty).shape {
            Shape::Struct(shape) => {
                let mut map = Map::new();
                for field in &shape.fields {
                    if depth < 7 && self.next(2) == 0 {
                        let value = self.field(field, depth + 1);
                        map.insert(field.name.clone(), value);
                    }
                }
                Tree::Map(map)
            }
            Shape::Map { value, .. } => {
                let keys = 1 + self.next(3);
                let entries = (0..keys).map(|key| (Key::from(format!("k{key}<é>")), self.value(*value, depth + 1)));
                Tree::Map(entries.collect())
            }
            Shape::List(list) => {
                let items = 1 + self.next(2);
                Tree::List((0..items).map(|_| self.value(list.item, depth + 1)).collect())
            }
            Shape::Either(either) => match (self.next(2), either.or) {
                (0, _) => self.value(either.object, depth + 1),
                (_, Or::Bool) => Tree::Bool(self.next(2) == 0),
                (_, Or::List) => Tree::List(vec![self.value(either.object, depth + 1)]),
                (_, Or::Strings) => Tree::List(vec!["x".into()]),
            },
            Shape::Scalar(scalar) => self.scalar(*scalar),
            Shape::Any => {
                let mut tree = Tree::map();
                tree.set(&["apiVersion"], "example.com/v1");
                tree.set(&["spec", "list"], vec![Tree::Int(1), Tree::Null, Tree::from("x & y")]);
                tree
            }
        }
    }

    /// As a field: what Go cannot tell from absence is left to absence.
    fn field(&mut self, field: &Field, depth: usize) -> Tree {
        let value = self.value(field.ty, depth);
        match &value {
            Tree::Bool(false) if !field.pointer => Tree::Bool(true),
            _ => value,
        }
    }

    fn scalar(&mut self, scalar: Scalar) -> Tree {
        match scalar {
            Scalar::String => {
                ["plain", "yes", "1.5", "two\nlines\n", "<>&\u{2028}", "é\t"][self.next(6) as usize].into()
            }
            Scalar::Bool => Tree::Bool(self.next(2) == 0),
            Scalar::Int32 => Tree::Int((self.next(1 << 20) as i64 - (1 << 19)) | 1),
            Scalar::Int64 => Tree::Int(self.state as i64 | 1),
            Scalar::Double => Tree::Float(self.next(1_000) as f64 + 0.5),
            Scalar::Bytes => ["aGVsbG8=", "AA==", "/+8="][self.next(3) as usize].into(),
            Scalar::Quantity => ["100m", "1", "128Mi", "1500m"][self.next(4) as usize].into(),
            Scalar::IntOrString if self.next(2) == 0 => Tree::Int(8_080),
            Scalar::IntOrString => "25%".into(),
            Scalar::Time => ["2026-11-22T10:00:00Z", "1969-12-31T23:59:59Z"][self.next(2) as usize].into(),
            Scalar::MicroTime => "2026-11-22T10:00:00.000123Z".into(),
            Scalar::Duration => "1h0m5s".into(),
            Scalar::FieldsV1 => {
                let mut tree = Tree::map();
                tree.set(&["f:spec", "f:replicas"], Tree::map());
                tree
            }
        }
    }
}

/// Types with a protobuf form that objects or lists are of.
fn types() -> Vec<(String, TypeId)> {
    let mut types = Vec::new();
    for kind in skiff_kinds::builtin().iter() {
        let facts = kind.facts();
        types.push((format!("{} {}", facts.api_version.as_str(), facts.kind.as_str()), facts.ty));
        types.extend(facts.list_ty.map(|ty| (format!("{} list", facts.kind.as_str()), ty)));
        for sub in &facts.subresources {
            types.extend(sub.ty.map(|ty| (format!("{}/{}", facts.plural.as_str(), sub.name.as_str()), ty)));
        }
    }
    types
}

/// Protobuf has no names of kinds in nested objects, nor in the message itself.
fn without_kinds(tree: &mut Tree, schema: &Schema, ty: TypeId) {
    match (&schema.get(ty).shape, tree) {
        (Shape::Struct(shape), Tree::Map(map)) => {
            map.retain(|key, _| shape.field(key.as_str()).is_none_or(|field| field.number > 0));
            for field in &shape.fields {
                if let Some(value) = map.get_mut(field.name.as_str()) {
                    without_kinds(value, schema, field.ty);
                }
            }
        }
        (Shape::List(list), Tree::List(items)) => {
            items.iter_mut().for_each(|item| without_kinds(item, schema, list.item));
        }
        (Shape::Map { value, .. }, Tree::Map(map)) => {
            map.iter_mut().for_each(|(_, item)| without_kinds(item, schema, *value));
        }
        _ => {}
    }
}

fn written(tree: &Tree, schema: &Schema, ty: TypeId) -> String {
    String::from_utf8_lossy(&json::encode(tree, schema, ty)).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_kind_survives_every_codec(seed in 1_u64..) {
        let schema = skiff_kinds::schema();
        let mut maker = Maker { schema, state: seed };
        for (name, ty) in types() {
            let mut tree = maker.value(ty, 0);
            let text = json::encode(&tree, schema, ty);
            let (again, issues) = json::decode(&text, schema, ty).unwrap_or_else(|error| panic!("{name}: {error}"));
            prop_assert!(issues.is_empty(), "{}: {}", name, issues);
            prop_assert_eq!(
                written(&again, schema, ty), String::from_utf8_lossy(&text).into_owned(), "{}", name
            );

            let untyped = json::decode_untyped(&text).unwrap();
            let (conformed, _) = conform::conform(untyped.clone(), schema, ty).unwrap();
            prop_assert_eq!(&conformed, &again, "{}", name);
            let mut filled = conformed;
            conform::fill(&mut filled, schema, ty);
            prop_assert_eq!(&filled, &untyped, "{}", name);
            let from_yaml = yaml::decode_untyped(&yaml::encode_untyped(&untyped)).unwrap();
            prop_assert_eq!(from_yaml, untyped, "{}", name);

            without_kinds(&mut tree, schema, ty);
            let message = protobuf::encode(&tree, schema, ty);
            let back = protobuf::decode(&message, schema, ty).unwrap();
            prop_assert_eq!(
                written(&back, schema, ty),
                written(&tree, schema, ty), "{}", name
            );
            prop_assert_eq!(protobuf::encode(&back, schema, ty), message, "{}", name);
        }
    }

    #[test]
    fn damaged_messages_are_refused_or_read_and_never_panic(seed in 1_u64.., cut in 0_usize..4_000, flip in 0_usize..4_000) {
        let schema = skiff_kinds::schema();
        let ty = skiff_kinds::type_of("v1", "Pod").unwrap();
        let mut maker = Maker { schema, state: seed };
        let tree = maker.value(ty, 0);
        for mut bytes in [protobuf::encode(&tree, schema, ty), json::encode(&tree, schema, ty)] {
            let length = bytes.len();
            bytes[flip % length] ^= 1 << (flip % 8);
            bytes.truncate(cut.max(1));
            let _ = protobuf::decode(&bytes, schema, ty);
            let _ = json::decode(&bytes, schema, ty);
            let _ = yaml::decode(&bytes, schema, ty);
        }
    }
}
