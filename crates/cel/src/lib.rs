//! The Common Expression Language as Kubernetes speaks it: what rules of custom resources, admission policies, match
//! conditions and structured authentication are written in.
//!
//! An [`Env`] says what an expression may speak of; [`Env::compile`] parses and checks it against that; the [`Program`]
//! is evaluated over values that borrow from objects. Every evaluation counts its cost in upstream's units and ends at
//! a limit; every program knows what it can cost at most.
//!
//! Map, in reading order: [`Env`] (`env.rs`), `lexer.rs` and `parser.rs` over `ast.rs` with `macros.rs`, `check.rs`
//! over `types.rs` and `unify.rs`, `estimate.rs` (what it can cost), `plan.rs`, [`Program`] (`program.rs`), [`Value`]
//! (`value.rs`), `ops.rs`, `charge.rs` (what it costs), `library/` (functions), [`DeclType`] (`decl.rs`: schemas).
//!
//! It knows no Kubernetes kind, no clock and no I/O. The authorizer is asked through a trait.
//!
//! ```
//! use skiff_cel::{Env, PER_CALL_LIMIT, Type, Value, Vars};
//! use skiff_object::json;
//!
//! let env = Env::kubernetes().variable("object", Type::Dyn);
//! let program = env.compile("object.spec.replicas <= 5").unwrap();
//! let object = json::decode_untyped(br#"{"spec":{"replicas":3}}"#).unwrap();
//! let vars = Vars::new().with("object", Value::dynamic(&object));
//! let outcome = program.eval(&vars, None, PER_CALL_LIMIT);
//! assert_eq!(outcome.value.unwrap().as_bool(), Some(true));
//!
//! let error = env.compile("objct.spec").unwrap_err().to_string();
//! assert_eq!(error, "ERROR: <input>:1:1: undeclared reference to 'objct' (in container '')\n | objct.spec\n | ^");
//! ```

mod ast;
mod authorizer;
mod charge;
mod check;
mod decl;
mod env;
mod error;
mod escape;
mod estimate;
mod lexer;
mod library;
mod literals;
mod macros;
mod opaque;
mod ops;
mod parser;
mod plan;
mod program;
mod time;
mod types;
mod unify;
mod value;

pub use authorizer::{Authorizer, Check, Decision, Subject};
pub use decl::{DeclType, REQUEST_BYTES_MAX};
pub use env::Env;
pub use error::{CompileError, EvalError, Issue};
pub use escape::{escape, unescape};
pub use estimate::CostEstimate;
pub use opaque::Opaque;
pub use program::{
    Activation, MATCH_CONDITIONS_BUDGET, MESSAGE_BYTES_MAX, Outcome, PER_CALL_LIMIT, Program, RUNTIME_BUDGET, Vars,
};
pub use time::Timestamp;
pub use types::Type;
pub use value::{List, Map, MapKey, Object, Text, Value};
