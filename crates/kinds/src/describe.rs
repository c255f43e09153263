//! What types and fields mean, in one sentence each: what `kubectl explain` prints.
//!
//! The texts are ours, in `descriptions.txt`. A field is looked up in its own type first and then
//! among the fields that mean the same everywhere.

use std::collections::HashMap;
use std::sync::OnceLock;

/// Changes with the texts: part of the hash by which clients cache OpenAPI documents.
pub const REVISION: &str = env!("CARGO_PKG_VERSION");

const TEXTS: &str = include_str!("descriptions.txt");

struct Texts {
    types: HashMap<&'static str, &'static str>,
    fields: HashMap<(&'static str, &'static str), &'static str>,
}

/// The meaning of the type with this OpenAPI name; empty when there is no text.
pub fn of_type(name: &str) -> &'static str {
    texts().types.get(short(name)).copied().unwrap_or("")
}

/// The meaning of a field of the type with this OpenAPI name; empty when there is no text.
pub fn of_field(owner: &str, field: &str) -> &'static str {
    let texts = texts();
    let own = texts.fields.get(&(short(owner), field));
    own.or_else(|| texts.fields.get(&("*", field))).copied().unwrap_or("")
}

/// `io.k8s.api.core.v1.Pod` is `Pod`.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A line at the margin is a type and its text; an indented line is a field of it. The type `*`
/// holds the fields that mean the same everywhere.
fn texts() -> &'static Texts {
    static ONCE: OnceLock<Texts> = OnceLock::new();
    ONCE.get_or_init(|| {
        let mut texts = Texts { types: HashMap::new(), fields: HashMap::new() };
        let mut owner = "*";
        for line in TEXTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, text) = line.trim_start().split_once(' ').unwrap_or((line.trim_start(), ""));
            if line.starts_with(' ') {
                texts.fields.insert((owner, name), text);
            } else {
                owner = name;
                if !text.is_empty() {
                    texts.types.insert(name, text);
                }
            }
        }
        texts
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_fall_back_to_what_they_mean_everywhere() {
        assert!(of_type("io.k8s.api.apps.v1.Deployment").len() > 10);
        assert!(of_field("io.k8s.api.apps.v1.DeploymentSpec", "replicas").contains("pods"));
        assert!(!of_field("io.k8s.api.apps.v1.Deployment", "apiVersion").is_empty());
    }
}
