//! A structural schema, compiled: what every hook of a custom kind walks.

use skiff_object::schema::ListKind;
use skiff_object::{Key, Map, Tree};

use crate::custom::compile::list_kind;
use crate::custom::pattern::Pattern;

/// How deep a structural schema may nest: every walk over it recurses.
pub(crate) const SCHEMA_DEPTH_MAX: usize = 100;

/// `type`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Type {
    /// Not said.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => Self::Any,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// `additionalProperties`
#[derive(Default)]
pub(crate) enum Additional {
    /// Not said, or `false`.
    #[default]
    None,
    /// `true`
    Any,
    /// A schema for every value.
    Schema(Box<Node>),
}

/// One level of a schema.
#[derive(Default)]
pub(crate) struct Node {
    pub(crate) ty: Type,
    pub(crate) nullable: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded: bool,
    pub(crate) int_or_string: bool,
    pub(crate) map_is_atomic: bool,
    pub(crate) default: Option<Tree>,
    /// Sorted by name.
    pub(crate) properties: Vec<(Key, Node)>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Node>>,
    pub(crate) list: Option<ListKind>,
    pub(crate) values: Option<Box<Values>>,
    pub(crate) rules: Vec<Rule>,
}

/// What values must be beyond their type.
#[derive(Default)]
pub(crate) struct Values {
    pub(crate) format: Box<str>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) minimum: Option<Tree>,
    pub(crate) maximum: Option<Tree>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<Tree>,
    pub(crate) length: Bounds,
    pub(crate) items: Bounds,
    pub(crate) properties: Bounds,
    pub(crate) required: Vec<Box<str>>,
    pub(crate) allowed: Vec<Tree>,
    pub(crate) all_of: Vec<Node>,
    pub(crate) any_of: Vec<Node>,
    pub(crate) one_of: Vec<Node>,
    pub(crate) not: Option<Node>,
}

/// How many there may be.
#[derive(Clone, Copy, Default)]
pub(crate) struct Bounds {
    pub(crate) min: Option<usize>,
    pub(crate) max: Option<usize>,
}

/// One of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    pub(crate) rule: Box<str>,
    pub(crate) message: Box<str>,
    pub(crate) message_expression: Box<str>,
    pub(crate) reason: Box<str>,
    pub(crate) field_path: Box<str>,
    /// `optionalOldSelf`, when it is said.
    pub(crate) optional_old_self: Option<bool>,
}

impl Node {
    /// Compiles `openAPIV3Schema`. What nests deeper than [`SCHEMA_DEPTH_MAX`] is taken as anything: such a
    /// definition is refused when it is written.
    pub(crate) fn compile(schema: &Tree) -> Self {
        Self::at_depth(schema, 0)
    }

    fn at_depth(schema: &Tree, depth: usize) -> Self {
        if depth > SCHEMA_DEPTH_MAX {
            return Self { preserve_unknown: true, ..Self::default() };
        }
        let is = |name: &str| schema.bool_at(&[name]) == Some(true);
        let child = |schema: &Tree| Self::at_depth(schema, depth + 1);
        let mut properties: Vec<(Key, Self)> = entries(schema, "properties")
            .map(|(name, property)| (Key::from(name.to_owned()), child(property)))
            .collect();
        properties.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        Self {
            ty: Type::parse(schema.str_at(&["type"])),
            nullable: is("nullable"),
            preserve_unknown: is("x-kubernetes-preserve-unknown-fields"),
            embedded: is("x-kubernetes-embedded-resource"),
            int_or_string: is("x-kubernetes-int-or-string"),
            map_is_atomic: schema.str_at(&["x-kubernetes-map-type"]) == "atomic",
            default: schema.get("default").cloned(),
            properties,
            additional: match schema.get("additionalProperties") {
                Some(Tree::Bool(true)) => Additional::Any,
                Some(values @ Tree::Map(_)) => Additional::Schema(Box::new(child(values))),
                _ => Additional::None,
            },
            items: schema.get("items").filter(|items| items.as_map().is_some()).map(|items| Box::new(child(items))),
            list: (!schema.str_at(&["x-kubernetes-list-type"]).is_empty()).then(|| list_kind(schema)),
            values: Values::compile(schema, depth).map(Box::new),
            rules: schema.list_at(&["x-kubernetes-validations"]).iter().map(Rule::read).collect(),
        }
    }

    /// The schema of a field that is named.
    pub(crate) fn property(&self, name: &str) -> Option<&Self> {
        let found = self.properties.binary_search_by(|(key, _)| key.as_str().cmp(name)).ok()?;
        Some(&self.properties[found].1)
    }

    /// The schema of an entry: the field's own, or that of every value.
    pub(crate) fn entry(&self, name: &str) -> Option<&Self> {
        self.property(name).or(match &self.additional {
            Additional::Schema(values) => Some(values),
            _ => None,
        })
    }

    /// Whether there is anything to evaluate here or below.
    pub(crate) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
            || self.properties.iter().any(|(_, node)| node.has_rules())
            || self.items.as_ref().is_some_and(|node| node.has_rules())
            || matches!(&self.additional, Additional::Schema(node) if node.has_rules())
    }
}

fn entries<'a>(schema: &'a Tree, field: &str) -> impl Iterator<Item = (&'a str, &'a Tree)> {
    let map = schema.get(field).and_then(Tree::as_map);
    map.into_iter().flat_map(Map::iter).map(|(key, value)| (key.as_str(), value))
}

impl Rule {
    pub(crate) fn read(rule: &Tree) -> Self {
        let text = |field: &str| rule.str_at(&[field]).into();
        Self {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old_self: rule.bool_at(&["optionalOldSelf"]),
        }
    }
}

impl Values {
    fn compile(schema: &Tree, depth: usize) -> Option<Self> {
        const FIELDS: [&str; 19] = [
            "format",
            "pattern",
            "minimum",
            "maximum",
            "exclusiveMinimum",
            "exclusiveMaximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "required",
            "enum",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        let map = schema.as_map()?;
        if !map.keys().any(|key| FIELDS.contains(&key.as_str())) {
            return None;
        }
        let is = |name: &str| schema.bool_at(&[name]) == Some(true);
        let number = |name: &str| schema.get(name).filter(|value| matches!(value, Tree::Int(_) | Tree::Float(_)));
        let count = |name: &str| schema.int_at(&[name]).and_then(|bound| usize::try_from(bound).ok());
        let bounds = |min: &str, max: &str| Bounds { min: count(min), max: count(max) };
        let nodes = |name: &str| {
            schema.list_at(&[name]).iter().map(|schema| Node::at_depth(schema, depth + 1)).collect::<Vec<_>>()
        };
        let pattern = schema.str_at(&["pattern"]);
        Some(Self {
            format: schema.str_at(&["format"]).into(),
            pattern: (!pattern.is_empty()).then(|| Pattern::new(pattern)),
            minimum: number("minimum").cloned(),
            maximum: number("maximum").cloned(),
            exclusive_minimum: is("exclusiveMinimum"),
            exclusive_maximum: is("exclusiveMaximum"),
            multiple_of: number("multipleOf").cloned(),
            length: bounds("minLength", "maxLength"),
            items: bounds("minItems", "maxItems"),
            properties: bounds("minProperties", "maxProperties"),
            required: schema.list_at(&["required"]).iter().filter_map(Tree::as_str).map(Into::into).collect(),
            allowed: schema.list_at(&["enum"]).to_vec(),
            all_of: nodes("allOf"),
            any_of: nodes("anyOf"),
            one_of: nodes("oneOf"),
            not: schema.get("not").filter(|not| not.as_map().is_some()).map(|not| Node::at_depth(not, depth + 1)),
        })
    }
}
