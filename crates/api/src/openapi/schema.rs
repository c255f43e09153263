//! Types as OpenAPI schemas, in the shapes that version 2 and version 3 share.

use std::collections::BTreeSet;

use skiff_kinds::describe;
use skiff_object::schema::{Absent, Field, ListKind, Or, PatchStrategy, Scalar, Shape, StructType};
use skiff_object::{Map, Schema, Tree, TypeId};

/// Where the two versions of OpenAPI differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// Swagger 2: `#/definitions/…`, siblings of `$ref` allowed.
    V2,
    /// OpenAPI 3: `#/components/schemas/…`, `$ref` alone or within `allOf`.
    V3,
}

impl Dialect {
    pub(crate) fn reference(self, name: &str) -> Tree {
        let prefix = match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        };
        Tree::Map([("$ref".into(), Tree::from(format!("{prefix}{name}")))].into_iter().collect())
    }
}

/// Collects the types that a document needs and writes their schemas.
pub(crate) struct Schemas<'a> {
    schema: &'a Schema,
    dialect: Dialect,
    wanted: Vec<TypeId>,
    seen: BTreeSet<TypeId>,
    scalars: BTreeSet<&'static str>,
}

impl<'a> Schemas<'a> {
    pub(crate) fn new(schema: &'a Schema, dialect: Dialect) -> Self {
        Self { schema, dialect, wanted: Vec::new(), seen: BTreeSet::new(), scalars: BTreeSet::new() }
    }

    pub(crate) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// A reference to a type, which is then written too.
    pub(crate) fn refer(&mut self, id: TypeId) -> Tree {
        let ty = self.schema.get(id);
        if let Shape::Scalar(scalar) = ty.shape {
            return self.scalar(scalar);
        }
        if ty.name.as_str().is_empty() {
            return self.anonymous(id);
        }
        if self.seen.insert(id) {
            self.wanted.push(id);
        }
        self.dialect.reference(ty.name.as_str())
    }

    /// All schemas referred to so far, by name. `group_version_kinds` gives what a type is known
    /// as in the API.
    pub(crate) fn write(mut self, group_version_kinds: impl Fn(TypeId) -> Vec<(String, String, String)>) -> Map {
        let mut all: Vec<(String, Tree)> = Vec::new();
        while let Some(id) = self.wanted.pop() {
            let ty = self.schema.get(id);
            let mut tree = self.anonymous(id);
            let map = tree.ensure_map();
            let text = describe::of_type(ty.name.as_str());
            if !text.is_empty() {
                map.insert("description", text);
            }
            let kinds = group_version_kinds(id);
            if !kinds.is_empty() {
                map.insert("x-kubernetes-group-version-kind", kinds.iter().map(group_version_kind).collect::<Vec<_>>());
            }
            map.sort_keys();
            all.push((ty.name.as_str().to_owned(), tree));
        }
        for name in std::mem::take(&mut self.scalars) {
            all.push((name.to_owned(), named_scalar(name, self.dialect)));
        }
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all.into_iter().map(|(name, tree)| (name.into(), tree)).collect()
    }

    fn anonymous(&mut self, id: TypeId) -> Tree {
        match &self.schema.get(id).shape {
            Shape::Struct(ty) => self.structure(self.schema.get(id).name.as_str(), ty),
            Shape::Map { value, atomic } => {
                let mut tree = object([("type", "object")]);
                let value = self.item(*value);
                let map = tree.ensure_map();
                map.insert("additionalProperties", value);
                if *atomic {
                    map.insert("x-kubernetes-map-type", "atomic");
                }
                tree
            }
            Shape::List(list) => {
                let mut tree = object([("type", "array")]);
                let item = self.item(list.item);
                tree.ensure_map().insert("items", item);
                tree
            }
            Shape::Scalar(scalar) => self.scalar(*scalar),
            Shape::Either(either) => match either.or {
                // JSONSchemaPropsOr…: documented as anything.
                Or::Bool | Or::List | Or::Strings => Tree::map(),
            },
            Shape::Any => object([("type", "object")]),
        }
    }

    fn structure(&mut self, name: &str, ty: &StructType) -> Tree {
        let mut tree = object([("type", "object")]);
        let mut fields: Vec<(String, Tree)> =
            ty.fields.iter().map(|field| (field.name.as_str().to_owned(), self.field(name, field))).collect();
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut required: Vec<&str> =
            ty.fields.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
        required.sort_unstable();
        let map = tree.ensure_map();
        if !fields.is_empty() {
            map.insert("properties", fields.into_iter().map(|(name, tree)| (name.into(), tree)).collect::<Map>());
        }
        if !required.is_empty() {
            map.insert("required", required.into_iter().map(Tree::from).collect::<Vec<_>>());
        }
        if ty.atomic {
            map.insert("x-kubernetes-map-type", "atomic");
        }
        if ty.preserve_unknown {
            map.insert("x-kubernetes-preserve-unknown-fields", true);
        }
        tree
    }

    fn field(&mut self, owner: &str, field: &Field) -> Tree {
        let mut tree = self.refer(field.ty);
        if self.dialect == Dialect::V3 && tree.get("$ref").is_some() {
            let mut wrapped = Tree::map();
            wrapped.ensure_map().insert("allOf", vec![tree]);
            tree = wrapped;
        }
        let map = tree.ensure_map();
        let text = describe::of_field(owner, field.name.as_str());
        if !text.is_empty() {
            map.insert("description", text);
        }
        // Swagger 2 documents of upstream carry no defaults.
        if self.dialect == Dialect::V3 {
            match (field.absent, &self.schema.get(field.ty).shape) {
                (Absent::EmptyStruct, _) => {
                    map.insert("default", Tree::map());
                }
                (Absent::Zero, Shape::Scalar(Scalar::String)) => {
                    map.insert("default", "");
                }
                (Absent::Zero, Shape::Scalar(Scalar::Int32 | Scalar::Int64)) => {
                    map.insert("default", 0);
                }
                (Absent::Zero, Shape::Scalar(Scalar::Bool)) => {
                    map.insert("default", false);
                }
                _ => {}
            }
        }
        if let Shape::List(list) = &self.schema.get(field.ty).shape {
            match &list.kind {
                ListKind::Atomic => {
                    map.insert("x-kubernetes-list-type", "atomic");
                }
                ListKind::Set => {
                    map.insert("x-kubernetes-list-type", "set");
                }
                ListKind::Map(keys) => {
                    let keys = keys.iter().map(|key| Tree::from(key.name.as_str())).collect::<Vec<_>>();
                    map.insert("x-kubernetes-list-map-keys", keys);
                    map.insert("x-kubernetes-list-type", "map");
                }
            }
        }
        if let Some(key) = &field.patch_merge_key {
            map.insert("x-kubernetes-patch-merge-key", key.as_str());
        }
        let strategy = match field.patch {
            PatchStrategy::Default => None,
            PatchStrategy::Merge => Some("merge"),
            PatchStrategy::Replace => Some("replace"),
            PatchStrategy::RetainKeys => Some("retainKeys"),
            PatchStrategy::MergeRetainKeys => Some("merge,retainKeys"),
        };
        if let Some(strategy) = strategy {
            map.insert("x-kubernetes-patch-strategy", strategy);
        }
        tree
    }

    /// An item of a list or map: a struct has the default `{}`.
    fn item(&mut self, id: TypeId) -> Tree {
        let reference = self.refer(id);
        if self.dialect == Dialect::V2 || !matches!(self.schema.get(id).shape, Shape::Struct(_)) {
            return reference;
        }
        let mut tree = Tree::map();
        tree.ensure_map().insert("allOf", vec![reference]);
        tree.ensure_map().insert("default", Tree::map());
        tree
    }

    fn scalar(&mut self, scalar: Scalar) -> Tree {
        let named = match scalar {
            Scalar::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity",
            Scalar::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
            Scalar::Time => "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
            Scalar::MicroTime => "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
            Scalar::Duration => "io.k8s.apimachinery.pkg.apis.meta.v1.Duration",
            Scalar::FieldsV1 => "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
            Scalar::String => return object([("type", "string")]),
            Scalar::Bool => return object([("type", "boolean")]),
            Scalar::Int32 => return object([("type", "integer"), ("format", "int32")]),
            Scalar::Int64 => return object([("type", "integer"), ("format", "int64")]),
            Scalar::Double => return object([("type", "number"), ("format", "double")]),
            Scalar::Bytes => return object([("type", "string"), ("format", "byte")]),
        };
        self.scalars.insert(named);
        self.dialect.reference(named)
    }
}

fn named_scalar(name: &str, dialect: Dialect) -> Tree {
    let last = name.rsplit('.').next().unwrap_or(name);
    let mut tree = match last {
        "IntOrString" if dialect == Dialect::V3 => {
            let mut tree = object([("format", "int-or-string")]);
            tree.ensure_map().insert("oneOf", vec![object([("type", "integer")]), object([("type", "string")])]);
            tree
        }
        "IntOrString" => object([("type", "string"), ("format", "int-or-string")]),
        "Quantity" if dialect == Dialect::V3 => {
            let mut tree = Tree::map();
            tree.ensure_map().insert("oneOf", vec![object([("type", "string")]), object([("type", "number")])]);
            tree
        }
        "Time" | "MicroTime" => object([("type", "string"), ("format", "date-time")]),
        "FieldsV1" => object([("type", "object")]),
        _ => object([("type", "string")]),
    };
    let text = describe::of_type(name);
    if !text.is_empty() {
        tree.ensure_map().insert("description", text);
    }
    tree
}

/// A map of texts.
pub(crate) fn object<const N: usize>(entries: [(&'static str, &str); N]) -> Tree {
    Tree::Map(entries.into_iter().map(|(key, value)| (key.into(), Tree::from(value))).collect())
}

/// `{"group": …, "kind": …, "version": …}`
pub(crate) fn group_version_kind((group, version, kind): &(String, String, String)) -> Tree {
    object([("group", group), ("kind", kind), ("version", version)])
}
