//! What an expression may speak of: variables, object types, functions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use crate::decl::{DeclType, Shape};
use crate::error::CompileError;
use crate::library::{self, Function};
use crate::program::Program;
use crate::types::{Type, split_arguments};
use crate::{check, estimate, parser, plan};

/// The variables and types an expression is compiled against, over the libraries of Kubernetes v1.36.
///
/// Cheap to clone: what differs between two environments is small.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: BTreeMap<Box<str>, Type>,
    objects: BTreeMap<Arc<str>, Arc<BTreeMap<Box<str>, Type>>>,
    sizes: BTreeMap<Box<str>, Arc<DeclType>>,
    mutation: bool,
    mixed_literals: bool,
}

/// One way to call a function.
#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) id: &'static str,
    pub(crate) member: bool,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
    pub(crate) generic: bool,
}

/// A function and the ways to call it.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) function: &'static Function,
    pub(crate) overloads: Vec<Overload>,
}

/// The tables of all libraries, read once.
static FUNCTIONS: LazyLock<HashMap<&'static str, Declared>> = LazyLock::new(|| {
    let mut functions = HashMap::new();
    for function in library::ALL.iter().copied().flatten() {
        let overloads = function.overloads.iter().map(|text| read_overload(text)).collect();
        functions.insert(function.name, Declared { function, overloads });
    }
    functions
});

/// Names that stand for types.
const TYPE_NAMES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "int",
    "string",
    "type",
    "uint",
    "net.IP",
    "net.CIDR",
    "kubernetes.URL",
    "kubernetes.Quantity",
    "kubernetes.Semver",
    "kubernetes.NamedFormat",
    "kubernetes.authorization.Authorizer",
    "kubernetes.authorization.PathCheck",
    "kubernetes.authorization.GroupCheck",
    "kubernetes.authorization.ResourceCheck",
    "kubernetes.authorization.Decision",
];

impl Env {
    /// The libraries of Kubernetes and no variables.
    pub fn kubernetes() -> Self {
        Self::default()
    }

    /// Adds a variable of a type.
    #[must_use]
    pub fn variable(mut self, name: &str, ty: Type) -> Self {
        self.variables.insert(name.into(), ty);
        self
    }

    /// Adds a variable described by a schema, with the object types the schema has.
    #[must_use]
    pub fn declare(mut self, name: &str, decl: &Arc<DeclType>) -> Self {
        self.variables.insert(name.into(), decl.ty.clone());
        self.add_objects(decl);
        self.sizes.insert(name.into(), Arc::clone(decl));
        self
    }

    /// Adds an object type by its fields.
    #[must_use]
    pub fn object<'f>(mut self, name: &str, fields: impl IntoIterator<Item = (&'f str, Type)>) -> Self {
        let fields = fields.into_iter().map(|(name, ty)| (name.into(), ty)).collect();
        self.objects.insert(name.into(), Arc::new(fields));
        self
    }

    /// Adds what mutating admission policies construct: `Object{…}`, `JSONPatch{…}` and `jsonpatch.escapeKey`.
    #[must_use]
    pub fn mutation(mut self) -> Self {
        self.mutation = true;
        self
    }

    /// Lets lists and maps in an expression mix types, which the language does and Kubernetes does not.
    #[must_use]
    pub fn mixed_literals(mut self) -> Self {
        self.mixed_literals = true;
        self
    }

    fn add_objects(&mut self, decl: &DeclType) {
        match &decl.shape {
            Shape::List { items, .. } => self.add_objects(items),
            Shape::Map { values } => self.add_objects(values),
            Shape::Object { fields } => {
                let visible = fields.values().filter(|field| field.ty.exposed());
                let types = visible.filter_map(|field| Some((field.escaped.clone()?, field.ty.ty.clone()))).collect();
                if let Type::Object(name) = &decl.ty {
                    self.objects.insert(Arc::clone(name), Arc::new(types));
                }
                for field in fields.values() {
                    self.add_objects(&field.ty);
                }
            }
            _ => {}
        }
    }

    /// Parses and checks `source`.
    ///
    /// # Errors
    /// Everything wrong with it, in cel-go's words.
    pub fn compile(&self, source: &str) -> Result<Program, CompileError> {
        let (expr, count) = parser::parse(source).map_err(|faults| CompileError::new(source, faults))?;
        let (expr, checked) = check::check(self, expr, count).map_err(|faults| CompileError::new(source, faults))?;
        let cost = estimate::estimate(self, &expr, &checked);
        let node = plan::plan(self, &expr, &checked).map_err(|fault| CompileError::new(source, vec![fault]))?;
        Ok(Program::new(source, node, checked.root_type(&expr), cost))
    }

    pub(crate) fn function(&self, name: &str) -> Option<&'static Declared> {
        if name.starts_with("jsonpatch.") && !self.mutation {
            return None;
        }
        FUNCTIONS.get(name)
    }

    pub(crate) fn is_variable(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    /// The type of a variable, or the type a type's name stands for (as the type of that type).
    pub(crate) fn ident(&self, name: &str) -> Option<Type> {
        self.variables.get(name).cloned().or_else(|| self.type_named(name).map(|ty| Type::Type(Some(Arc::new(ty)))))
    }

    /// The type a name stands for.
    pub(crate) fn type_named(&self, name: &str) -> Option<Type> {
        match name {
            "list" => return Some(Type::list(Type::Param("A".into()))),
            "map" => return Some(Type::map(Type::Param("A".into()), Type::Param("B".into()))),
            "null_type" => return Some(Type::Null),
            "google.protobuf.Timestamp" => return Some(Type::Timestamp),
            "google.protobuf.Duration" => return Some(Type::Duration),
            "optional_type" => return Some(Type::optional(Type::Param("V".into()))),
            _ => {}
        }
        let constructed = self.mutation && (name == "JSONPatch" || name == "Object" || name.starts_with("Object."));
        if constructed || self.objects.contains_key(name) {
            return Some(Type::object(name));
        }
        TYPE_NAMES.contains(&name).then(|| Type::read(name))
    }

    /// The type of a field of an object type: the outer `None` when there is no such type.
    pub(crate) fn field(&self, object: &str, field: &str) -> Option<Option<Type>> {
        if self.mutation && (object == "Object" || object.starts_with("Object.")) {
            return Some(Some(Type::Dyn));
        }
        if self.mutation && object == "JSONPatch" {
            return Some(match field {
                "op" | "path" | "from" => Some(Type::String),
                "value" => Some(Type::Dyn),
                _ => None,
            });
        }
        self.objects.get(object).map(|fields| fields.get(field).cloned())
    }

    /// The sizes of a variable. Upstream takes the schema of `self` for everything it does not know, and which rules
    /// are cheap enough follows from that.
    pub(crate) fn size(&self, variable: &str) -> Option<&DeclType> {
        let known = self.sizes.get(variable).or_else(|| self.sizes.get("self")).or_else(|| self.sizes.values().next());
        known.map(|decl| &**decl)
    }

    pub(crate) fn mixes_literals(&self) -> bool {
        self.mixed_literals
    }
}

/// Reads `id: target.(args) result`, the target being absent for a function that is no method.
fn read_overload(text: &'static str) -> Overload {
    let (id, signature) = text.split_once(": ").unwrap_or((text, "() dyn"));
    let member = signature.find(".(");
    let open = member.map_or(0, |dot| dot + 1);
    let mut depth = 0_i32;
    let close = signature[open..]
        .char_indices()
        .find(|(_, c)| {
            depth += i32::from(*c == '(') - i32::from(*c == ')');
            depth == 0
        })
        .map_or(signature.len(), |(at, _)| open + at);
    let target = member.map(|dot| &signature[..dot]);
    let args = target.into_iter().chain(split_arguments(&signature[open + 1..close])).map(Type::read).collect();
    let result = Type::read(&signature[close + 1..]);
    let generic = signature.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word.len() == 1);
    Overload { id, member: member.is_some(), args, result, generic }
}
