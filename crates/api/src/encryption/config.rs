//! `apiserver.config.k8s.io/v1 EncryptionConfiguration`: which resources, which providers, which keys.

use std::time::Duration;

use base64::Engine;
use skiff_object::{Tree, yaml};

use super::ciphers::{Cbc, Cipher, Gcm};

/// A configuration that has been read.
pub(super) struct Configuration {
    pub(super) rules: Vec<ResourceRule>,
}

/// Providers for some resources.
pub(super) struct ResourceRule {
    pub(super) resources: Vec<Pattern>,
    pub(super) providers: Vec<ProviderConfig>,
}

/// `secrets`, `deployments.apps`, `*.apps`, `*.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Everything,
    Group(String),
    Resource { group: String, resource: String },
}

/// A provider as it is written.
pub(super) enum ProviderConfig {
    Identity,
    Keys { prefix: &'static str, keys: Vec<(String, Cipher)> },
    Kms { name: String, socket: String, timeout: Duration },
}

/// Prefixes of stored values.
pub(super) const AESCBC: &str = "k8s:enc:aescbc:v1:";
pub(super) const AESGCM: &str = "k8s:enc:aesgcm:v1:";
pub(super) const SECRETBOX: &str = "k8s:enc:secretbox:v1:";
pub(super) const KMS_V2: &str = "k8s:enc:kms:v2:";
/// What every encrypted value begins with.
pub(super) const ENCRYPTED: &[u8] = b"k8s:enc:";

/// Upstream's default of `kms.timeout`.
const KMS_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest name of a KMS provider; it stands before every value.
const KMS_NAME_BYTES_MAX: usize = 253;

impl Configuration {
    /// Reads a configuration.
    ///
    /// # Errors
    /// The first thing that is wrong, with its field.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let tree = yaml::decode_untyped(text).map_err(|error| format!("not YAML: {error}"))?;
        let (version, kind) = (tree.str_at(&["apiVersion"]), tree.str_at(&["kind"]));
        if kind != "EncryptionConfiguration" || version != "apiserver.config.k8s.io/v1" {
            return Err(format!("got unexpected config type: {version}, Kind={kind}"));
        }
        let rules = tree.list_at(&["resources"]);
        if rules.is_empty() {
            return Err("resources: Required value: empty resources".into());
        }
        let rules = rules.iter().enumerate().map(|(at, rule)| ResourceRule::parse(rule, &format!("resources[{at}]")));
        let parsed = Self { rules: rules.collect::<Result<_, _>>()? };
        parsed.check_masked()?;
        Ok(parsed)
    }

    /// A rule that comes after a wildcard of its own would never be asked.
    fn check_masked(&self) -> Result<(), String> {
        for (at, rule) in self.rules.iter().enumerate() {
            for pattern in &rule.resources {
                let earlier = self.rules[..at].iter().flat_map(|earlier| &earlier.resources);
                if let Some(mask) =
                    earlier.filter(|earlier| *earlier != pattern).find(|earlier| earlier.covers(pattern))
                {
                    return Err(format!("resource {:?} is masked by earlier rule {:?}", pattern.text(), mask.text()));
                }
            }
        }
        Ok(())
    }
}

impl Pattern {
    fn parse(text: &str, path: &str) -> Result<Self, String> {
        match text.split_once('.') {
            Some(("*", "*")) => Ok(Self::Everything),
            Some(("*", group)) => Ok(Self::Group(group.to_owned())),
            _ if text == "*" => Err(format!(
                "{path}: Invalid value: \"*\": use '*.' to encrypt all the resources from core API group or \
                             *.* to encrypt all resources"
            )),
            _ if text.is_empty() => Err(format!("{path}: Required value")),
            _ if text.contains('*') => {
                Err(format!("{path}: Invalid value: {text:?}: wildcards stand alone before the dot"))
            }
            _ if text.chars().any(|letter| letter.is_ascii_uppercase()) => {
                Err(format!("{path}: Invalid value: {text:?}: resource name should be lowercase"))
            }
            Some((resource, group)) => Ok(Self::Resource { group: group.to_owned(), resource: resource.to_owned() }),
            None => Ok(Self::Resource { group: String::new(), resource: text.to_owned() }),
        }
    }

    /// Whether the resource is meant.
    pub(super) fn matches(&self, group: &str, resource: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Group(own) => own == group,
            Self::Resource { group: own, resource: name } => own == group && name == resource,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everything, _) => true,
            (Self::Group(group), Self::Group(other) | Self::Resource { group: other, .. }) => group == other,
            _ => false,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Everything => "*.*".into(),
            Self::Group(group) => format!("*.{group}"),
            Self::Resource { group, resource } if group.is_empty() => resource.clone(),
            Self::Resource { group, resource } => format!("{resource}.{group}"),
        }
    }
}

impl ResourceRule {
    fn parse(tree: &Tree, path: &str) -> Result<Self, String> {
        let names = tree.list_at(&["resources"]);
        if names.is_empty() {
            return Err(format!("{path}.resources: Required value"));
        }
        let resources = names
            .iter()
            .enumerate()
            .map(|(at, name)| Pattern::parse(name.as_str().unwrap_or(""), &format!("{path}.resources[{at}]")))
            .collect::<Result<_, _>>()?;
        let providers = tree.list_at(&["providers"]);
        if providers.is_empty() {
            return Err(format!("{path}.providers: Required value"));
        }
        let providers = providers
            .iter()
            .enumerate()
            .map(|(at, provider)| ProviderConfig::parse(provider, &format!("{path}.providers[{at}]")))
            .collect::<Result<_, _>>()?;
        Ok(Self { resources, providers })
    }
}

impl ProviderConfig {
    fn parse(tree: &Tree, path: &str) -> Result<Self, String> {
        let Tree::Map(map) = tree else { return Err(format!("{path}: Required value: no provider")) };
        let mut names = map.keys().map(skiff_object::Key::as_str);
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(format!("{path}: Invalid value: exactly one provider stands in an entry"));
        };
        let provider = tree.get(name).unwrap_or(&Tree::Null);
        let keys = |prefix, make: fn(&[u8]) -> Option<Cipher>, sizes: &str| {
            keys(provider, &format!("{path}.{name}.keys"), make, sizes).map(|keys| Self::Keys { prefix, keys })
        };
        match name {
            "identity" => Ok(Self::Identity),
            "aescbc" => keys(AESCBC, |key| Cbc::new(key).map(Cipher::Cbc), "[16 24 32]"),
            "aesgcm" => keys(AESGCM, |key| Gcm::new(key).map(Cipher::Gcm), "[16 24 32]"),
            "secretbox" => keys(SECRETBOX, Cipher::secretbox, "[32]"),
            "kms" => Self::parse_kms(provider, &format!("{path}.kms")),
            other => Err(format!("{path}: unknown field {other:?}")),
        }
    }

    fn parse_kms(tree: &Tree, path: &str) -> Result<Self, String> {
        if tree.str_at(&["apiVersion"]) != "v2" {
            return Err(format!(
                "{path}.apiVersion: Invalid value: {:?}: KMSv1 is deprecated and not served; use v2",
                tree.str_at(&["apiVersion"])
            ));
        }
        let name = tree.str_at(&["name"]);
        if name.is_empty() {
            return Err(format!("{path}.name: Required value: kms provider name must be specified"));
        }
        if name.contains(':') || name.len() > KMS_NAME_BYTES_MAX {
            return Err(format!(
                "{path}.name: Invalid value: {name:?}: invalid KMS provider name, must not contain ':'"
            ));
        }
        if tree.int_at(&["cachesize"]).is_some() {
            return Err(format!("{path}.cachesize: Invalid value: cachesize is not supported in v2"));
        }
        let endpoint = tree.str_at(&["endpoint"]);
        let socket = endpoint
            .strip_prefix("unix://")
            .filter(|socket| socket.starts_with('/') || socket.starts_with('@'))
            .ok_or_else(|| {
                format!(
                    "{path}.endpoint: Invalid value: {endpoint:?}: unsupported scheme for endpoint, use unix:///path"
                )
            })?;
        let timeout =
            match tree.str_at(&["timeout"]) {
                "" => KMS_TIMEOUT,
                text => {
                    let nanos = skiff_object::time::parse_duration(text)
                        .map_err(|error| format!("{path}.timeout: Invalid value: {error}"))?;
                    let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos > 0);
                    Duration::from_nanos(nanos.ok_or_else(|| {
                        format!("{path}.timeout: Invalid value: {text:?}: should be a positive value")
                    })?)
                }
            };
        Ok(Self::Kms { name: name.to_owned(), socket: socket.to_owned(), timeout })
    }
}

fn keys(
    tree: &Tree,
    path: &str,
    make: fn(&[u8]) -> Option<Cipher>,
    sizes: &str,
) -> Result<Vec<(String, Cipher)>, String> {
    let list = tree.list_at(&["keys"]);
    if list.is_empty() {
        return Err(format!("{path}: Required value: at least one key is required"));
    }
    list.iter()
        .enumerate()
        .map(|(at, key)| {
            let name = key.str_at(&["name"]);
            if name.is_empty() || name.contains(':') {
                return Err(format!("{path}[{at}].name: Invalid value: {name:?}: a name without ':' is required"));
            }
            // The secret itself stands in no message.
            let secret = base64::engine::general_purpose::STANDARD.decode(key.str_at(&["secret"])).map_err(|_| {
                format!("{path}[{at}].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded")
            })?;
            let cipher = make(&secret).ok_or_else(|| {
                format!(
                    "{path}[{at}].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got {}, \
                     expected one of {sizes}",
                    secret.len()
                )
            })?;
            Ok((name.to_owned(), cipher))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(resources: &str) -> String {
        let text =
            format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: {resources}");
        Configuration::parse(text.as_bytes()).err().unwrap_or_default()
    }

    #[test]
    fn what_is_wrong_is_named_and_secrets_are_not() {
        for (resources, expected) in [
            ("[]", "resources: Required value"),
            ("[{resources: [secrets], providers: []}]", "resources[0].providers: Required value"),
            ("[{resources: ['*'], providers: [{identity: {}}]}]", "use '*.' to encrypt"),
            (
                "[{resources: [secrets], providers: [{aescbc: {keys: [{name: a, secret: c2hvcnQ=}]}}]}]",
                "resources[0].providers[0].aescbc.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the \
                 expected length, got 5, expected one of [16 24 32]",
            ),
            ("[{resources: [secrets], providers: [{kms: {name: a, endpoint: 'unix:///a'}}]}]", "KMSv1 is deprecated"),
            (
                "[{resources: [secrets], providers: [{kms: {apiVersion: v2, name: a, endpoint: 'tcp://a'}}]}]",
                "unsupported scheme",
            ),
            (
                "[{resources: ['*.apps'], providers: [{identity: {}}]}, {resources: [deployments.apps], providers: \
                 [{identity: {}}]}]",
                "resource \"deployments.apps\" is masked by earlier rule \"*.apps\"",
            ),
            ("[{resources: [secrets], providers: [{rot13: {}}]}]", "unknown field \"rot13\""),
        ] {
            let error = error(resources);
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(error("[{resources: [secrets, '*.', '*.apps'], providers: [{identity: {}}]}]"), "");
    }
}
