//! What is known about types: fields, list semantics, merge keys, protobuf numbers.
//!
//! A [`Schema`] is an arena of types. The built-in one is decoded from a compact table of facts
//! (see `skiff-kinds`); a CustomResourceDefinition compiles into one of the same shape.

use crate::tree::Key;

/// The place of a type in its [`Schema`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TypeId(pub u32);

/// An arena of types that refer to each other by [`TypeId`].
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// All types; a [`TypeId`] is an index into this.
    pub types: Vec<Type>,
    /// Values of anonymous types need not be of the shape that the schema asks for: decoders keep them, nulls
    /// included, for a validator to judge. So it is with custom resources.
    pub lenient: bool,
}

/// A type.
#[derive(Clone, Debug)]
pub struct Type {
    /// The OpenAPI definition name for named types (`io.k8s.api.core.v1.Pod`), empty for
    /// anonymous ones.
    pub name: Key,
    /// What values look like.
    pub shape: Shape,
}

/// What values of a type look like.
#[derive(Clone, Debug)]
pub enum Shape {
    /// A struct with known fields.
    Struct(StructType),
    /// A map from strings to values of one type.
    Map {
        /// The type of every value.
        value: TypeId,
        /// `x-kubernetes-map-type: atomic`.
        atomic: bool,
    },
    /// A list.
    List(ListType),
    /// A leaf.
    Scalar(Scalar),
    /// A struct or, where that is not an object, something simpler.
    Either(Either),
    /// Anything at all (`RawExtension`, `JSON`, unknown fields kept).
    Any,
}

/// A struct with known fields.
#[derive(Clone, Debug, Default)]
pub struct StructType {
    /// In the order in which Go writes them.
    pub fields: Vec<Field>,
    /// The protobuf form: fields and groups by number. Empty when there is none.
    pub wire: Vec<Wire>,
    /// `x-kubernetes-map-type: atomic`: apply owns it as a whole.
    pub atomic: bool,
    /// Fields that are not listed are kept (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown: bool,
}

/// A place in a struct's protobuf message.
#[derive(Clone, Debug)]
pub enum Wire {
    /// The field at this place of [`StructType::fields`].
    Field {
        /// Its protobuf number.
        number: u32,
        /// Its place.
        index: u16,
    },
    /// An embedded Go struct: its fields are the outer object's in JSON and a message of their own
    /// in protobuf (`VolumeSource` in `Volume`).
    Group {
        /// The protobuf number of the message.
        number: u32,
        /// Its fields, by number.
        items: Vec<Wire>,
    },
}

impl Wire {
    /// The protobuf number.
    pub const fn number(&self) -> u32 {
        match self {
            Self::Field { number, .. } | Self::Group { number, .. } => *number,
        }
    }
}

/// A struct or something simpler: CRD schemas have three such fields.
#[derive(Clone, Debug)]
pub struct Either {
    /// The type when it is an object.
    pub object: TypeId,
    /// What else it may be.
    pub or: Or,
}

/// The simpler half of an [`Either`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Or {
    /// `true` or `false`.
    Bool,
    /// A list of the same objects.
    List,
    /// A list of strings.
    Strings,
}

/// A field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    /// The JSON name.
    pub name: Key,
    /// The type of its value.
    pub ty: TypeId,
    /// The protobuf field number; 0 when the type has no protobuf form.
    pub number: u32,
    /// What the encoder does when the field is absent.
    pub absent: Absent,
    /// A pointer in Go: its zero value is something else than absence. Where it is not, the zero
    /// value and absence are one.
    pub pointer: bool,
    /// `x-kubernetes-patch-strategy`, as strategic merge reads it.
    pub patch: PatchStrategy,
    /// `x-kubernetes-patch-merge-key`.
    pub patch_merge_key: Option<Key>,
    /// Listed in the definition's `required`.
    pub required: bool,
}

/// How Go's encoder writes a field whose value was never set, in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Absent {
    /// Not at all (`omitempty` on a pointer, list, map, string or number).
    #[default]
    Omitted,
    /// A value struct: written although nothing was set (`metadata`, `status`, …), with the
    /// absent shapes of its own fields.
    EmptyStruct,
    /// A plain string, number or bool without `omitempty`, or a Quantity or IntOrString by value:
    /// written as its zero value.
    Zero,
    /// A list, map or pointer without `omitempty`, or a time by value: written as `null`.
    Null,
}

/// How strategic merge patch treats a list or map field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PatchStrategy {
    /// Lists replace, maps merge.
    #[default]
    Default,
    /// `merge`
    Merge,
    /// `replace`
    Replace,
    /// `retainKeys`
    RetainKeys,
    /// `merge,retainKeys`
    MergeRetainKeys,
}

/// A list.
#[derive(Clone, Debug)]
pub struct ListType {
    /// The type of every item.
    pub item: TypeId,
    /// `x-kubernetes-list-type`, which rules server-side apply.
    pub kind: ListKind,
    /// Protobuf has it in a message of its own (`ExtraValue`), so it can be the value of a map.
    pub wrapped: bool,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListKind {
    /// Owned as a whole. What a list without a type is.
    Atomic,
    /// Unique scalars.
    Set,
    /// Items identified by these fields, each with the default that stands in for an absent key.
    Map(Vec<ListKey>),
}

/// One of the fields that identify an item of a [`ListKind::Map`] list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListKey {
    /// The field of the item.
    pub name: Key,
    /// Used when the item lacks the field (`protocol` is `TCP`), as a JSON scalar.
    pub default: Option<Key>,
}

/// A leaf, with its JSON and its protobuf form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scalar {
    /// `string`
    String,
    /// `bool`
    Bool,
    /// `int32` (varint)
    Int32,
    /// `int64` (varint)
    Int64,
    /// `double`
    Double,
    /// `bytes`; base64 in JSON.
    Bytes,
    /// `resource.Quantity`: string or number in JSON, message with one string in protobuf.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// `metav1.Time`: RFC 3339 seconds.
    Time,
    /// `metav1.MicroTime`: RFC 3339 with microseconds.
    MicroTime,
    /// `metav1.Duration`: Go's duration text; int64 nanoseconds in protobuf.
    Duration,
    /// `metav1.FieldsV1`: any JSON object; raw bytes in protobuf.
    FieldsV1,
}

impl StructType {
    /// The field called `name`.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == *name)
    }
}

impl Field {
    /// A field that only JSON has: optional, without anything to say about patches.
    pub fn new(name: impl Into<Key>, ty: TypeId) -> Self {
        Self {
            name: name.into(),
            ty,
            number: 0,
            absent: Absent::Omitted,
            pointer: true,
            patch: PatchStrategy::Default,
            patch_merge_key: None,
            required: false,
        }
    }
}

impl Schema {
    /// The type at `id`.
    ///
    /// # Panics
    /// When `id` comes from another schema.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// Whether decoders keep a value of this type that is of another shape.
    pub fn is_lenient(&self, id: TypeId) -> bool {
        self.lenient && self.get(id).name.as_str().is_empty()
    }

    /// The type called `name`.
    pub fn find(&self, name: &str) -> Option<TypeId> {
        self.types.iter().position(|ty| ty.name == *name).map(|index| TypeId(index as u32))
    }

    /// The field `name` of a struct type; `None` for other shapes and unknown names.
    pub fn field(&self, id: TypeId, name: &str) -> Option<&Field> {
        match &self.get(id).shape {
            Shape::Struct(ty) => ty.field(name),
            Shape::Either(either) => self.field(either.object, name),
            _ => None,
        }
    }
}
