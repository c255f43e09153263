//! The types the checker reasons about.

use std::fmt;
use std::sync::Arc;

/// A type of the language.
///
/// Equality is structural. How a type prints is how error messages of the API name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Anything: checked when it is used, not before.
    Dyn,
    /// What an expression with an error has, so that one mistake is reported once.
    Error,
    /// The type of `null`.
    Null,
    /// `bool`
    Bool,
    /// 64 bits, signed.
    Int,
    /// 64 bits, unsigned.
    Uint,
    /// IEEE 754 double.
    Double,
    /// Unicode text.
    String,
    /// Octets.
    Bytes,
    /// A point in time, years 1 to 9999.
    Timestamp,
    /// A span of time in nanoseconds.
    Duration,
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// A list of one type.
    List(Arc<Type>),
    /// A map from one type to another.
    Map(Arc<(Type, Type)>),
    /// A named type with fields known to the environment, or none.
    Object(Arc<str>),
    /// A named type with parameters and no fields.
    Opaque(Arc<str>, Arc<[Type]>),
    /// A parameter of a declared function: `A` in `list(A)`.
    Param(Arc<str>),
    /// A type still to be found while checking.
    Var(u32),
}

/// The name of [`Type::optional`].
const OPTIONAL: &str = "optional_type";

impl Type {
    /// `list(item)`
    pub fn list(item: Self) -> Self {
        Self::List(Arc::new(item))
    }

    /// `map(key, value)`
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    /// `optional_type(inner)`
    pub fn optional(inner: Self) -> Self {
        Self::Opaque(OPTIONAL.into(), Arc::new([inner]))
    }

    /// An object type by name.
    pub fn object(name: &str) -> Self {
        Self::Object(name.into())
    }

    /// What an optional holds; `None` when this is not an optional.
    pub(crate) fn unwrap_optional(&self) -> Option<&Self> {
        match self {
            Self::Opaque(name, params) if &**name == OPTIONAL => params.first(),
            _ => None,
        }
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// The name `type(x)` gives at run time, without parameters.
    pub fn runtime_name(&self) -> &str {
        match self {
            Self::Dyn | Self::Param(_) | Self::Var(_) => "dyn",
            Self::Error => "error",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Duration => "google.protobuf.Duration",
            Self::Type(_) => "type",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Object(name) | Self::Opaque(name, _) => name,
        }
    }

    /// Reads a type as the tables of declarations write it: `list(A)`, `map(string, dyn)`,
    /// `optional(V)`, one capital letter for a parameter.
    pub(crate) fn read(text: &str) -> Self {
        let text = text.trim();
        let Some((head, rest)) = text.split_once('(') else { return Self::read_name(text) };
        let params: Vec<Self> =
            split_arguments(rest.trim_end().strip_suffix(')').unwrap_or(rest)).map(Self::read).collect();
        match (head.trim(), params.as_slice()) {
            ("list", [item]) => Self::list(item.clone()),
            ("map", [key, value]) => Self::map(key.clone(), value.clone()),
            ("optional", [inner]) => Self::optional(inner.clone()),
            ("type", [inner]) => Self::Type(Some(Arc::new(inner.clone()))),
            (name, params) => Self::Opaque(name.into(), params.into()),
        }
    }

    fn read_name(name: &str) -> Self {
        match name {
            "dyn" => Self::Dyn,
            "null" => Self::Null,
            "bool" => Self::Bool,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "double" => Self::Double,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "timestamp" => Self::Timestamp,
            "duration" => Self::Duration,
            "type" => Self::Type(None),
            "net.IP" | "net.CIDR" => Self::Opaque(name.into(), Arc::new([])),
            name if name.len() == 1 => Self::Param(name.into()),
            name => Self::object(name),
        }
    }
}

/// The arguments of a declaration, split at commas outside parentheses.
pub(crate) fn split_arguments(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::Type(Some(inner)) => write!(f, "type({inner})"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(entry) => write!(f, "map({}, {})", entry.0, entry.1),
            Self::Param(name) => f.write_str(name),
            Self::Var(number) => write!(f, "_var{number}"),
            Self::Opaque(name, params) if !params.is_empty() => {
                write!(f, "{name}(")?;
                for (index, param) in params.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{param}")?;
                }
                f.write_str(")")
            }
            other => f.write_str(other.runtime_name()),
        }
    }
}
