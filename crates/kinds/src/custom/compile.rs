//! From a definition to kinds: what discovery says, and the types that apply and the decoders read.

use std::cmp::Ordering;
use std::collections::HashMap;

use skiff_object::schema::{Field, ListKey, ListKind, ListType, Shape, StructType, Type};
use skiff_object::{Key, Map, Schema, Tree, TypeId};

use crate::custom::node::SCHEMA_DEPTH_MAX;
use crate::facts::{Facts, Storage, Subresource, Verb, Verbs};

/// Where the type of objects is in the schema of a custom kind.
pub(super) const OBJECT: TypeId = TypeId(0);
/// Where the type of lists is.
pub(super) const LIST: TypeId = TypeId(1);

/// What discovery says about a version. Names are those that were accepted.
pub(super) fn facts(definition: &Tree, version: &Tree, stored: &str, hash: Key) -> Facts {
    let spec = definition.get("spec").unwrap_or(&Tree::Null);
    let accepted = definition.at(&["status", "acceptedNames"]);
    let names = accepted.filter(|names| !names.str_at(&["plural"]).is_empty());
    let names = names.or_else(|| spec.get("names")).unwrap_or(&Tree::Null);
    let owned = |text: &str| Key::from(text.to_owned());
    let list = |field: &str| names.list_at(&[field]).iter().filter_map(Tree::as_str).map(owned).collect::<Vec<Key>>();
    let kind = names.str_at(&["kind"]);
    let or = |given: &str, otherwise: String| if given.is_empty() { Key::from(otherwise) } else { owned(given) };
    let group = spec.str_at(&["group"]);
    let name = version.str_at(&["name"]);
    let api_version = format!("{group}/{name}");
    Facts {
        group: owned(group),
        version: owned(name),
        plural: owned(names.str_at(&["plural"])),
        singular: or(names.str_at(&["singular"]), kind.to_lowercase()),
        kind: owned(kind),
        list_kind: or(names.str_at(&["listKind"]), format!("{kind}List")),
        short_names: list("shortNames"),
        categories: list("categories"),
        namespaced: spec.str_at(&["scope"]) == "Namespaced",
        verbs: Verbs::ALL,
        subresources: subresources(version, &api_version, kind),
        api_version: Key::from(api_version),
        storage_version_hash: hash,
        ty: OBJECT,
        list_ty: Some(LIST),
        storage: Storage { group: owned(group), version: owned(stored) },
    }
}

fn subresources(version: &Tree, api_version: &str, kind: &str) -> Vec<Subresource> {
    let verbs = [Verb::Get, Verb::Patch, Verb::Update].into_iter().fold(Verbs::NONE, Verbs::with);
    let has = |name: &str| version.at(&["subresources", name]).is_some_and(|it| !it.is_null());
    let status = has("status").then(|| Subresource {
        name: Key::Static("status"),
        api_version: Key::from(api_version.to_owned()),
        kind: Key::from(kind.to_owned()),
        foreign: false,
        ty: Some(OBJECT),
        verbs,
    });
    let scale = has("scale").then(|| Subresource {
        name: Key::Static("scale"),
        api_version: Key::Static("autoscaling/v1"),
        kind: Key::Static("Scale"),
        foreign: true,
        ty: crate::type_of("autoscaling/v1", "Scale"),
        verbs,
    });
    status.into_iter().chain(scale).collect()
}

/// Versions in the order of discovery: stable ones first, then beta, then alpha, newer before older, other names last
/// (`k8s.io/apimachinery/pkg/version`).
pub fn compare_versions(one: &str, other: &str) -> Ordering {
    match (version_rank(one), version_rank(other)) {
        (Some(one), Some(other)) => other.cmp(&one),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.cmp(other),
    }
}

/// Stability, major, minor.
fn version_rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..end].parse().ok()?;
    let minor = |text: &str| text.parse::<u64>().ok();
    match &rest[end..] {
        "" => Some((2, major, 0)),
        beta if beta.starts_with("beta") => Some((1, major, minor(&beta[4..])?)),
        alpha if alpha.starts_with("alpha") => Some((0, major, minor(&alpha[5..])?)),
        _ => None,
    }
}

/// The types of a version's objects and lists. Fields are sorted: that is how Go writes objects it has no struct for.
pub(super) fn schema(structure: &Tree) -> Schema {
    let mut builder = Builder::default();
    builder.push(Shape::Any);
    builder.push(Shape::Any);
    let object = builder.object(structure, Root::Object, 0);
    builder.types[OBJECT.0 as usize].shape = builder.types[object.0 as usize].shape.clone();
    let list = builder.list_of(OBJECT);
    builder.types[LIST.0 as usize].shape = builder.types[list.0 as usize].shape.clone();
    builder.types.shrink_to_fit();
    Schema { types: builder.types, lenient: true }
}

/// `x-kubernetes-list-type` with its keys.
pub(super) fn list_kind(schema: &Tree) -> ListKind {
    match schema.str_at(&["x-kubernetes-list-type"]) {
        "set" => ListKind::Set,
        "map" => {
            let keys = schema.list_at(&["x-kubernetes-list-map-keys"]).iter().filter_map(Tree::as_str);
            let default = |key: &str| schema.at(&["items", "properties", key, "default"]).and_then(Tree::as_str);
            ListKind::Map(
                keys.map(|key| ListKey {
                    name: Key::from(key.to_owned()),
                    default: default(key).map(|text| Key::from(text.to_owned())),
                })
                .collect(),
            )
        }
        _ => ListKind::Atomic,
    }
}

/// Whether an object is one of its own, with kind and metadata.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    Object,
    Field,
}

/// Builds the arena.
#[derive(Default)]
struct Builder {
    types: Vec<Type>,
    imported: HashMap<TypeId, TypeId>,
}

impl Builder {
    fn push(&mut self, shape: Shape) -> TypeId {
        self.types.push(Type { name: Key::Static(""), shape });
        TypeId(self.types.len() as u32 - 1)
    }

    fn any(&mut self) -> TypeId {
        self.push(Shape::Any)
    }

    fn value(&mut self, schema: &Tree, depth: usize) -> TypeId {
        if depth > SCHEMA_DEPTH_MAX {
            return self.any();
        }
        match schema.str_at(&["type"]) {
            "object" => {
                let embedded = schema.bool_at(&["x-kubernetes-embedded-resource"]) == Some(true);
                self.object(schema, if embedded { Root::Object } else { Root::Field }, depth)
            }
            "array" => self.list(schema, depth),
            "" if schema.get("properties").is_some() => self.object(schema, Root::Field, depth),
            // Leaves are judged by the rules, which answer with the field and not with a refusal.
            _ => self.any(),
        }
    }

    fn object(&mut self, schema: &Tree, root: Root, depth: usize) -> TypeId {
        let preserve_unknown = schema.bool_at(&["x-kubernetes-preserve-unknown-fields"]) == Some(true);
        let atomic = schema.str_at(&["x-kubernetes-map-type"]) == "atomic";
        if root == Root::Field {
            match schema.get("additionalProperties") {
                Some(values @ Tree::Map(_)) => {
                    let value = self.value(values, depth + 1);
                    return self.push(Shape::Map { value, atomic });
                }
                Some(Tree::Bool(true)) => {
                    let value = self.any();
                    return self.push(Shape::Map { value, atomic });
                }
                _ => {}
            }
        }
        let required = schema.list_at(&["required"]);
        let mut fields = Vec::new();
        for (name, property) in schema.get("properties").and_then(Tree::as_map).into_iter().flat_map(Map::iter) {
            if root == Root::Object && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let ty = self.value(property, depth + 1);
            fields.push(Field {
                required: required.iter().any(|item| item.as_str() == Some(name.as_str())),
                ..Field::new(name.clone(), ty)
            });
        }
        if root == Root::Object {
            let leaf = self.any();
            fields.push(Field::new("apiVersion", leaf));
            fields.push(Field::new("kind", leaf));
            let metadata = self.import_named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
            fields.push(Field::new("metadata", metadata));
        }
        fields.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        self.push(Shape::Struct(StructType { fields, wire: Vec::new(), atomic, preserve_unknown }))
    }

    fn list(&mut self, schema: &Tree, depth: usize) -> TypeId {
        let items = schema.get("items").cloned().unwrap_or_default();
        let item = self.value(&items, depth + 1);
        self.push(Shape::List(ListType { item, kind: list_kind(schema), wrapped: false }))
    }

    fn list_of(&mut self, ty: TypeId) -> TypeId {
        let leaf = self.any();
        let items = self.push(Shape::List(ListType { item: ty, kind: ListKind::Atomic, wrapped: false }));
        let metadata = self.import_named("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
        let fields = vec![
            Field::new("apiVersion", leaf),
            Field::new("items", items),
            Field::new("kind", leaf),
            Field::new("metadata", metadata),
        ];
        self.push(Shape::Struct(StructType { fields, ..StructType::default() }))
    }

    fn import_named(&mut self, name: &str) -> TypeId {
        match crate::type_named(name) {
            Some(ty) => self.import(ty),
            None => self.any(),
        }
    }

    /// A built-in type and all it mentions, with its fields sorted.
    fn import(&mut self, ty: TypeId) -> TypeId {
        if let Some(known) = self.imported.get(&ty) {
            return *known;
        }
        let source = crate::schema().get(ty).clone();
        let place = self.push(Shape::Any);
        self.imported.insert(ty, place);
        let shape = match source.shape {
            Shape::Struct(mut shape) => {
                for field in &mut shape.fields {
                    field.ty = self.import(field.ty);
                }
                shape.fields.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
                // Places in the protobuf form are places in Go's order; custom kinds have none.
                shape.wire.clear();
                Shape::Struct(shape)
            }
            Shape::Map { value, atomic } => Shape::Map { value: self.import(value), atomic },
            Shape::List(list) => Shape::List(ListType { item: self.import(list.item), ..list }),
            shape => shape,
        };
        self.types[place.0 as usize] = Type { name: source.name, shape };
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_in_the_order_of_discovery() {
        let mut versions =
            ["v1alpha1", "foo1", "v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "bar"];
        versions.sort_by(|one, other| compare_versions(one, other));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v1alpha1", "bar", "foo1"]
        );
    }
}
