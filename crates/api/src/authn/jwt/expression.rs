//! CEL over the claims of a token, or over the user made of them.

use serde_json::Value;
use skiff_cel::{Env, PER_CALL_LIMIT, Program, Type, Vars};
use skiff_object::{Tree, json};

/// What an expression speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// `claims`
    Claims,
    /// `user`
    User,
}

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    program: Program,
}

impl Expression {
    /// Compiles.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(source: &str, over: Over) -> Result<Self, String> {
        let env = match over {
            Over::Claims => Env::kubernetes().variable("claims", Type::map(Type::String, Type::Dyn)),
            Over::User => {
                let texts = || Type::list(Type::String);
                let fields = [
                    ("username", Type::String),
                    ("uid", Type::String),
                    ("groups", texts()),
                    ("extra", Type::map(Type::String, texts())),
                ];
                let user = "kubernetes.UserInfo";
                Env::kubernetes().object(user, fields).variable("user", Type::object(user))
            }
        };
        env.compile(source).map(|program| Self { program }).map_err(|error| error.to_string())
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        self.program.source()
    }

    /// Whether it selects the claim `field`.
    pub fn mentions(&self, field: &str) -> bool {
        let text: String = self.source().chars().filter(|c| !c.is_whitespace()).collect();
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let found = |selector: &str| {
            let wanted = format!("{selector}{field}");
            text.match_indices(&wanted).any(|(at, _)| ends(&text[at + wanted.len()..]))
        };
        found("claims.") || found("claims.?")
    }

    /// Its value for these claims.
    ///
    /// # Errors
    /// When the evaluation fails.
    pub fn on_claims(&self, claims: &Value) -> Result<Value, String> {
        self.eval("claims", claims)
    }

    /// Its value for this user.
    ///
    /// # Errors
    /// When the evaluation fails.
    pub fn on_user(&self, user: &Value) -> Result<Value, String> {
        self.eval("user", user)
    }

    fn eval(&self, name: &'static str, value: &Value) -> Result<Value, String> {
        let tree: Tree = json::decode_untyped(value.to_string().as_bytes()).map_err(|error| error.to_string())?;
        let vars = Vars::new().with(name, skiff_cel::Value::dynamic(&tree));
        let outcome = self.program.eval(&vars, None, PER_CALL_LIMIT);
        let result = outcome.value.and_then(|value| value.to_tree()).map_err(|error| error.to_string())?;
        serde_json::from_slice(&json::encode_untyped(&result)).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_and_users_are_evaluated() {
        let claims = serde_json::json!({"sub": "jane", "roles": ["a", "b"], "email_verified": true});
        let eval = |source| Expression::compile(source, Over::Claims).unwrap().on_claims(&claims);
        assert_eq!(eval("'x:' + claims.sub"), Ok("x:jane".into()));
        assert_eq!(eval("claims.roles.map(r, 'x:' + r)"), Ok(serde_json::json!(["x:a", "x:b"])));
        assert!(eval("claims.nope").is_err());
        let user = serde_json::json!({"username": "system:x", "uid": "", "groups": [], "extra": {}});
        let rule = Expression::compile("!user.username.startsWith('system:')", Over::User).unwrap();
        assert_eq!(rule.on_user(&user), Ok(false.into()));
        assert!(Expression::compile("user.nope == ''", Over::User).is_err());
        assert!(Expression::compile("claims.sub", Over::User).is_err());
        let both = Expression::compile("claims.email_verified ? claims.sub : ''", Over::Claims).unwrap();
        assert!(both.mentions("email_verified") && !both.mentions("email"));
    }
}
