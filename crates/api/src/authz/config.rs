//! Which authorizers there are and in which order: `--authorization-mode`, or
//! `AuthorizationConfiguration` of `apiserver.config.k8s.io/v1`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use skiff_base::{Clock, Tasks};
use skiff_object::errors::{FieldError, message};
use skiff_object::time::parse_duration;
use skiff_object::{Tree, name, yaml};
use skiff_store::Store;

use super::abac::Abac;
use super::changing::Followers;
use super::conditions::Conditions;
use super::{Authorizer, webhook};
use crate::outbound::{Outbound, Target};

/// One authorizer.
#[derive(Debug)]
pub enum Mode {
    /// Kubelets by what their pods use.
    Node,
    /// Roles and bindings.
    Rbac,
    /// The policies of a file.
    Abac(Abac),
    /// Everybody may do everything.
    AlwaysAllow,
    /// Nobody may do anything.
    AlwaysDeny,
    /// Another server decides.
    Webhook(Box<Webhook>),
}

/// A webhook and what it is asked about.
#[derive(Debug)]
pub struct Webhook {
    /// Where and how.
    pub settings: webhook::Settings,
    /// Which requests it is asked about.
    pub conditions: Conditions,
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigurationError(pub String);

/// Reads a kubeconfig file into where a webhook is.
pub type Kubeconfig<'a> = &'a dyn Fn(&str) -> Result<Target, String>;

const GROUP: &str = "apiserver.config.k8s.io";
const KIND: &str = "AuthorizationConfiguration";
const TYPES: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

/// Reads `Node,RBAC`. `webhook` is what the `--authorization-webhook-*` flags say, `abac` what is in the file of
/// `--authorization-policy-file`.
///
/// # Errors
/// When a mode is unknown, comes twice, or lacks its flags.
pub fn modes(
    text: &str,
    webhook: Option<webhook::Settings>,
    abac: Option<Abac>,
) -> Result<Vec<Mode>, ConfigurationError> {
    let fail = |why: String| Err(ConfigurationError(why));
    let (mut webhook, mut abac) = (webhook, abac);
    let mut seen = HashSet::new();
    let mut modes = Vec::new();
    for one in text.split(',').map(str::trim) {
        if !TYPES.contains(&one) {
            return fail(format!("authorization-mode {one:?} is not a valid mode"));
        }
        if !seen.insert(one) {
            return fail(format!("authorization-mode {one:?} has mode specified more than once"));
        }
        modes.push(match one {
            "Node" => Mode::Node,
            "RBAC" => Mode::Rbac,
            "AlwaysAllow" => Mode::AlwaysAllow,
            "AlwaysDeny" => Mode::AlwaysDeny,
            "Webhook" => match webhook.take() {
                Some(settings) => Mode::Webhook(Box::new(Webhook { settings, conditions: Conditions::default() })),
                None => {
                    return fail("authorization-mode Webhook's authorization config file not passed".into());
                }
            },
            "ABAC" => match abac.take() {
                Some(abac) => Mode::Abac(abac),
                None => return fail("authorization-mode ABAC's authorization policy file not passed".into()),
            },
            other => return fail(format!("authorization-mode {other} is not supported by this server")),
        });
    }
    if abac.is_some() {
        return fail("cannot specify --authorization-policy-file without mode ABAC".into());
    }
    Ok(modes)
}

/// Reads a configuration file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(text: &str, kubeconfig: Kubeconfig<'_>) -> Result<Vec<Mode>, ConfigurationError> {
    let tree = yaml::decode_untyped(text.as_bytes()).map_err(|error| ConfigurationError(error.to_string()))?;
    let api_version = tree.str_at(&["apiVersion"]);
    let version = api_version.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix('/'));
    if tree.str_at(&["kind"]) != KIND || !matches!(version, Some("v1" | "v1beta1" | "v1alpha1")) {
        let kind = tree.str_at(&["kind"]);
        return Err(ConfigurationError(format!("no kind {kind:?} is registered for version {api_version:?}")));
    }
    let mut reader = Reader { errors: Vec::new(), kubeconfig };
    let modes = reader.modes(tree.list_at(&["authorizers"]));
    if reader.errors.is_empty() { Ok(modes) } else { Err(ConfigurationError(message(&reader.errors))) }
}

struct Reader<'a> {
    errors: Vec<FieldError>,
    kubeconfig: Kubeconfig<'a>,
}

impl Reader<'_> {
    fn modes(&mut self, list: &[Tree]) -> Vec<Mode> {
        if list.is_empty() {
            let why = "at least one authorization mode must be defined";
            self.errors.push(FieldError::required("authorizers", why));
        }
        let (mut types, mut names) = (HashSet::new(), HashSet::new());
        let mut modes = Vec::new();
        for (at, one) in list.iter().enumerate() {
            let path = format!("authorizers[{at}]");
            let ty = one.str_at(&["type"]);
            let field = format!("{path}.type");
            if ty.is_empty() {
                self.errors.push(FieldError::required(field, ""));
                continue;
            }
            if !TYPES.contains(&ty) {
                self.errors.push(FieldError::not_supported(field, ty, &TYPES));
                continue;
            }
            if !types.insert(ty.to_owned()) && ty != "Webhook" {
                self.errors.push(FieldError::duplicate(field, ty));
                continue;
            }
            self.name(one.str_at(&["name"]), &format!("{path}.name"), &mut names);
            if ty != "Webhook" && one.get("webhook").is_some_and(|webhook| !webhook.is_null()) {
                let why = "may only be specified when type=Webhook";
                self.errors.push(FieldError::invalid(format!("{path}.webhook"), "non-null", why));
            }
            match ty {
                "Node" => modes.push(Mode::Node),
                "RBAC" => modes.push(Mode::Rbac),
                "AlwaysAllow" => modes.push(Mode::AlwaysAllow),
                "AlwaysDeny" => modes.push(Mode::AlwaysDeny),
                "Webhook" => modes.extend(self.webhook(one, &path).map(|one| Mode::Webhook(Box::new(one)))),
                _ => self.errors.push(FieldError::invalid(field, ty, "is not supported by this server")),
            }
        }
        modes
    }

    fn name(&mut self, text: &str, field: &str, names: &mut HashSet<String>) {
        if text.is_empty() {
            self.errors.push(FieldError::required(field, ""));
        } else if !names.insert(text.to_owned()) {
            self.errors.push(FieldError::duplicate(field, text));
        } else if let [first, rest @ ..] = name::dns1123_subdomain(text).as_slice() {
            let why = std::iter::once(first).chain(rest).cloned().collect::<Vec<_>>().join(", ");
            self.errors.push(FieldError::invalid(field, text, format!("authorizer name is invalid: {why}")));
        }
    }

    fn webhook(&mut self, one: &Tree, path: &str) -> Option<Webhook> {
        let Some(webhook) = one.get("webhook").filter(|webhook| !webhook.is_null()) else {
            self.errors.push(FieldError::required(format!("{path}.webhook"), "required when type=Webhook"));
            return None;
        };
        let timeout = self.duration(webhook, path, "timeout", None)?;
        if timeout > Duration::from_secs(30) {
            let text = webhook.str_at(&["timeout"]);
            self.errors.push(FieldError::invalid(format!("{path}.timeout"), text, "must be > 0s and <= 30s"));
        }
        let authorized_ttl = self.duration(webhook, path, "authorizedTTL", Some(300))?;
        let unauthorized_ttl = self.duration(webhook, path, "unauthorizedTTL", Some(30))?;
        let version = self.choice(webhook, path, "subjectAccessReviewVersion", &["v1", "v1beta1"]);
        let policy = self.choice(webhook, path, "failurePolicy", &["NoOpinion", "Deny"]);
        let conditions = self.conditions(webhook, path);
        let target = self.target(webhook, path)?;
        Some(Webhook {
            settings: webhook::Settings {
                name: one.str_at(&["name"]).to_owned(),
                target,
                version,
                timeout,
                authorized_ttl,
                unauthorized_ttl,
                denies_on_failure: policy == "Deny",
            },
            conditions,
        })
    }

    fn duration(&mut self, webhook: &Tree, path: &str, field: &str, default: Option<u64>) -> Option<Duration> {
        let text = webhook.str_at(&[field]);
        let field = format!("{path}.{field}");
        if text.is_empty() {
            if default.is_none() {
                self.errors.push(FieldError::required(field, ""));
            }
            return default.map(Duration::from_secs);
        }
        match parse_duration(text) {
            Ok(nanos) if nanos > 0 => Some(Duration::from_nanos(nanos.unsigned_abs())),
            Ok(0) => {
                self.errors.push(FieldError::required(field, ""));
                None
            }
            Ok(_) => {
                self.errors.push(FieldError::invalid(field, text, "must be > 0s"));
                None
            }
            Err(error) => {
                self.errors.push(FieldError::invalid(field, text, error.to_string()));
                None
            }
        }
    }

    fn choice(&mut self, webhook: &Tree, path: &str, field: &str, supported: &[&str]) -> String {
        let text = webhook.str_at(&[field]);
        let field = format!("{path}.{field}");
        if text.is_empty() {
            self.errors.push(FieldError::required(field, ""));
        } else if !supported.contains(&text) {
            self.errors.push(FieldError::not_supported(field, text, supported));
        }
        text.to_owned()
    }

    fn conditions(&mut self, webhook: &Tree, path: &str) -> Conditions {
        let list = webhook.list_at(&["matchConditions"]);
        let version = webhook.str_at(&["matchConditionSubjectAccessReviewVersion"]);
        let field = format!("{path}.matchConditionSubjectAccessReviewVersion");
        if version.is_empty() && !list.is_empty() {
            self.errors.push(FieldError::required(field, "required if match conditions are specified"));
        } else if !matches!(version, "" | "v1") {
            self.errors.push(FieldError::not_supported(field, version, &["v1"]));
        }
        let mut conditions = Conditions::default();
        let mut seen = HashSet::new();
        for (at, one) in list.iter().enumerate() {
            let source = one.str_at(&["expression"]);
            let field = format!("matchConditions[{at}].expression");
            if source.trim().is_empty() {
                self.errors.push(FieldError::required(field, ""));
            } else if !seen.insert(source.to_owned()) {
                self.errors.push(FieldError::duplicate(field, source));
            } else if let Err(why) = conditions.add(source) {
                self.errors.push(FieldError::invalid(field, source, format!("compilation failed: {why}")));
            }
        }
        conditions
    }

    fn target(&mut self, webhook: &Tree, path: &str) -> Option<Target> {
        let path = format!("{path}.connectionInfo");
        let file = webhook.str_at(&["connectionInfo", "kubeConfigFile"]);
        let field = format!("{path}.kubeConfigFile");
        let fail = match webhook.str_at(&["connectionInfo", "type"]) {
            "" => FieldError::required(format!("{path}.type"), ""),
            "InClusterConfig" => {
                FieldError::invalid(format!("{path}.type"), "InClusterConfig", "this server runs in no pod")
            }
            "KubeConfigFile" if file.is_empty() => FieldError::required(field, ""),
            "KubeConfigFile" if !file.starts_with('/') => FieldError::invalid(field, file, "must be an absolute path"),
            "KubeConfigFile" => match (self.kubeconfig)(file) {
                Ok(target) => return Some(target),
                Err(why) => FieldError::invalid(field, file, format!("error loading file: {why}")),
            },
            other => FieldError::not_supported(format!("{path}.type"), other, &["InClusterConfig", "KubeConfigFile"]),
        };
        self.errors.push(fail);
        None
    }
}

/// What authorizers are made with.
pub struct Building {
    /// Where roles and pods are.
    pub store: Arc<dyn Store>,
    /// The cluster's identity in storage keys.
    pub cluster: String,
    /// The way to webhooks.
    pub outbound: Arc<Outbound>,
    /// Time.
    pub clock: Clock,
    /// What follows the store runs here.
    pub tasks: Tasks,
}

/// Makes the authorizers of `modes`, asked in their order.
///
/// # Errors
/// When the store cannot be read.
pub async fn build(modes: Vec<Mode>, with: &Building) -> Result<Arc<dyn Authorizer>, skiff_store::Error> {
    Ok(Arc::new(Followers::default().union(modes, with).await?))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::outbound::Address;

    #[track_caller]
    fn check(authorizers: &str, expected: Expect) {
        let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n{authorizers}");
        let outcome = read(&text, &|_| Ok(Target::new(Address::Url("https://x".into()))));
        expected.assert_eq(&outcome.map_or_else(|error| error.to_string(), |modes| format!("{} modes", modes.len())));
    }

    #[test]
    fn a_configuration_is_an_ordered_list() {
        check("authorizers: [{type: Node, name: node}, {type: RBAC, name: rbac}]", expect!["2 modes"]);
        check(
            "authorizers:\n- type: Webhook\n  name: w\n  webhook:\n    timeout: 3s\n    subjectAccessReviewVersion: v1\n    \
             matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: Deny\n    connectionInfo: {type: \
             KubeConfigFile, kubeConfigFile: /k}\n    matchConditions:\n    - expression: \"request.user != 'x'\"\n",
            expect!["1 modes"],
        );
    }

    #[test]
    fn what_is_wrong_is_said_in_upstreams_words() {
        check(
            "authorizers: []",
            expect!["authorizers: Required value: at least one authorization mode must be defined"],
        );
        check(
            "authorizers: [{type: Node}, {type: Node, name: b}, {type: X, name: c}, {type: RBAC, name: 'A_', webhook: {}}]",
            expect![[
                r#"[authorizers[0].name: Required value, authorizers[1].type: Duplicate value: "Node", authorizers[2].type: Unsupported value: "X": supported values: "ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook", authorizers[3].name: Invalid value: "A_": authorizer name is invalid: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), authorizers[3].webhook: Invalid value: "non-null": may only be specified when type=Webhook]"#
            ]],
        );
        assert_eq!(
            modes("Node,Node", None, None).unwrap_err().0,
            "authorization-mode \"Node\" has mode specified more than once"
        );
        assert_eq!(modes("Nope", None, None).unwrap_err().0, "authorization-mode \"Nope\" is not a valid mode");
        assert!(modes("Webhook", None, None).is_err());
        assert!(modes("ABAC", None, None).is_err());
        assert!(modes("RBAC", None, Some(Abac::default())).is_err());
        assert_eq!(modes("RBAC,ABAC", None, Some(Abac::default())).unwrap().len(), 2);
    }
}
