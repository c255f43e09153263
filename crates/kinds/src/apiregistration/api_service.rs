//! `apiservices` in `apiregistration.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::time::Time;
use skiff_object::{Tree, name};

use crate::checks::{self, Found, SPEC};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, fill};

/// A group and version, and who serves it.
pub(crate) struct APIService(pub(crate) Facts);

impl Kind for APIService {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::each(object, &["spec", "service"], |service| fill::absent(service, "port", 443));
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let service = match object.at(&["spec", "service"]) {
            Some(service @ Tree::Map(_)) => format!("{}/{}", service.str_at(&["namespace"]), service.str_at(&["name"])),
            _ => "Local".to_owned(),
        };
        let conditions = object.list_at(&["status", "conditions"]);
        let available = conditions.iter().find(|one| one.str_at(&["type"]) == "Available");
        let available = match available.map(|one| (one.str_at(&["status"]), one.str_at(&["reason"]))) {
            None => "Unknown".to_owned(),
            Some(("True", _)) => "True".to_owned(),
            Some((status, reason)) => format!("{status} ({reason})"),
        };
        vec![cells::name(object), service.into(), available.into(), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        let [group, version] = ["group", "version"].map(|field| spec.str_at(&[field]));
        let wanted = format!("{version}.{group}");
        let given = object.str_at(&["metadata", "name"]);
        if given != wanted {
            let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            found.push(FieldError::invalid("metadata.name", given, why));
        }
        for (field, value, wrong) in [
            ("group", group, if group.is_empty() { Vec::new() } else { name::dns1123_subdomain(group) }),
            ("version", version, name::dns1035_label(version)),
        ] {
            if !wrong.is_empty() {
                found.push(FieldError::invalid(SPEC.child(field), value, wrong.join(",")));
            }
        }
        for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
            let value = spec.int_at(&[field]).unwrap_or(0);
            if !(1..=max).contains(&value) {
                let why = format!("must be positive and less than {max}");
                found.push(FieldError::invalid(SPEC.child(field), value, why));
            }
        }
        service(&mut found, spec);
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn validate_subresource(&self, _: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let status = new.get("status").unwrap_or(&Tree::Null);
        checks::each(status, "conditions", Path::new("status"), |condition, path| {
            checks::only(&mut found, condition, "status", path, &["False", "True", "Unknown"]);
        });
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Service", "string", "Who serves it."),
    Column::new("Available", "string", "Whether it can be reached."),
    cells::AGE,
];

fn service(found: &mut Found, spec: &Tree) {
    let bundle = spec.str_at(&["caBundle"]);
    let unverified = spec.bool_at(&["insecureSkipTLSVerify"]) == Some(true);
    let Some(service) = checks::given(spec, "service") else {
        if !bundle.is_empty() {
            let padding = bundle.bytes().rev().take_while(|c| *c == b'=').count();
            let bytes = BadValue::from(format!("{} bytes", (bundle.len() / 4 * 3).saturating_sub(padding)));
            let why = "local APIServices may not have a caBundle";
            found.push(FieldError::invalid(SPEC.child("caBundle"), bytes, why));
        }
        if unverified {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            found.push(FieldError::invalid(SPEC.child("insecureSkipTLSVerify"), true, why));
        }
        return;
    };
    let path = SPEC.child("service");
    for field in ["namespace", "name"] {
        checks::required(found, service, field, path);
    }
    let port = service.int_at(&["port"]).unwrap_or(0);
    let wrong = name::port_number(port);
    if !wrong.is_empty() {
        let why = format!("port is not valid: {}", wrong.join(","));
        found.push(FieldError::invalid(path.child("port"), port, why));
    }
    if unverified && !bundle.is_empty() {
        let why = "may not be true if caBundle is present";
        found.push(FieldError::invalid(SPEC.child("insecureSkipTLSVerify"), true, why));
    }
}
