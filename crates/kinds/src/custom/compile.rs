//! From a definition to kinds.

use std::collections::HashMap;

use skiff_object::schema::{Field, ListKey, ListKind, ListType, Shape, StructType, Type};
use skiff_object::{Key, Map, Schema, Tree, TypeId};

use crate::custom::CustomKind;
use crate::custom::columns::PrinterColumn;
use crate::custom::validate::Rules;
use crate::facts::{Facts, Storage, Subresource, Verb, Verbs};

/// How deep a structural schema may nest.
const SCHEMA_DEPTH_MAX: usize = 100;

/// Why a definition cannot be served.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompileError {
    /// No version is the stored one.
    #[error("no version of {0} is stored")]
    NoStoredVersion(String),
    /// A pattern is no regular expression we can run.
    #[error("pattern {pattern:?}: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// The schema nests without end.
    #[error("the schema is nested deeper than {SCHEMA_DEPTH_MAX} levels")]
    TooDeep,
}

/// Compiles every served version.
///
/// # Errors
/// When the definition cannot be served.
pub fn compile(definition: &Tree) -> Result<Vec<CustomKind>, CompileError> {
    let spec = definition.get("spec").cloned().unwrap_or_default();
    let group = spec.str_at(&["group"]);
    let versions = spec.list_at(&["versions"]);
    let stored = versions.iter().find(|version| version.bool_at(&["storage"]) == Some(true));
    let stored =
        stored.ok_or_else(|| CompileError::NoStoredVersion(definition.str_at(&["metadata", "name"]).to_owned()))?;
    let stored = stored.str_at(&["name"]);
    let served = versions.iter().filter(|version| version.bool_at(&["served"]) == Some(true));
    served.map(|version| compile_version(&spec, group, stored, version)).collect()
}

fn compile_version(spec: &Tree, group: &str, stored: &str, version: &Tree) -> Result<CustomKind, CompileError> {
    let structure = version.at(&["schema", "openAPIV3Schema"]).cloned().unwrap_or_else(Tree::map);
    let mut builder = Builder::default();
    let ty = builder.object(&structure, Root::Object, 0)?;
    let list_ty = builder.list_of(ty);
    let rules = Rules::compile(&structure)?;
    let facts = facts(spec, group, stored, version, ty, list_ty);
    let columns = version.list_at(&["additionalPrinterColumns"]);
    let printer_columns =
        if columns.is_empty() { vec![PrinterColumn::age()] } else { columns.iter().map(PrinterColumn::new).collect() };
    let selectable = version.list_at(&["selectableFields"]).iter();
    Ok(CustomKind {
        facts,
        schema: Schema { types: builder.types },
        structure,
        rules,
        printer_columns,
        selectable: selectable.map(|field| field.str_at(&["jsonPath"]).trim_start_matches('.').to_owned()).collect(),
        stored_api_version: format!("{group}/{stored}"),
    })
}

fn facts(spec: &Tree, group: &str, stored: &str, version: &Tree, ty: TypeId, list_ty: TypeId) -> Facts {
    let owned = |text: &str| Key::from(text.to_owned());
    let names = |field: &str| {
        let list = spec.list_at(&["names", field]).iter();
        list.filter_map(Tree::as_str).map(owned).collect::<Vec<Key>>()
    };
    let kind = spec.str_at(&["names", "kind"]);
    let or = |given: &str, otherwise: String| if given.is_empty() { Key::from(otherwise) } else { owned(given) };
    let name = version.str_at(&["name"]);
    let api_version = format!("{group}/{name}");
    let verbs = [Verb::Get, Verb::Patch, Verb::Update].into_iter().fold(Verbs::NONE, Verbs::with);
    let mut subresources = Vec::new();
    if version.at(&["subresources", "status"]).is_some() {
        subresources.push(Subresource {
            name: Key::Static("status"),
            api_version: Key::from(api_version.clone()),
            kind: owned(kind),
            foreign: false,
            ty: Some(ty),
            verbs,
        });
    }
    Facts {
        group: owned(group),
        version: owned(name),
        api_version: Key::from(api_version),
        plural: owned(spec.str_at(&["names", "plural"])),
        singular: or(spec.str_at(&["names", "singular"]), kind.to_lowercase()),
        kind: owned(kind),
        list_kind: or(spec.str_at(&["names", "listKind"]), format!("{kind}List")),
        short_names: names("shortNames"),
        categories: names("categories"),
        namespaced: spec.str_at(&["scope"]) == "Namespaced",
        verbs: Verbs::ALL,
        subresources,
        storage_version_hash: Key::Static(""),
        ty,
        list_ty: Some(list_ty),
        storage: Storage { group: owned(group), version: owned(stored) },
    }
}

/// Whether an object is one of its own, with kind and metadata.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    Object,
    Field,
}

/// Builds the arena. Fields are sorted: that is how Go writes objects it has no struct for.
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

    fn value(&mut self, schema: &Tree, depth: usize) -> Result<TypeId, CompileError> {
        if depth > SCHEMA_DEPTH_MAX {
            return Err(CompileError::TooDeep);
        }
        match schema.str_at(&["type"]) {
            "object" => {
                let embedded = schema.bool_at(&["x-kubernetes-embedded-resource"]) == Some(true);
                self.object(schema, if embedded { Root::Object } else { Root::Field }, depth)
            }
            "array" => self.list(schema, depth),
            // Leaves are judged by the rules, which answer with the field and not with a refusal.
            _ => Ok(self.any()),
        }
    }

    fn object(&mut self, schema: &Tree, root: Root, depth: usize) -> Result<TypeId, CompileError> {
        let preserve_unknown = schema.bool_at(&["x-kubernetes-preserve-unknown-fields"]) == Some(true);
        let atomic = schema.str_at(&["x-kubernetes-map-type"]) == "atomic";
        if root == Root::Field {
            match schema.get("additionalProperties") {
                Some(values @ Tree::Map(_)) => {
                    let value = self.value(values, depth + 1)?;
                    return Ok(self.push(Shape::Map { value, atomic }));
                }
                Some(Tree::Bool(true)) => {
                    let value = self.any();
                    return Ok(self.push(Shape::Map { value, atomic }));
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
            let ty = self.value(property, depth + 1)?;
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
        Ok(self.push(Shape::Struct(StructType { fields, wire: Vec::new(), atomic, preserve_unknown })))
    }

    fn list(&mut self, schema: &Tree, depth: usize) -> Result<TypeId, CompileError> {
        let items = schema.get("items").cloned().unwrap_or_default();
        let item = self.value(&items, depth + 1)?;
        let kind = match schema.str_at(&["x-kubernetes-list-type"]) {
            "set" => ListKind::Set,
            "map" => {
                let keys = schema.list_at(&["x-kubernetes-list-map-keys"]).iter().filter_map(Tree::as_str);
                let default = |key: &str| items.at(&["properties", key, "default"]).and_then(Tree::as_str);
                ListKind::Map(
                    keys.map(|key| ListKey {
                        name: Key::from(key.to_owned()),
                        default: default(key).map(|text| Key::from(text.to_owned())),
                    })
                    .collect(),
                )
            }
            _ => ListKind::Atomic,
        };
        Ok(self.push(Shape::List(ListType { item, kind, wrapped: false })))
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
