//! `ingresses` in `networking.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};
use skiff_object::name;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// HTTP routes into the cluster.
pub(crate) struct Ingress(pub(crate) Facts);

impl Kind for Ingress {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let class = match object.str_at(&["spec", "ingressClassName"]) {
            "" => cells::text_or(object, &["metadata", "annotations", "kubernetes.io/ingress.class"], "<none>"),
            class => class.into(),
        };
        let hosts = object.list_at(&["spec", "rules"]).iter().map(|rule| rule.str_at(&["host"]).to_owned());
        let hosts = cells::some_of(hosts.filter(|host| !host.is_empty()).collect(), 3, ",");
        let ports = if object.list_at(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
        vec![
            cells::name(object),
            class,
            if hosts.is_empty() { "*".into() } else { hosts.into() },
            cells::load_balancer(object).join(",").into(),
            ports.into(),
            cells::age(object, now),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = object.get("spec").unwrap_or(&Tree::Null);
        let rules = spec.list_at(&["rules"]);
        let default = spec.get("defaultBackend").filter(|backend| !backend.is_null());
        if rules.is_empty() && default.is_none() {
            let why = "either `defaultBackend` or `rules` must be specified";
            found.push(FieldError::invalid(SPEC, BadValue::from(spec.get("rules")), why));
        }
        if let Some(backend) = default {
            self::backend(&mut found, backend, SPEC.child("defaultBackend"));
        }
        let list = SPEC.child("rules");
        for (index, rule) in rules.iter().enumerate() {
            let path = list.index(index);
            let host = rule.str_at(&["host"]);
            if host.parse::<std::net::IpAddr>().is_ok() {
                let why = "must be a DNS name, not an IP address";
                found.push(FieldError::invalid(path.child("host"), host, why));
            } else if host.contains('*') {
                checks::invalid(&mut found, path.child("host"), host, name::wildcard_dns1123_subdomain(host));
            } else if !host.is_empty() {
                checks::invalid(&mut found, path.child("host"), host, name::dns1123_subdomain(host));
            }
            http_paths(&mut found, rule, path.child("http"));
        }
        checks::each(spec, "tls", SPEC, |tls, path| {
            checks::each_text(tls, "hosts", path, |host, path| {
                let check = if host.contains('*') { name::wildcard_dns1123_subdomain } else { name::dns1123_subdomain };
                checks::invalid(&mut found, path, host, check(host));
            });
            checks::formed(&mut found, tls, "secretName", path, name::dns1123_subdomain);
        });
        let class = spec.str_at(&["ingressClassName"]);
        if !class.is_empty() {
            checks::invalid(&mut found, SPEC.child("ingressClassName"), class, name::dns1123_subdomain(class));
        }
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Class", "string", "The class that serves it."),
    Column::new("Hosts", "string", "The hosts it answers for."),
    Column::new("Address", "string", "Where it is reached."),
    Column::new("Ports", "string", "On which ports."),
    cells::AGE,
];

fn http_paths(found: &mut Vec<FieldError>, rule: &Tree, path: Path<'_>) {
    let Some(http) = rule.get("http").filter(|http| !http.is_null()) else { return };
    let list = path.child("paths");
    if http.list_at(&["paths"]).is_empty() {
        found.push(FieldError::required(list, ""));
    }
    for (index, one) in http.list_at(&["paths"]).iter().enumerate() {
        let path = list.index(index);
        let text = one.str_at(&["path"]);
        match one.str_at(&["pathType"]) {
            "" => found.push(FieldError::required(path.child("pathType"), "pathType must be specified")),
            "Exact" | "Prefix" if !text.starts_with('/') => {
                found.push(FieldError::invalid(path.child("path"), text, "must be an absolute path"));
            }
            "ImplementationSpecific" if !text.is_empty() && !text.starts_with('/') => {
                found.push(FieldError::invalid(path.child("path"), text, "must be an absolute path"));
            }
            "Exact" | "Prefix" | "ImplementationSpecific" => {}
            other => {
                let known = ["Exact", "ImplementationSpecific", "Prefix"];
                found.push(FieldError::not_supported(path.child("pathType"), other, &known));
            }
        }
        if matches!(one.str_at(&["pathType"]), "Exact" | "Prefix") {
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| text.contains(part)) {
                found.push(FieldError::invalid(path.child("path"), text, format!("must not contain '{part}'")));
            }
            for end in ["/..", "/."].into_iter().filter(|end| text.ends_with(end)) {
                found.push(FieldError::invalid(path.child("path"), text, format!("cannot end with '{end}'")));
            }
        }
        backend(found, one.get("backend").unwrap_or(&Tree::Null), path.child("backend"));
    }
}

fn backend(found: &mut Vec<FieldError>, backend: &Tree, path: Path<'_>) {
    let service = backend.get("service").filter(|service| !service.is_null());
    let resource = backend.get("resource").filter(|resource| !resource.is_null());
    let Some(service) = service else {
        if resource.is_none() {
            found.push(FieldError::required(path, "port name or number is required"));
        }
        return;
    };
    if resource.is_some() {
        let value = BadValue::from(backend);
        found.push(FieldError::invalid(path, value, "cannot set both resource and service backends"));
        return;
    }
    let path = path.child("service");
    if let Some(text) = checks::required(found, service, "name", path) {
        checks::invalid(found, path.child("name"), text, name::dns1035_label(text));
    }
    let (by_name, by_number) = (service.str_at(&["port", "name"]), service.int_at(&["port", "number"]).unwrap_or(0));
    let path = path.child("port");
    match (by_name.is_empty(), by_number) {
        (true, 0) => found.push(FieldError::required(path, "port name or number is required")),
        (true, number) => checks::invalid_number(found, path.child("number"), number, name::port_number(number)),
        (false, 0) => checks::invalid(found, path.child("name"), by_name, name::port_name(by_name)),
        (false, _) => {
            found.push(FieldError::invalid(path, "", "cannot set both port name & port number"));
        }
    }
}
