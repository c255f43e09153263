//! Environment variables: `$(VAR)` expansion, all sources, and the variables of services.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{ConfigMap, Container, ObjectFieldSelector, ResourceFieldSelector, Secret, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::PodView;
use crate::resources::{Amounts, Side, amount, milli, units};

/// Why a container's configuration cannot be made: the reason `CreateContainerConfigError`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

/// The objects a container's variables come from.
pub(crate) struct Sources<'a> {
    pub(crate) config_maps: &'a HashMap<String, Option<ConfigMap>>,
    pub(crate) secrets: &'a HashMap<String, Option<Secret>>,
    pub(crate) services: &'a BTreeMap<String, String>,
    pub(crate) pod: &'a PodView,
    pub(crate) pod_ips: &'a [String],
    pub(crate) host_ips: &'a [String],
    pub(crate) allocatable: &'a Amounts,
}

/// Expands `$(NAME)` from `lookup`; `$$` is a dollar, unknown names stay as they are.
pub(crate) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('(') {
            match inner.find(')') {
                Some(end) => {
                    let name = &inner[..end];
                    match lookup(name) {
                        Some(value) => out.push_str(&value),
                        None => out.push_str(&format!("$({name})")),
                    }
                    rest = &inner[end + 1..];
                }
                None => {
                    out.push_str("$(");
                    rest = inner;
                }
            }
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The container's variables in their order, service variables first.
pub(crate) fn variables(container: &Container, sources: &Sources<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let mut result: Vec<(String, String)> = Vec::new();
    let mut values: HashMap<String, String> = HashMap::new();
    add_env_from(container, sources, &mut result, &mut values)?;
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(from)) => match from_source(container, from, sources)? {
                Some(value) => value,
                None => continue,
            },
            (Some(value), None) => {
                expand(value, &|name| values.get(name).or_else(|| sources.services.get(name)).cloned())
            }
            (None, None) => String::new(),
        };
        set(&mut result, &mut values, variable.name.clone(), value);
    }
    let mut all: Vec<(String, String)> = sources
        .services
        .iter()
        .filter(|(name, _)| !values.contains_key(*name))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    all.append(&mut result);
    Ok(all)
}

fn set(result: &mut Vec<(String, String)>, values: &mut HashMap<String, String>, name: String, value: String) {
    if values.insert(name.clone(), value.clone()).is_some() {
        result.retain(|(existing, _)| *existing != name);
    }
    result.push((name, value));
}

fn add_env_from(
    container: &Container,
    sources: &Sources<'_>,
    result: &mut Vec<(String, String)>,
    values: &mut HashMap<String, String>,
) -> Result<(), ConfigError> {
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let pairs: Vec<(String, String)> = if let Some(reference) = &from.config_map_ref {
            let found = sources.config_maps.get(&reference.name).and_then(Option::as_ref);
            match found {
                Some(map) => map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
                None if reference.optional.unwrap_or(false) => continue,
                None => return Err(ConfigError(format!("configmap \"{}\" not found", reference.name))),
            }
        } else if let Some(reference) = &from.secret_ref {
            let found = sources.secrets.get(&reference.name).and_then(Option::as_ref);
            match found {
                Some(secret) => secret_text(secret).collect(),
                None if reference.optional.unwrap_or(false) => continue,
                None => return Err(ConfigError(format!("secret \"{}\" not found", reference.name))),
            }
        } else {
            continue;
        };
        for (key, value) in pairs {
            let name = format!("{prefix}{key}");
            // Since 1.34 every printable ASCII name without `=` is a variable (KEP-4369).
            if !name.is_empty() && name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=') {
                set(result, values, name, value);
            }
        }
    }
    Ok(())
}

fn secret_text(secret: &Secret) -> impl Iterator<Item = (String, String)> + '_ {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
}

fn from_source(
    container: &Container,
    from: &k8s_openapi::api::core::v1::EnvVarSource,
    sources: &Sources<'_>,
) -> Result<Option<String>, ConfigError> {
    if let Some(field) = &from.field_ref {
        return field_value(field, sources).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return resource_value(resource, container, sources.pod, sources.allocatable).map(Some);
    }
    if let Some(reference) = &from.config_map_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let namespace = &sources.pod.namespace;
        return match sources.config_maps.get(&reference.name).and_then(Option::as_ref) {
            None if optional => Ok(None),
            None => Err(ConfigError(format!("configmap \"{}\" not found", reference.name))),
            Some(map) => match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(ConfigError(format!(
                    "couldn't find key {} in ConfigMap {namespace}/{}",
                    reference.key, reference.name
                ))),
            },
        };
    }
    if let Some(reference) = &from.secret_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let namespace = &sources.pod.namespace;
        return match sources.secrets.get(&reference.name).and_then(Option::as_ref) {
            None if optional => Ok(None),
            None => Err(ConfigError(format!("secret \"{}\" not found", reference.name))),
            Some(secret) => match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => Err(ConfigError(format!(
                    "couldn't find key {} in Secret {namespace}/{}",
                    reference.key, reference.name
                ))),
            },
        };
    }
    Err(ConfigError("the variable's source is not supported by this node".into()))
}

fn field_value(field: &ObjectFieldSelector, sources: &Sources<'_>) -> Result<String, ConfigError> {
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    match field.field_path.as_str() {
        "spec.nodeName" => Ok(sources.pod.spec().node_name.clone().unwrap_or_default()),
        "spec.serviceAccountName" => Ok(sources.pod.spec().service_account_name.clone().unwrap_or_default()),
        "status.hostIP" => Ok(first(sources.host_ips)),
        "status.hostIPs" => Ok(sources.host_ips.join(",")),
        "status.podIP" => Ok(first(sources.pod_ips)),
        "status.podIPs" => Ok(sources.pod_ips.join(",")),
        path => metadata_field(path, sources.pod),
    }
}

/// The metadata fields that both variables and downward API files offer.
pub(crate) fn metadata_field(path: &str, pod: &PodView) -> Result<String, ConfigError> {
    let format_map = |map: Option<&BTreeMap<String, String>>| {
        map.into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", go_quote(value)))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let meta = &pod.pod.metadata;
    match path {
        "metadata.name" => Ok(pod.name.clone()),
        "metadata.namespace" => Ok(pod.namespace.clone()),
        "metadata.uid" => Ok(pod.uid.clone()),
        "metadata.labels" => Ok(format_map(meta.labels.as_ref())),
        "metadata.annotations" => Ok(format_map(meta.annotations.as_ref())),
        _ => {
            let subscript = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
            if let Some(key) = subscript("metadata.labels") {
                return Ok(meta.labels.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
            }
            if let Some(key) = subscript("metadata.annotations") {
                return Ok(meta.annotations.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
            }
            Err(ConfigError(format!("unsupported fieldPath: {path}")))
        }
    }
}

/// Go's `%q`, which the downward API's files use for values.
fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `limits.cpu` and its kin, divided by the divisor and rounded up; a missing limit is the
/// node's allocatable amount.
pub(crate) fn resource_value(
    selector: &ResourceFieldSelector,
    container: &Container,
    pod: &PodView,
    allocatable: &Amounts,
) -> Result<String, ConfigError> {
    let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => &pod.container(name).ok_or_else(|| ConfigError(format!("container {name} not found")))?.container,
        None => container,
    };
    let unsupported = || ConfigError(format!("unsupported container resource : {}", selector.resource));
    let (side, name) = match selector.resource.split_once('.') {
        Some(("limits", name)) => (Side::Limits, name),
        Some(("requests", name)) => (Side::Requests, name),
        _ => return Err(unsupported()),
    };
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        return Err(unsupported());
    }
    let quantity = match (amount(container.resources.as_ref(), side, name), side) {
        (Some(quantity), _) => quantity,
        (None, Side::Limits) => allocatable.get(name).cloned().unwrap_or_else(|| Quantity("0".into())),
        (None, Side::Requests) => Quantity("0".into()),
    };
    let divisor = selector.divisor.clone().filter(|divisor| !matches!(divisor.0.as_str(), "" | "0"));
    let bad = || ConfigError(format!("invalid quantity in {}", selector.resource));
    let (value, divisor) = if name == "cpu" {
        let divisor = divisor.unwrap_or_else(|| Quantity("1".into()));
        (milli(&quantity).ok_or_else(bad)?, milli(&divisor).ok_or_else(bad)?)
    } else {
        let divisor = divisor.unwrap_or_else(|| Quantity("1".into()));
        (units(&quantity).ok_or_else(bad)?, units(&divisor).ok_or_else(bad)?)
    };
    let divisor = divisor.max(1);
    Ok(((value + divisor - 1) / divisor).to_string())
}

/// The `{NAME}_SERVICE_HOST` family for the services a pod sees: those of its namespace when it
/// enables service links, and always the API server's own.
pub(crate) fn service_variables(services: &[&Service], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for service in services {
        let own_namespace = service.metadata.namespace.as_deref() == Some(namespace);
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let master = service.metadata.namespace.as_deref() == Some("default") && name == "kubernetes";
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !matches!(*ip, "" | "None")) else { continue };
        if spec.type_.as_deref() == Some("ExternalName") || !(own_namespace && links || master) {
            continue;
        }
        let Some(first) = spec.ports.iter().flatten().next() else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        out.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        out.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                out.insert(
                    format!("{prefix}_SERVICE_PORT_{}", name.to_uppercase().replace('-', "_")),
                    port.port.to_string(),
                );
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                out.insert(format!("{prefix}_PORT"), url.clone());
            }
            let base = format!("{prefix}_PORT_{}_{protocol}", port.port);
            out.insert(format!("{base}_PROTO"), protocol.to_lowercase());
            out.insert(format!("{base}_PORT"), port.port.to_string());
            out.insert(format!("{base}_ADDR"), ip.to_owned());
            out.insert(base, url);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &str) {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        assert_eq!(expand(text, &lookup), want, "{text}");
    }

    #[test]
    fn references_expand_and_unknown_ones_stay() {
        check("$(A)", "1");
        check("x$(A)y$(B)", "x1y$(B)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$1");
        check("$A", "$A");
        check("$(A", "$(A");
        check("$", "$");
        check("$$$$", "$$");
    }
}
