//! What must hold for a pod spec, with upstream's paths and words.

use std::collections::HashSet;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::quantity::Quantity;
use skiff_object::{Map, Tree, name, net};

use super::containers::{Surroundings, containers};
use super::placement::{affinity, spread_constraints, toleration};
use super::resources::aggregate;
use super::security::{operating_system, pod_security};
use super::volumes::volumes;
use crate::checks::resources::{Strictness, quantity, requirements};
use crate::checks::{
    Found, each, each_text, formed, given, invalid, invalid_number, one_of, only, only_if_given, required, within,
};

/// How many name servers a pod may name.
const NAME_SERVERS_MAX: usize = 3;
/// How many search domains a pod may name, and how long they may be together.
const SEARCHES_MAX: usize = 32;
const SEARCHES_BYTES_MAX: usize = 2_048;

/// Everything wrong with a pod template.
pub(crate) fn template(found: &mut Found, template: &Tree, path: Path<'_>) {
    let metadata = path.child("metadata");
    found.extend(name::labels(template.at(&["metadata", "labels"]), metadata.child("labels")));
    found.extend(name::annotations(template.at(&["metadata", "annotations"]), metadata.child("annotations")));
    deletion_cost(found, template, metadata);
    spec(found, template.get("spec").unwrap_or(&Tree::Null), path.child("spec"));
    ephemeral(found, template, path, "ephemeral containers not allowed in pod template");
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

/// Everything wrong with a new pod.
pub(crate) fn pod(found: &mut Found, pod: &Tree) {
    let pod_spec = pod.get("spec").unwrap_or(&Tree::Null);
    let path = Path::new("spec");
    deletion_cost(found, pod, Path::new("metadata"));
    spec(found, pod_spec, path);
    let claim_names = pod_spec.list_at(&["volumes"]).iter().enumerate();
    for (index, volume) in claim_names.filter(|(_, volume)| given(volume, "ephemeral").is_some()) {
        let claim = format!("{}-{}", pod.str_at(&["metadata", "name"]), volume.str_at(&["name"]));
        for why in name::dns1123_subdomain(&claim) {
            let why = format!("PVC name \"{claim}\": {why}");
            let text = volume.str_at(&["name"]);
            found.push(FieldError::invalid(path.child("volumes").index(index).child("name"), text, why));
        }
    }
}

/// What only a new pod must keep to.
pub(crate) fn new_pod(found: &mut Found, pod: &Tree) {
    ephemeral(found, pod, Path::root(), "cannot be set on create");
    let gated = !pod.list_at(&["spec", "schedulingGates"]).is_empty();
    if gated && !pod.str_at(&["spec", "nodeName"]).is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        found.push(FieldError::forbidden("spec.nodeName", why));
    }
}

fn ephemeral(found: &mut Found, owner: &Tree, path: Path<'_>, why: &str) {
    if !owner.list_at(&["spec", "ephemeralContainers"]).is_empty() {
        found.push(FieldError::forbidden(path.child("spec").child("ephemeralContainers"), why));
    }
}

/// A cost that decides which pods go first.
fn deletion_cost(found: &mut Found, object: &Tree, metadata: Path<'_>) {
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    let Some(text) = object.at(&["metadata", "annotations", COST]).and_then(Tree::as_str) else { return };
    let plain = text.strip_prefix('-').unwrap_or(text);
    let canonical = text.parse::<i32>().is_ok() && (plain == "0" || !plain.starts_with('0')) && text != "-0";
    if !canonical {
        let path = metadata.child("annotations");
        found.push(FieldError::invalid(path.key(COST), text, "must be a 32bit integer"));
    }
}

/// Everything wrong with a pod spec.
pub(crate) fn spec(found: &mut Found, spec: &Tree, path: Path<'_>) {
    let volumes = volumes(found, spec, path);
    let claims = resource_claims(found, spec, path);
    containers(found, spec, &Surroundings { volumes: &volumes, claims: &claims }, path);
    pod_resources(found, spec, path);
    one_of(found, spec, "restartPolicy", path, &["Always", "OnFailure", "Never"]);
    one_of(found, spec, "dnsPolicy", path, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    found.extend(name::labels(spec.get("nodeSelector"), path.child("nodeSelector")));
    pod_security(found, spec, path);
    affinity(found, spec.get("affinity").unwrap_or(&Tree::Null), path.child("affinity"));
    dns_config(found, spec, path);
    gates(found, spec, path);
    spread_constraints(found, spec, path);
    for (field, check) in [
        ("serviceAccountName", name::dns1123_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", name::dns1123_subdomain),
        ("hostname", name::dns1123_label),
        ("subdomain", name::dns1123_label),
    ] {
        formed(found, spec, field, path, check);
    }
    if let Some(seconds) = spec.int_at(&["activeDeadlineSeconds"]) {
        let range = name::in_range(seconds, 1, i64::from(i32::MAX));
        invalid_number(found, path.child("activeDeadlineSeconds"), seconds, range);
    }
    each(spec, "tolerations", path, |one, path| toleration(found, one, path));
    each(spec, "hostAliases", path, |alias, path| {
        invalid(found, path.child("ip"), alias.str_at(&["ip"]), net::ip(alias.str_at(&["ip"])));
        for host in alias.list_at(&["hostnames"]).iter().filter_map(Tree::as_str) {
            invalid(found, path.child("hostnames"), host, name::dns1123_subdomain(host));
        }
    });
    formed(found, spec, "priorityClassName", path, name::dns1123_subdomain);
    if given(spec, "runtimeClassName").is_some() {
        let class = spec.str_at(&["runtimeClassName"]);
        invalid(found, path.child("runtimeClassName"), class, name::dns1123_subdomain(class));
    }
    only_if_given(found, spec, "preemptionPolicy", path, &["Never", "PreemptLowerPriority"]);
    if let Some(overhead) = given(spec, "overhead") {
        let mut limits = Tree::map();
        limits.set(&["limits"], overhead.clone());
        requirements(found, &limits, Strictness::default(), path.child("overhead"));
    }
    operating_system(found, spec, path);
}

fn gates(found: &mut Found, spec: &Tree, path: Path<'_>) {
    each(spec, "readinessGates", path, |gate, path| {
        let value = gate.str_at(&["conditionType"]);
        invalid(found, path.child("conditionType"), value, name::qualified_name(value));
    });
    let mut seen = HashSet::new();
    each(spec, "schedulingGates", path, |gate, path| {
        let value = gate.str_at(&["name"]);
        invalid(found, path, value, name::qualified_name(value));
        if !seen.insert(value) {
            found.push(FieldError::duplicate(path, value));
        }
    });
}

/// The claims for devices of a pod; gives their names.
fn resource_claims<'t>(found: &mut Found, spec: &'t Tree, path: Path<'_>) -> HashSet<&'t str> {
    let mut names = HashSet::new();
    each(spec, "resourceClaims", path, |claim, path| {
        if let Some(text) = required(found, claim, "name", path) {
            invalid(found, path.child("name"), text, name::dns1123_label(text));
            if !names.insert(text) {
                found.push(FieldError::duplicate(path.child("name"), text));
            }
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        match sources.iter().filter(|field| given(claim, field).is_some()).count() {
            0 => {
                let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                found.push(FieldError::invalid(path, BadValue::from(claim), why));
            }
            1 => {}
            _ => {
                let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                found.push(FieldError::invalid(path, BadValue::from(claim), why));
            }
        }
        for field in sources {
            if given(claim, field).is_some() {
                let text = claim.str_at(&[field]);
                invalid(found, path.child(field), text, name::dns1123_subdomain(text));
            }
        }
    });
    names
}

/// What is asked for the pod as a whole.
fn pod_resources(found: &mut Found, spec: &Tree, path: Path<'_>) {
    let Some(resources) = given(spec, "resources") else { return };
    let path = path.child("resources");
    if !resources.list_at(&["claims"]).is_empty() {
        found.push(FieldError::forbidden(path.child("claims"), "claims cannot be set for Resources at pod-level"));
    }
    for list in ["limits", "requests"] {
        let list_path = path.child(list);
        for key in resources.get(list).and_then(Tree::as_map).into_iter().flat_map(Map::keys) {
            let key = key.as_str();
            if !matches!(key, "cpu" | "memory") && !key.starts_with("hugepages-") {
                found.push(FieldError::not_supported(list_path.key(key), key, &["cpu", "hugepages-", "memory"]));
            }
        }
    }
    requirements(found, resources, Strictness::default(), path);
    let requests = path.child("requests");
    for (resource, sum) in aggregate(spec, "requests") {
        let whole: Option<Quantity> = quantity(resources.at(&["requests", resource.as_str()]));
        if let Some(whole) = whole.filter(|whole| *whole < sum) {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            found.push(FieldError::invalid(requests.key(&resource), whole.to_string(), why));
        }
    }
}

fn dns_config(found: &mut Found, spec: &Tree, path: Path<'_>) {
    let config = given(spec, "dnsConfig");
    if spec.str_at(&["dnsPolicy"]) == "None" {
        let path = path.child("dnsConfig");
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
    within(spec, "dnsConfig", path, |config, path| {
        let refuse = |found: &mut Found, field: &str, why: String| {
            found.push(FieldError::invalid(path.child(field), BadValue::from(config.get(field)), why));
        };
        if config.list_at(&["nameservers"]).len() > NAME_SERVERS_MAX {
            refuse(found, "nameservers", format!("must not have more than {NAME_SERVERS_MAX} nameservers"));
        }
        each_text(config, "nameservers", path, |text, path| invalid(found, path, text, net::ip(text)));
        let searches = config.list_at(&["searches"]);
        if searches.len() > SEARCHES_MAX {
            refuse(found, "searches", format!("must not have more than {SEARCHES_MAX} search paths"));
        }
        let bytes: usize = searches.iter().filter_map(Tree::as_str).map(|text| text.len() + 1).sum();
        if bytes > SEARCHES_BYTES_MAX + 1 {
            let why = format!(
                "must not have more than {SEARCHES_BYTES_MAX} characters (including spaces) in the search list"
            );
            refuse(found, "searches", why);
        }
        each_text(config, "searches", path, |text, path| {
            if text != "." {
                let plain = text.strip_suffix('.').unwrap_or(text);
                invalid(found, path, text, name::dns1123_subdomain_with_underscore(plain));
            }
        });
        each(config, "options", path, |option, path| {
            if option.str_at(&["name"]).is_empty() {
                found.push(FieldError::required(path, "must not be empty"));
            }
        });
    });
}

/// `protocol` of a port, which is there after defaults.
pub(super) fn protocol(found: &mut Found, port: &Tree, path: Path<'_>) {
    match port.str_at(&["protocol"]) {
        "" => found.push(FieldError::required(path.child("protocol"), "")),
        _ => only(found, port, "protocol", path, &["SCTP", "TCP", "UDP"]),
    }
}
