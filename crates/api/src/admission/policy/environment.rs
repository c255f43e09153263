//! What the expressions of policies and match conditions may speak of.

use std::sync::{Arc, LazyLock};

use skiff_cel::{CompileError, DeclType, Env, Program, Type};
use skiff_object::{Tree, json};

/// What differs between expressions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether there is `params`.
    pub params: bool,
    /// Whether there is `authorizer`.
    pub authorizer: bool,
    /// Whether objects and patches may be constructed.
    pub patches: bool,
}

/// The namespace as expressions see it: without who manages its fields.
const NAMESPACE: &str = r#"{"type":"object","properties":{
    "metadata":{"type":"object","properties":{
        "name":{"type":"string"},"generateName":{"type":"string"},"namespace":{"type":"string"},
        "labels":{"type":"object","additionalProperties":{"type":"string"}},
        "annotations":{"type":"object","additionalProperties":{"type":"string"}},
        "UID":{"type":"string"},
        "creationTimestamp":{"type":"string","format":"date-time"},
        "deletionGracePeriodSeconds":{"type":"integer"},
        "deletionTimestamp":{"type":"string","format":"date-time"},
        "generation":{"type":"integer"},"resourceVersion":{"type":"string"},
        "finalizers":{"type":"array","items":{"type":"string"}}}},
    "spec":{"type":"object","properties":{"finalizers":{"type":"array","items":{"type":"string"}}}},
    "status":{"type":"object","properties":{
        "phase":{"type":"string"},
        "conditions":{"type":"array","items":{"type":"object","properties":{
            "status":{"type":"string"},"type":{"type":"string"},
            "lastTransitionTime":{"type":"string","format":"date-time"},
            "message":{"type":"string"},"reason":{"type":"string"}}}}}}}}"#;

/// The type of `namespaceObject`.
pub static NAMESPACE_TYPE: LazyLock<Arc<DeclType>> = LazyLock::new(|| {
    let schema = json::decode_untyped(NAMESPACE.as_bytes()).unwrap_or_else(|_| Tree::map());
    let decl = DeclType::of_schema(&schema, "kubernetes.Namespace", false);
    Arc::new(decl.unwrap_or_else(DeclType::dynamic))
});

static BASE: LazyLock<Env> = LazyLock::new(|| {
    let strings = || Type::list(Type::String);
    let kind = || Type::object("kubernetes.GroupVersionKind");
    let resource = || Type::object("kubernetes.GroupVersionResource");
    Env::kubernetes()
        .object(
            "kubernetes.GroupVersionKind",
            [("group", Type::String), ("version", Type::String), ("kind", Type::String)],
        )
        .object(
            "kubernetes.GroupVersionResource",
            [("group", Type::String), ("version", Type::String), ("resource", Type::String)],
        )
        .object(
            "kubernetes.UserInfo",
            [
                ("username", Type::String),
                ("uid", Type::String),
                ("groups", strings()),
                ("extra", Type::map(Type::String, strings())),
            ],
        )
        .object(
            "kubernetes.AdmissionRequest",
            [
                ("kind", kind()),
                ("resource", resource()),
                ("subResource", Type::String),
                ("requestKind", kind()),
                ("requestResource", resource()),
                ("requestSubResource", Type::String),
                ("name", Type::String),
                ("namespace", Type::String),
                ("operation", Type::String),
                ("userInfo", Type::object("kubernetes.UserInfo")),
                ("dryRun", Type::Bool),
                ("options", Type::Dyn),
            ],
        )
        .variable("request", Type::object("kubernetes.AdmissionRequest"))
        .declare("namespaceObject", &NAMESPACE_TYPE)
});

/// The environment of expressions over untyped objects, without variables of a policy.
pub fn env(options: Options) -> Env {
    with_types(BASE.clone().variable("object", Type::Dyn).variable("oldObject", Type::Dyn), options, None)
}

/// The environment to check types in: objects (and params) are what their schema says.
pub fn typed_env(options: Options, object: &Arc<DeclType>, params: Option<&Arc<DeclType>>) -> Env {
    with_types(BASE.clone().declare("object", object).declare("oldObject", object), options, params)
}

fn with_types(mut env: Env, options: Options, params: Option<&Arc<DeclType>>) -> Env {
    env = match params {
        Some(params) => env.declare("params", params),
        None if options.params => env.variable("params", Type::Dyn),
        None => env,
    };
    if options.authorizer {
        env = env
            .variable("authorizer", Type::object("kubernetes.authorization.Authorizer"))
            .variable("authorizer.requestResource", Type::object("kubernetes.authorization.ResourceCheck"));
    }
    if options.patches { env.mutation() } else { env }
}

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// Anything.
    Anything,
    /// A truth value.
    Bool,
    /// A text.
    Text,
    /// A text or null.
    TextOrNull,
    /// `Object{…}`
    Object,
    /// A list of `JSONPatch{…}`.
    Patches,
}

/// An expression that compiles, or why it does not.
pub type Compiled = Result<Program, String>;

/// Compiles an expression that must give what `returns` says.
///
/// # Errors
/// Why it does not, in upstream's words.
pub fn compile(env: &Env, expression: &str, returns: Returns) -> Compiled {
    let failed = |error: CompileError| format!("compilation failed: {error}");
    let program = env.compile(expression).map_err(failed)?;
    let output = program.output_type();
    let is = |wanted: &Type| output == wanted;
    let fits = match returns {
        Returns::Anything => true,
        Returns::Bool => is(&Type::Bool),
        Returns::Text => is(&Type::String),
        Returns::TextOrNull => is(&Type::String) || is(&Type::Null),
        Returns::Object => is(&Type::object("Object")),
        Returns::Patches => is(&Type::list(Type::object("JSONPatch"))),
    };
    let wanted = match returns {
        _ if fits => return Ok(program),
        Returns::TextOrNull => "one of [string null_type]",
        Returns::Text => "string",
        Returns::Object => "Object",
        Returns::Patches => "list(JSONPatch)",
        _ => "bool",
    };
    let output = if *output == Type::Null { "null_type".to_owned() } else { output.to_string() };
    Err(format!("must evaluate to {wanted} but got {output}"))
}
