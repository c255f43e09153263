//! What a structural schema says about data: the types rules see, and how large values can be.

use std::collections::BTreeMap;

use skiff_object::{Schema, Tree, TypeId};

use crate::escape::escape;
use crate::types::Type;

/// The largest request whose data a cost is estimated for. The number of upstream's estimator; it
/// is part of what makes a rule admissible, so it does not follow the server's own limit.
pub const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;

/// A schema of nested schemas deeper than this is not looked into: recursion goes as deep.
const SCHEMA_DEPTH_MAX: usize = 128;

/// The type of a value described by an OpenAPI structural schema.
#[derive(Clone, Debug)]
pub struct DeclType {
    pub(crate) shape: Shape,
    pub(crate) ty: Type,
    /// The most items, properties or bytes a value has; `None` for what has no size.
    pub(crate) max_elements: Option<u64>,
    /// The fewest bytes of JSON a value takes.
    pub(crate) min_bytes: u64,
    pub(crate) nullable: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// Data without a schema, which rules cannot look into.
    Unknown,
    IntOrString,
    Bool,
    Int,
    Double,
    Str,
    Bytes,
    Duration,
    Date,
    DateTime,
    List {
        items: Box<DeclType>,
        kind: ListKind,
    },
    Map {
        values: Box<DeclType>,
    },
    Object {
        fields: BTreeMap<Box<str>, Field>,
    },
}

/// How items of a list are told apart (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    Atomic,
    Set,
    /// By these fields of the items.
    Map(Box<[Box<str>]>),
}

/// A field under its real name.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// The name expressions use; `None` when no identifier can spell it.
    pub(crate) escaped: Option<Box<str>>,
    pub(crate) ty: DeclType,
}

impl DeclType {
    /// The type described by `schema`, a `JSONSchemaProps` of `apiextensions.k8s.io/v1` or an OpenAPI v3 schema.
    ///
    /// `None` when expressions cannot look at such data: no type is given, or it is a list or map of such data.
    /// `name` names the type of the root object; `resource_root` gives it `apiVersion`, `kind` and `metadata`
    /// even when the schema does not.
    pub fn of_schema(schema: &Tree, name: &str, resource_root: bool) -> Option<Self> {
        let decl = Self::build(schema, name, resource_root || embedded(schema), SCHEMA_DEPTH_MAX);
        decl.exposed().then_some(decl)
    }

    /// The type of objects of a built-in kind, to check the types of expressions with. What may be anything is `dyn`.
    pub fn of_type(schema: &Schema, ty: TypeId, name: &str) -> Self {
        Self::of_type_below(schema, ty, name, &mut Vec::new())
    }

    /// `above` are the types this one is part of.
    fn of_type_below(schema: &Schema, ty: TypeId, name: &str, above: &mut Vec<TypeId>) -> Self {
        use skiff_object::schema::{Scalar, Shape as Form};
        let unbounded = Some(REQUEST_BYTES_MAX - 2);
        // Taken for what can be anything: its type is `dyn`, and it can be looked into.
        let any = || Self::of(Shape::IntOrString, Type::Dyn, unbounded, 1);
        // A type that contains itself is not looked into again.
        if above.contains(&ty) {
            return any();
        }
        above.push(ty);
        let decl = match &schema.get(ty).shape {
            Form::Struct(form) => {
                let fields = form.fields.iter().map(|field| {
                    let name = format!("{name}.{}", field.name.as_str());
                    let ty = Self::of_type_below(schema, field.ty, &name, above);
                    (field.name.as_str().into(), Field { escaped: escape(field.name.as_str()).map(Into::into), ty })
                });
                Self::of(Shape::Object { fields: fields.collect() }, Type::object(name), None, 2)
            }
            Form::Map { value, .. } => {
                let values = Self::of_type_below(schema, *value, &format!("{name}.@elem"), above);
                let ty = Type::map(Type::String, values.ty.clone());
                Self::of(Shape::Map { values: Box::new(values) }, ty, unbounded, 2)
            }
            Form::List(list) => {
                let items = Self::of_type_below(schema, list.item, &format!("{name}.@idx"), above);
                let ty = Type::list(items.ty.clone());
                Self::of(Shape::List { items: Box::new(items), kind: ListKind::Atomic }, ty, unbounded, 2)
            }
            Form::Scalar(scalar) => match scalar {
                Scalar::String | Scalar::Duration => Self::of(Shape::Str, Type::String, unbounded, 2),
                Scalar::Bool => Self::of(Shape::Bool, Type::Bool, None, 4),
                Scalar::Int32 | Scalar::Int64 => Self::of(Shape::Int, Type::Int, None, 1),
                Scalar::Double => Self::of(Shape::Double, Type::Double, None, 1),
                Scalar::Bytes => Self::of(Shape::Bytes, Type::Bytes, unbounded, 2),
                Scalar::Time | Scalar::MicroTime => Self::of(Shape::DateTime, Type::Timestamp, Some(32), 21),
                Scalar::Quantity | Scalar::IntOrString | Scalar::FieldsV1 => any(),
            },
            Form::Either(_) | Form::Any => any(),
        };
        above.pop();
        decl
    }

    /// A type whose values are taken as they are, without a schema.
    pub fn dynamic() -> Self {
        Self::of(Shape::Unknown, Type::Dyn, None, 1)
    }

    /// The type as the checker sees it.
    pub fn cel_type(&self) -> &Type {
        &self.ty
    }

    /// The most items, properties or bytes a value can have.
    pub fn max_elements(&self) -> Option<u64> {
        self.max_elements
    }

    /// How often data of this type can stand in one request at most: what bounds the cost of a rule where neither
    /// lists nor maps above it are bounded.
    pub const fn cardinality_max(&self) -> u64 {
        // With at least a comma between two.
        REQUEST_BYTES_MAX / (self.min_bytes + 1)
    }

    /// The type of a field, by the name the schema gives it.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match &self.shape {
            Shape::Object { fields } => fields.get(name).map(|field| &field.ty),
            _ => None,
        }
    }

    /// The type of the items of a list.
    pub fn items(&self) -> Option<&Self> {
        match &self.shape {
            Shape::List { items, .. } => Some(items),
            _ => None,
        }
    }

    /// The type of the values of a map.
    pub fn values(&self) -> Option<&Self> {
        match &self.shape {
            Shape::Map { values } => Some(values),
            _ => None,
        }
    }

    /// The type of a field by the name expressions use.
    pub(crate) fn escaped_field(&self, name: &str) -> Option<&Self> {
        match &self.shape {
            Shape::Object { fields } => {
                fields.values().find(|field| field.escaped.as_deref() == Some(name)).map(|field| &field.ty)
            }
            _ => None,
        }
    }

    fn of(shape: Shape, ty: Type, max_elements: Option<u64>, min_bytes: u64) -> Self {
        Self { shape, ty, max_elements, min_bytes, nullable: false }
    }

    pub(crate) fn exposed(&self) -> bool {
        match &self.shape {
            Shape::Unknown => false,
            Shape::List { items, .. } => items.exposed(),
            Shape::Map { values } => values.exposed(),
            _ => true,
        }
    }

    fn build(schema: &Tree, name: &str, root: bool, depth: usize) -> Self {
        let mut decl = if schema.bool_at(&["x-kubernetes-int-or-string"]) == Some(true) {
            let max = schema.int_at(&["maxLength"]).map_or(REQUEST_BYTES_MAX - 2, times_four);
            Self::of(Shape::IntOrString, Type::Dyn, Some(max), 1)
        } else if depth == 0 {
            Self::of(Shape::Unknown, Type::Dyn, None, 1)
        } else {
            match schema.str_at(&["type"]) {
                "array" => Self::list(schema, name, depth - 1),
                "object" => Self::object(schema, name, root, depth - 1),
                "string" => Self::string(schema),
                "boolean" => Self::of(Shape::Bool, Type::Bool, None, 4),
                "number" => Self::of(Shape::Double, Type::Double, None, 1),
                "integer" => Self::of(Shape::Int, Type::Int, None, 1),
                _ => Self::of(Shape::Unknown, Type::Dyn, None, 1),
            }
        };
        decl.nullable = schema.bool_at(&["nullable"]) == Some(true);
        decl
    }

    fn list(schema: &Tree, name: &str, depth: usize) -> Self {
        let Some(items) = schema.get("items") else { return Self::of(Shape::Unknown, Type::Dyn, None, 2) };
        let items = Self::build(items, &format!("{name}.@idx"), embedded(items), depth);
        let max = match schema.int_at(&["maxItems"]) {
            Some(max) => clamp(max),
            // Each item takes its bytes and a comma, inside brackets.
            None => (REQUEST_BYTES_MAX - 2) / (items.min_bytes + 1),
        };
        let kind = match schema.str_at(&["x-kubernetes-list-type"]) {
            "set" => ListKind::Set,
            "map" => ListKind::Map(
                schema
                    .list_at(&["x-kubernetes-list-map-keys"])
                    .iter()
                    .filter_map(|key| key.as_str().map(Into::into))
                    .collect(),
            ),
            _ => ListKind::Atomic,
        };
        let ty = Type::list(items.ty.clone());
        Self::of(Shape::List { items: Box::new(items), kind }, ty, Some(max), 2)
    }

    fn object(schema: &Tree, name: &str, root: bool, depth: usize) -> Self {
        let properties = schema.get("properties").and_then(Tree::as_map);
        let values = schema.get("additionalProperties").filter(|values| values.as_map().is_some());
        if let (Some(values), None) = (values, properties.filter(|_| root)) {
            let values = Self::build(values, &format!("{name}.@elem"), embedded(values), depth);
            let max = match schema.int_at(&["maxProperties"]) {
                Some(max) => clamp(max),
                // Quotes, colon, comma and the shortest key come with each value, inside braces.
                None => (REQUEST_BYTES_MAX - 2) / (values.min_bytes + 6),
            };
            let ty = Type::map(Type::String, values.ty.clone());
            return Self::of(Shape::Map { values: Box::new(values) }, ty, Some(max), 2);
        }
        let required: Vec<&str> = schema.list_at(&["required"]).iter().filter_map(Tree::as_str).collect();
        let mut fields = BTreeMap::new();
        let mut min_bytes = 2;
        for (key, property) in properties.into_iter().flat_map(skiff_object::Map::iter) {
            let key = key.as_str();
            let escaped = escape(key);
            let path = format!("{name}.{}", escaped.as_deref().unwrap_or(key));
            let ty = Self::build(property, &path, embedded(property), depth);
            if ty.exposed() && required.contains(&key) && property.get("default").is_none() {
                min_bytes += key.len() as u64 + ty.min_bytes + 4;
            }
            fields.insert(key.into(), Field { escaped: escaped.map(Into::into), ty });
        }
        if root {
            add_resource_fields(&mut fields, name);
        }
        Self::of(Shape::Object { fields }, Type::object(name), None, min_bytes)
    }

    fn string(schema: &Tree) -> Self {
        let max_length = schema.int_at(&["maxLength"]);
        let unbounded = REQUEST_BYTES_MAX - 2;
        // RFC 3339 texts in quotes: at most 32 bytes, at least 21; a date is 12.
        match schema.str_at(&["format"]) {
            "byte" => Self::of(Shape::Bytes, Type::Bytes, Some(max_length.map_or(unbounded, clamp)), 2),
            "duration" => Self::of(Shape::Duration, Type::Duration, Some(32), 3),
            "date" => Self::of(Shape::Date, Type::Timestamp, Some(12), 12),
            "date-time" => Self::of(Shape::DateTime, Type::Timestamp, Some(32), 21),
            _ => {
                let values = schema.list_at(&["enum"]);
                let max = match max_length {
                    Some(max) => times_four(max),
                    None if values.is_empty() => unbounded,
                    None => values.iter().filter_map(Tree::as_str).map(|text| text.len() as u64).max().unwrap_or(0),
                };
                Self::of(Shape::Str, Type::String, Some(max), 2)
            }
        }
    }
}

fn embedded(schema: &Tree) -> bool {
    schema.bool_at(&["x-kubernetes-embedded-resource"]) == Some(true)
}

fn clamp(max: i64) -> u64 {
    u64::try_from(max).unwrap_or(0)
}

/// `maxLength` counts characters, sizes are bytes, and a character has up to four.
fn times_four(max: i64) -> u64 {
    clamp(max).saturating_mul(4)
}

/// What every resource has whether or not its schema says so.
fn add_resource_fields(fields: &mut BTreeMap<Box<str>, Field>, name: &str) {
    let string = || DeclType::of(Shape::Str, Type::String, Some(REQUEST_BYTES_MAX - 2), 2);
    let field = |name: &str, ty: DeclType| (name.into(), Field { escaped: Some(name.into()), ty });
    let is_string = |field: Option<&Field>| field.is_some_and(|field| matches!(field.ty.shape, Shape::Str));
    let metadata = fields.get("metadata").map(|field| &field.ty.shape);
    let complete = is_string(fields.get("kind"))
        && is_string(fields.get("apiVersion"))
        && matches!(metadata, Some(Shape::Object { fields }) if is_string(fields.get("name"))
            && is_string(fields.get("generateName")));
    if complete {
        return;
    }
    let metadata = Shape::Object { fields: ["name", "generateName"].map(|name| field(name, string())).into() };
    let metadata = DeclType::of(metadata, Type::object(&format!("{name}.metadata")), None, 2);
    fields.extend([field("kind", string()), field("apiVersion", string()), field("metadata", metadata)]);
}
