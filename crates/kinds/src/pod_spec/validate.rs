//! What must hold for a pod spec, with upstream's paths and words.

use std::collections::HashSet;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::quantity::Quantity;
use skiff_object::{Map, Tree, name, net};

use super::placement::{affinity, spread_constraints, toleration};
use crate::checks::{Found, invalid, invalid_number, maybe_one_of, not_negative, one_of, port, positive, required};

/// Everything wrong with a pod template.
pub(crate) fn template(found: &mut Found, template: &Tree, path: Path<'_>) {
    let metadata = path.child("metadata");
    found.extend(name::labels(template.at(&["metadata", "labels"]), metadata.child("labels")));
    found.extend(name::annotations(template.at(&["metadata", "annotations"]), metadata.child("annotations")));
    spec(found, template.get("spec").unwrap_or(&Tree::Null), path.child("spec"));
}

/// As [`template`] for workloads that keep their pods running.
pub(crate) fn running_template(found: &mut Found, object: &Tree, kind: &str) {
    let spec_path = Path::new("spec");
    let path = spec_path.child("template");
    let template_tree = object.at(&["spec", "template"]).unwrap_or(&Tree::Null);
    template(found, template_tree, path);
    let policy = template_tree.str_at(&["spec", "restartPolicy"]);
    let spec_path = path.child("spec");
    if policy != "Always" {
        found.push(FieldError::not_supported(spec_path.child("restartPolicy"), policy, &["Always"]));
    }
    if template_tree.int_at(&["spec", "activeDeadlineSeconds"]).is_some() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        found.push(FieldError::forbidden(spec_path.child("activeDeadlineSeconds"), why));
    }
}

/// Everything wrong with a pod spec.
pub(crate) fn spec(found: &mut Found, spec: &Tree, path: Path<'_>) {
    let volumes = volumes(found, spec.list_at(&["volumes"]), path.child("volumes"));
    containers(found, spec, &volumes, path);
    one_of(found, spec, "restartPolicy", path, &["Always", "OnFailure", "Never"]);
    one_of(found, spec, "dnsPolicy", path, &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]);
    found.extend(name::labels(spec.get("nodeSelector"), path.child("nodeSelector")));
    security(found, spec.get("securityContext"), path.child("securityContext"));
    affinity(found, spec.get("affinity").unwrap_or(&Tree::Null), path.child("affinity"));
    dns_config(found, spec, path);
    for (field, check) in [
        ("serviceAccountName", name::dns1123_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", name::dns1123_subdomain),
        ("hostname", name::dns1123_label),
        ("subdomain", name::dns1123_label),
        ("priorityClassName", name::dns1123_subdomain),
        ("runtimeClassName", name::dns1123_subdomain),
    ] {
        let value = spec.str_at(&[field]);
        if !value.is_empty() {
            invalid(found, path.child(field), value, check(value));
        }
    }
    if let Some(seconds) = spec.int_at(&["activeDeadlineSeconds"]) {
        let range = name::in_range(seconds, 1, i64::from(i32::MAX));
        invalid_number(found, path.child("activeDeadlineSeconds"), seconds, range);
    }
    not_negative(found, spec, "terminationGracePeriodSeconds", path);
    maybe_one_of(found, spec, "preemptionPolicy", path, &["Never", "PreemptLowerPriority"]);
    let tolerations = path.child("tolerations");
    for (index, one) in spec.list_at(&["tolerations"]).iter().enumerate() {
        toleration(found, one, tolerations.index(index));
    }
    let aliases = path.child("hostAliases");
    for (index, alias) in spec.list_at(&["hostAliases"]).iter().enumerate() {
        let path = aliases.index(index);
        invalid(found, path.child("ip"), alias.str_at(&["ip"]), net::ip(alias.str_at(&["ip"])));
        for host in alias.list_at(&["hostnames"]).iter().filter_map(Tree::as_str) {
            invalid(found, path.child("hostnames"), host, name::dns1123_subdomain(host));
        }
    }
    spread_constraints(found, spec, path.child("topologySpreadConstraints"));
    gates(found, spec, path);
}

fn gates(found: &mut Found, spec: &Tree, path: Path<'_>) {
    for (list, field) in [("readinessGates", "conditionType"), ("schedulingGates", "name")] {
        let list_path = path.child(list);
        let mut seen = HashSet::new();
        for (index, gate) in spec.list_at(&[list]).iter().enumerate() {
            let value = gate.str_at(&[field]);
            let path = list_path.index(index);
            invalid(found, path.child(field), value, name::qualified_name(value));
            if list == "schedulingGates" && !seen.insert(value) {
                found.push(FieldError::duplicate(path, value));
            }
        }
    }
}

const NOT_SOURCES: [&str; 1] = ["name"];

fn volumes<'t>(found: &mut Found, volumes: &'t [Tree], path: Path<'_>) -> HashSet<&'t str> {
    let mut names = HashSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        if let Some(text) = required(found, volume, "name", path) {
            invalid(found, path.child("name"), text, name::dns1123_label(text));
            if !names.insert(text) {
                found.push(FieldError::duplicate(path.child("name"), text));
            }
        }
        let sources = volume.as_map().into_iter().flat_map(Map::iter);
        let mut sources = sources.filter(|(key, value)| !NOT_SOURCES.contains(&key.as_str()) && !value.is_null());
        match sources.next() {
            None => found.push(FieldError::required(path, "must specify a volume type")),
            Some((key, source)) => volume_source(found, key.as_str(), source, path.child(key.as_str())),
        }
        for (key, _) in sources {
            found.push(FieldError::forbidden(path.child(key.as_str()), "may not specify more than 1 volume type"));
        }
    }
    names
}

fn volume_source(found: &mut Found, kind: &str, source: &Tree, path: Path<'_>) {
    match kind {
        "hostPath" => {
            required(found, source, "path", path);
            backsteps(found, source, "path", path);
        }
        "secret" => {
            required(found, source, "secretName", path);
        }
        "configMap" => {
            required(found, source, "name", path);
        }
        "persistentVolumeClaim" => {
            required(found, source, "claimName", path);
        }
        "nfs" => {
            required(found, source, "server", path);
            required(found, source, "path", path);
        }
        "csi" => {
            required(found, source, "driver", path);
        }
        _ => {}
    }
    mode(found, source, "defaultMode", path);
    let items = path.child("items");
    for (index, item) in source.list_at(&["items"]).iter().enumerate() {
        let path = items.index(index);
        if kind != "downwardAPI" {
            required(found, item, "key", path);
        }
        if let Some(text) = required(found, item, "path", path) {
            descending(found, text, path.child("path"));
        }
        mode(found, item, "mode", path);
    }
}

fn mode(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    if let Some(mode) = object.int_at(&[field]).filter(|mode| !(0..=0o777).contains(mode)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        found.push(FieldError::invalid(path.child(field), mode, why));
    }
}

fn backsteps(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    let text = object.str_at(&[field]);
    if text.split('/').any(|part| part == "..") {
        found.push(FieldError::invalid(path.child(field), text, "must not contain '..'"));
    }
}

fn descending(found: &mut Found, text: &str, path: Path<'_>) {
    if text.starts_with('/') {
        found.push(FieldError::invalid(path, text, "must be a relative path"));
    }
    if text.split('/').any(|part| part == "..") {
        found.push(FieldError::invalid(path, text, "must not contain '..'"));
    }
}

fn containers(found: &mut Found, spec: &Tree, volumes: &HashSet<&str>, path: Path<'_>) {
    if spec.list_at(&["containers"]).is_empty() {
        found.push(FieldError::required(path.child("containers"), ""));
    }
    let mut names = HashSet::new();
    let mut host_ports = HashSet::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let list_path = path.child(list);
        for (index, one) in spec.list_at(&[list]).iter().enumerate() {
            let path = list_path.index(index);
            container(found, one, volumes, path);
            let text = one.str_at(&["name"]);
            if !text.is_empty() && !names.insert(text) {
                found.push(FieldError::duplicate(path.child("name"), text));
            }
            let sidecar = one.str_at(&["restartPolicy"]) == "Always";
            if list == "initContainers" && !sidecar {
                let why = "may not be set for init containers without restartPolicy=Always";
                for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                    if one.get(field).is_some_and(|value| !value.is_null()) {
                        found.push(FieldError::forbidden(path.child(field), why));
                    }
                }
            } else {
                probes(found, one, path);
            }
            if list == "containers" {
                conflicting_ports(found, one, &mut host_ports, path.child("ports"));
            }
        }
    }
}

fn conflicting_ports<'t>(
    found: &mut Found,
    container: &'t Tree,
    taken: &mut HashSet<(&'t str, &'t str, i64)>,
    path: Path<'_>,
) {
    for (index, port) in container.list_at(&["ports"]).iter().enumerate() {
        let number = port.int_at(&["hostPort"]).unwrap_or(0);
        let key = (port.str_at(&["protocol"]), port.str_at(&["hostIP"]), number);
        if number != 0 && !taken.insert(key) {
            let value = BadValue::Text(format!("{}/{}/{number}", key.0, key.1));
            found.push(FieldError::duplicate(path.index(index).child("hostPort"), value));
        }
    }
}

fn container(found: &mut Found, container: &Tree, volumes: &HashSet<&str>, path: Path<'_>) {
    if let Some(text) = required(found, container, "name", path) {
        invalid(found, path.child("name"), text, name::dns1123_label(text));
    }
    if let Some(image) = required(found, container, "image", path)
        && image.trim() != image
    {
        let why = "must not have leading or trailing whitespace";
        found.push(FieldError::invalid(path.child("image"), image, why));
    }
    one_of(found, container, "terminationMessagePolicy", path, &["FallbackToLogsOnError", "File"]);
    ports(found, container.list_at(&["ports"]), path.child("ports"));
    env(found, container.list_at(&["env"]), path.child("env"));
    env_from(found, container.list_at(&["envFrom"]), path.child("envFrom"));
    mounts(found, container.list_at(&["volumeMounts"]), volumes, path.child("volumeMounts"));
    one_of(found, container, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"]);
    resources(found, container.get("resources"), path.child("resources"));
    let context = container.get("securityContext");
    let path = path.child("securityContext");
    security(found, context, path);
    let flag = |field: &str| context.and_then(|context| context.bool_at(&[field]));
    if flag("privileged") == Some(true) && flag("allowPrivilegeEscalation") == Some(false) {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        found.push(FieldError::invalid(path, BadValue::from(context), why));
    }
}

fn ports(found: &mut Found, ports: &[Tree], path: Path<'_>) {
    let mut names = HashSet::new();
    for (index, one) in ports.iter().enumerate() {
        let path = path.index(index);
        let text = one.str_at(&["name"]);
        if !text.is_empty() {
            let wrong = name::port_name(text);
            if wrong.is_empty() && !names.insert(text) {
                found.push(FieldError::duplicate(path.child("name"), text));
            }
            invalid(found, path.child("name"), text, wrong);
        }
        match one.int_at(&["containerPort"]).unwrap_or(0) {
            0 => found.push(FieldError::required(path.child("containerPort"), "")),
            number => invalid_number(found, path.child("containerPort"), number, name::port_number(number)),
        }
        if let Some(number) = one.int_at(&["hostPort"]).filter(|number| *number != 0) {
            invalid_number(found, path.child("hostPort"), number, name::port_number(number));
        }
        one_of(found, one, "protocol", path, &["SCTP", "TCP", "UDP"]);
    }
}

fn env(found: &mut Found, env: &[Tree], path: Path<'_>) {
    for (index, one) in env.iter().enumerate() {
        let path = path.index(index);
        if let Some(text) = required(found, one, "name", path) {
            invalid(found, path.child("name"), text, name::env_var_name(text));
        }
        let Some(source) = one.get("valueFrom").and_then(Tree::as_map) else { continue };
        let path = path.child("valueFrom");
        let sources: Vec<_> = source.iter().filter(|(_, value)| !value.is_null()).collect();
        for (kind, source) in &sources {
            let path = path.child(kind.as_str());
            match kind.as_str() {
                "fieldRef" => {
                    required(found, source, "fieldPath", path);
                }
                "resourceFieldRef" => {
                    required(found, source, "resource", path);
                }
                "configMapKeyRef" | "secretKeyRef" => {
                    required(found, source, "name", path);
                    if let Some(key) = required(found, source, "key", path) {
                        invalid(found, path.child("key"), key, name::config_map_key(key));
                    }
                }
                _ => {}
            }
        }
        let why = match (sources.len(), one.str_at(&["value"])) {
            (0, _) => {
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            }
            (_, value) if !value.is_empty() => "may not be specified when `value` is not empty",
            (1, _) => continue,
            _ => "may not have more than one field specified at a time",
        };
        found.push(FieldError::invalid(path, "", why));
    }
}

fn env_from(found: &mut Found, sources: &[Tree], path: Path<'_>) {
    for (index, one) in sources.iter().enumerate() {
        let path = path.index(index);
        let prefix = one.str_at(&["prefix"]);
        if !prefix.is_empty() {
            invalid(found, path.child("prefix"), prefix, name::env_var_name(prefix));
        }
        let given: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|kind| one.get(kind).is_some_and(|source| !source.is_null()))
            .collect();
        for kind in &given {
            if one.str_at(&[kind, "name"]).is_empty() {
                found.push(FieldError::required(path.child(kind).child("name"), ""));
            }
        }
        match given.len() {
            0 => found.push(FieldError::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => found.push(FieldError::invalid(path, "", "may not have more than one field specified at a time")),
        }
    }
}

fn mounts(found: &mut Found, mounts: &[Tree], volumes: &HashSet<&str>, path: Path<'_>) {
    let mut places = HashSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        let path = path.index(index);
        let text = mount.str_at(&["name"]);
        if text.is_empty() {
            found.push(FieldError::required(path.child("name"), ""));
        }
        if !volumes.contains(text) {
            found.push(FieldError::not_found(path.child("name"), text));
        }
        if let Some(place) = required(found, mount, "mountPath", path)
            && !places.insert(place)
        {
            found.push(FieldError::invalid(path.child("mountPath"), place, "must be unique"));
        }
        for field in ["subPath", "subPathExpr"] {
            let text = mount.str_at(&[field]);
            if !text.is_empty() {
                descending(found, text, path.child(field));
            }
        }
        let both = !mount.str_at(&["subPath"]).is_empty() && !mount.str_at(&["subPathExpr"]).is_empty();
        if both {
            let value = mount.str_at(&["subPathExpr"]);
            let why = "subPathExpr and subPath are mutually exclusive";
            found.push(FieldError::invalid(path.child("subPathExpr"), value, why));
        }
    }
}

/// Limits and requests: known names, no negative amounts, requests within limits.
pub(crate) fn resources(found: &mut Found, resources: Option<&Tree>, path: Path<'_>) {
    let Some(resources) = resources else { return };
    let parsed = |value: &Tree| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    for list in ["limits", "requests"] {
        let list_path = path.child(list);
        for (key, value) in resources.get(list).and_then(Tree::as_map).into_iter().flat_map(Map::iter) {
            let key = key.as_str();
            let path = list_path.key(key);
            resource_name(found, key, path);
            let Some(amount) = parsed(value) else { continue };
            if amount.is_negative() {
                let why = "must be greater than or equal to 0";
                found.push(FieldError::invalid(path, amount.to_string(), why));
            }
            if key.contains('/') && !amount.is_whole() {
                found.push(FieldError::invalid(path, amount.to_string(), "must be an integer"));
            }
        }
    }
    for (key, value) in resources.get("requests").and_then(Tree::as_map).into_iter().flat_map(Map::iter) {
        let limit = resources.at(&["limits", key.as_str()]).and_then(parsed);
        if let (Some(request), Some(limit)) = (parsed(value), limit)
            && request > limit
        {
            let why = format!("must be less than or equal to {} limit of {limit}", key.as_str());
            found.push(FieldError::invalid(path.child("requests"), request.to_string(), why));
        }
    }
}

fn resource_name(found: &mut Found, text: &str, path: Path<'_>) {
    let wrong = name::qualified_name(text);
    let malformed = !wrong.is_empty();
    invalid(found, path, text, wrong);
    let standard = matches!(text, "cpu" | "memory" | "ephemeral-storage") || text.starts_with("hugepages-");
    if !malformed && !text.contains('/') && !standard {
        for why in ["must be a standard resource type or fully qualified", "must be a standard resource for containers"]
        {
            found.push(FieldError::invalid(path, text, why));
        }
    }
}

fn probes(found: &mut Found, container: &Tree, path: Path<'_>) {
    let lifecycle = path.child("lifecycle");
    for hook in ["postStart", "preStop"] {
        if let Some(action) = container.at(&["lifecycle", hook]).filter(|action| !action.is_null()) {
            handler(found, action, lifecycle.child(hook));
        }
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get(field).filter(|probe| !probe.is_null()) else { continue };
        let path = path.child(field);
        handler(found, probe, path);
        for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            not_negative(found, probe, number, path);
        }
        positive(found, probe, "terminationGracePeriodSeconds", path);
        if field == "readinessProbe" {
            if probe.int_at(&["terminationGracePeriodSeconds"]).is_some() {
                let value = BadValue::from(probe.get("terminationGracePeriodSeconds"));
                let why = "must not be set for readinessProbes";
                found.push(FieldError::invalid(path.child("terminationGracePeriodSeconds"), value, why));
            }
        } else if let Some(number) = probe.int_at(&["successThreshold"]).filter(|number| *number != 1) {
            found.push(FieldError::invalid(path.child("successThreshold"), number, "must be 1"));
        }
    }
}

fn handler(found: &mut Found, handler: &Tree, path: Path<'_>) {
    let mut given = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = handler.get(kind).filter(|action| !action.is_null()) else { continue };
        let path = path.child(kind);
        given += 1;
        if given > 1 {
            found.push(FieldError::forbidden(path, "may not specify more than 1 handler type"));
            continue;
        }
        match kind {
            "exec" if action.list_at(&["command"]).is_empty() => {
                found.push(FieldError::required(path.child("command"), ""));
            }
            "httpGet" => {
                required(found, action, "path", path);
                port(found, action.get("port"), path.child("port"));
                one_of(found, action, "scheme", path, &["HTTP", "HTTPS"]);
                let headers = path.child("httpHeaders");
                for header in action.list_at(&["httpHeaders"]) {
                    let text = header.str_at(&["name"]);
                    invalid(found, headers, text, name::http_header_name(text));
                }
            }
            "tcpSocket" | "grpc" => port(found, action.get("port"), path.child("port")),
            _ => {}
        }
    }
    if given == 0 {
        found.push(FieldError::required(path, "must specify a handler type"));
    }
}

fn security(found: &mut Found, context: Option<&Tree>, path: Path<'_>) {
    let Some(context) = context else { return };
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(id) = context.int_at(&[field]) {
            invalid_number(found, path.child(field), id, name::in_range(id, 0, i64::from(i32::MAX)));
        }
    }
    if let Some(profile) = context.get("seccompProfile").filter(|profile| !profile.is_null()) {
        let path = path.child("seccompProfile");
        one_of(found, profile, "type", path, &["Localhost", "RuntimeDefault", "Unconfined"]);
        let local = profile.str_at(&["type"]) == "Localhost";
        if local && profile.str_at(&["localhostProfile"]).is_empty() {
            let why = "must be set when seccomp type is Localhost";
            found.push(FieldError::required(path.child("localhostProfile"), why));
        }
    }
}

fn dns_config(found: &mut Found, spec: &Tree, path: Path<'_>) {
    let config = spec.get("dnsConfig").filter(|config| !config.is_null());
    let path = path.child("dnsConfig");
    if spec.str_at(&["dnsPolicy"]) == "None" {
        let Some(config) = config else {
            let why = "must provide `dnsConfig` when `dnsPolicy` is None";
            found.push(FieldError::required(path, why));
            return;
        };
        if config.list_at(&["nameservers"]).is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            found.push(FieldError::required(path.child("nameservers"), why));
        }
    }
    let Some(config) = config else { return };
    let servers = path.child("nameservers");
    for (index, one) in config.list_at(&["nameservers"]).iter().filter_map(Tree::as_str).enumerate() {
        invalid(found, servers.index(index), one, net::ip(one));
    }
}
