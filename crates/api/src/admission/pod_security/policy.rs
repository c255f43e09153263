//! What a namespace wants of its pods, as its labels say.

use std::fmt;

use skiff_object::{Map, Tree};

use crate::errors::Cause;

/// What every label of pod security begins with, and every audit annotation.
pub const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything goes.
    #[default]
    Privileged,
    /// No known way out of the container.
    Baseline,
    /// Hardened.
    Restricted,
}

impl Level {
    /// Reads a level.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

/// Whose rules: those of Kubernetes 1.x, or the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `v1.<minor>`
    Minor(u32),
    /// `latest`
    #[default]
    Latest,
}

impl Version {
    /// Reads a version.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let is_plain = minor.bytes().all(|byte| byte.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        minor.parse().ok().filter(|_| is_plain).map(Self::Minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minor(minor) => write!(f, "v1.{minor}"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

/// A level with its version: `restricted:latest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How strict.
    pub level: Level,
    /// Whose rules.
    pub version: Version,
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

impl Rules {
    fn is_equivalent(&self, other: &Self) -> bool {
        (self.level == Level::Privileged && other.level == Level::Privileged) || self == other
    }
}

/// What is refused, what is noted and what is warned about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Refused.
    pub enforce: Rules,
    /// Noted in the audit log.
    pub audit: Rules,
    /// Warned about.
    pub warn: Rules,
}

impl Policy {
    /// Whether nothing is asked at all.
    pub fn is_fully_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|rules| rules.level == Level::Privileged)
    }

    /// Whether both mean the same.
    pub fn is_equivalent(&self, other: &Self) -> bool {
        self.enforce.is_equivalent(&other.enforce)
            && self.audit.is_equivalent(&other.audit)
            && self.warn.is_equivalent(&other.warn)
    }

    /// The policy of a namespace with these labels, and what is wrong with them. A label that
    /// cannot be read is taken as the strictest for what is refused, and as nothing otherwise.
    pub fn of(labels: Option<&Tree>, defaults: &Self) -> (Self, Vec<Cause>) {
        let (mut policy, mut wrong) = (*defaults, Vec::new());
        let Some(labels) = labels.and_then(Tree::as_map) else { return (policy, wrong) };
        let enforced = level(labels, "enforce", Level::Restricted, &mut policy.enforce, &mut wrong);
        version(labels, "enforce-version", &mut policy.enforce, &mut wrong);
        level(labels, "audit", Level::Privileged, &mut policy.audit, &mut wrong);
        version(labels, "audit-version", &mut policy.audit, &mut wrong);
        let warned = level(labels, "warn", Level::Privileged, &mut policy.warn, &mut wrong);
        let warned_version = version(labels, "warn-version", &mut policy.warn, &mut wrong);
        // Who asks for more to be refused is warned of as much, unless the labels say otherwise.
        if warned == Said::Nothing && enforced == Said::Well && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if warned_version == Said::Nothing {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, wrong)
    }
}

/// What a label says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Well,
    Badly,
}

fn text<'a>(labels: &'a Map, name: &str) -> Option<&'a str> {
    labels.get(&format!("{PREFIX}{name}")).map(|value| value.as_str().unwrap_or(""))
}

fn level(labels: &Map, name: &str, otherwise: Level, rules: &mut Rules, wrong: &mut Vec<Cause>) -> Said {
    let Some(given) = text(labels, name) else { return Said::Nothing };
    let parsed = Level::parse(given);
    rules.level = parsed.unwrap_or(otherwise);
    note(name, given, parsed.is_some(), "must be one of privileged, baseline, restricted", wrong)
}

fn version(labels: &Map, name: &str, rules: &mut Rules, wrong: &mut Vec<Cause>) -> Said {
    let Some(given) = text(labels, name) else { return Said::Nothing };
    let parsed = Version::parse(given);
    rules.version = parsed.unwrap_or(Version::Latest);
    note(name, given, parsed.is_some(), "must be \"latest\" or \"v1.x\"", wrong)
}

fn note(name: &str, given: &str, is_good: bool, why: &str, wrong: &mut Vec<Cause>) -> Said {
    if is_good {
        return Said::Well;
    }
    wrong.push(Cause {
        reason: "FieldValueInvalid".into(),
        message: format!("Invalid value: {given:?}: {why}"),
        field: format!("metadata.labels[{PREFIX}{name}]"),
    });
    Said::Badly
}

#[cfg(test)]
mod tests {
    use skiff_object::json;

    use super::*;

    fn policy(labels: &str) -> String {
        let labels = json::decode_untyped(labels.replace("ps/", PREFIX).as_bytes()).unwrap();
        let (policy, wrong) = Policy::of(Some(&labels), &Policy::default());
        let wrong: Vec<String> = wrong.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        format!("{} {} {} {}", policy.enforce, policy.audit, policy.warn, wrong.join("; ")).trim_end().to_owned()
    }

    #[test]
    fn labels_make_a_policy() {
        assert_eq!(policy("{}"), "privileged:latest privileged:latest privileged:latest");
        assert_eq!(
            policy(r#"{"ps/enforce":"baseline","ps/enforce-version":"v1.25"}"#),
            "baseline:v1.25 privileged:latest baseline:v1.25"
        );
        assert_eq!(
            policy(r#"{"ps/enforce":"baseline","ps/warn":"restricted"}"#),
            "baseline:latest privileged:latest restricted:latest"
        );
        assert_eq!(
            policy(r#"{"ps/enforce":"strict","ps/audit-version":"v1.01"}"#),
            "restricted:latest privileged:latest privileged:latest metadata.labels[pod-security.kubernetes.io/enforce]: \
             Invalid value: \"strict\": must be one of privileged, baseline, restricted; \
             metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"v1.01\": must be \"latest\" or \
             \"v1.x\""
        );
    }
}
