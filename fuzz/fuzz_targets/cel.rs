//! Expressions: compiled, estimated and evaluated.
//!
//! The first byte chooses the environment; the rest is the expression and, behind a zero byte, the object as JSON.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use skiff_cel::{DeclType, Env, EvalError, PER_CALL_LIMIT, Program, Type, Value, Vars};
use skiff_object::{Tree, json};

/// A schema with bounds, so that costs can be estimated.
const SCHEMA: &str = r#"{"type":"object","properties":{
    "name":{"type":"string","maxLength":16},
    "count":{"type":"integer"},
    "ratio":{"type":"number"},
    "on":{"type":"boolean"},
    "when":{"type":"string","format":"date-time"},
    "port":{"x-kubernetes-int-or-string":true},
    "tags":{"type":"array","maxItems":4,"items":{"type":"string","maxLength":8}},
    "labels":{"type":"object","maxProperties":4,"additionalProperties":{"type":"string","maxLength":8}},
    "items":{"type":"array","maxItems":3,"x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["key"],
        "items":{"type":"object","properties":{"key":{"type":"string","maxLength":8},"size":{"type":"integer"}}}}}}"#;
const SELF: &str = r#"{"name":"web","count":3,"ratio":1.5,"on":true,"when":"2026-01-02T03:04:05Z","port":"http",
    "tags":["a","b","a"],"labels":{"app":"web","tier":"x"},"items":[{"key":"a","size":1},{"key":"b","size":-2}]}"#;
const OBJECT: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","labels":{"app":"web"}},
    "spec":{"containers":[{"name":"a","image":"registry/a:1","ports":[{"containerPort":80}]}]}}"#;

static DECL: LazyLock<Arc<DeclType>> = LazyLock::new(|| {
    let schema = json::decode_untyped(SCHEMA.as_bytes()).expect("the schema is JSON");
    Arc::new(DeclType::of_schema(&schema, "Self", false).expect("rules can look into it"))
});
static RULE: LazyLock<Env> = LazyLock::new(|| Env::kubernetes().declare("self", &DECL).declare("oldSelf", &DECL));
static POLICY: LazyLock<Env> = LazyLock::new(|| {
    Env::kubernetes().variable("object", Type::Dyn).variable("oldObject", Type::Dyn).variable("params", Type::Dyn)
});
static MUTATION: LazyLock<Env> = LazyLock::new(|| POLICY.clone().mutation().mixed_literals());
static SELF_TREE: LazyLock<Tree> = LazyLock::new(|| json::decode_untyped(SELF.as_bytes()).expect("JSON"));
static OBJECT_TREE: LazyLock<Tree> = LazyLock::new(|| json::decode_untyped(OBJECT.as_bytes()).expect("JSON"));

fuzz_target!(|data: &[u8]| {
    let [which, rest @ ..] = data else { return };
    let (source, object) = match rest.iter().position(|byte| *byte == 0) {
        Some(middle) => (&rest[..middle], json::decode_untyped(&rest[middle + 1..]).ok()),
        None => (rest, None),
    };
    let Ok(source) = std::str::from_utf8(source) else { return };
    let (env, is_rule) = match which % 3 {
        0 => (&*RULE, true),
        1 => (&*POLICY, false),
        _ => (&*MUTATION, false),
    };
    let program = match env.compile(source) {
        Ok(program) => program,
        Err(error) => {
            assert!(!error.issues().is_empty(), "refused without a reason");
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(program.cost().min <= program.cost().max, "{:?}", program.cost());
    let vars = if is_rule {
        let value = || Value::typed(&SELF_TREE, &DECL).expect("it is of its type");
        Vars::new().with("self", value()).with("oldSelf", value())
    } else {
        let tree = object.as_ref().unwrap_or(&OBJECT_TREE);
        Vars::new()
            .with("object", Value::dynamic(tree))
            .with("oldObject", Value::dynamic(&OBJECT_TREE))
            .with("params", Value::Null)
    };
    evaluate(&program, &vars, is_rule);
});

fn evaluate(program: &Program, vars: &Vars<'_>, is_rule: bool) {
    let outcome = program.eval(vars, None, PER_CALL_LIMIT);
    let again = program.eval(vars, None, PER_CALL_LIMIT);
    assert_eq!(outcome.cost, again.cost, "the same evaluation at another cost");
    assert_eq!(outcome.value.is_ok(), again.value.is_ok(), "the same evaluation with another outcome");
    if is_rule && !matches!(outcome.value, Err(EvalError::CostExceeded)) {
        // Upstream takes an object or a number with a schema to have no size, and charges one for comparing it; so do
        // we, because rules are admitted by that estimate. Each step can cost one more than was said.
        let most = program.cost().max.saturating_mul(2).saturating_add(program.source().len() as u64);
        assert!(outcome.cost <= most, "cost {} of at most {most}", outcome.cost);
    }
    if let Ok(value) = outcome.value {
        let fits = match program.output_type() {
            Type::Bool => value.as_bool().is_some(),
            Type::String => value.as_str().is_some(),
            Type::Int => matches!(value, Value::Int(_)),
            Type::Double => matches!(value, Value::Double(_)),
            _ => true,
        };
        assert!(fits, "a {:?} where the checker says {:?}", value.type_of(), program.output_type());
        if let Ok(tree) = value.to_tree() {
            let text = json::encode_untyped(&tree);
            assert!(json::decode_untyped(&text).is_ok(), "{}", String::from_utf8_lossy(&text));
        }
    }
    // A smaller budget ends it, and nothing else does.
    if outcome.cost > 1 {
        let cut = program.eval(vars, None, outcome.cost - 1);
        assert!(matches!(cut.value, Err(EvalError::CostExceeded)), "went on beyond its budget: {:?}", cut.value);
    }
}
