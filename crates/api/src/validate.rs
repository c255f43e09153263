//! What must hold for an object whatever its kind: `metadata`.

use skiff_object::errors::{self, FieldError};
use skiff_object::path::Path;
use skiff_object::{Tree, name, net};

use crate::errors::{ApiError, ApiResult, Cause};
use crate::meta;
use crate::verbs::Subject;

/// A new object.
pub fn create(subject: &Subject, object: &Tree) -> ApiResult<()> {
    let mut found = metadata(subject, object);
    let facts = subject.kind.facts();
    if (facts.group.as_str(), facts.plural.as_str()) == ("apps", "statefulsets") {
        // Its pods carry the name in a label.
        let wrong = name::dns1123_label(meta::name(object));
        if name::dns1123_subdomain(meta::name(object)).is_empty() {
            found.extend(wrong.into_iter().map(|why| FieldError::invalid("metadata.name", meta::name(object), why)));
        }
    }
    found.extend(subject.kind.validate_create(object));
    refuse(subject, meta::name(object), found)
}

/// A changed object.
pub fn update(subject: &Subject, new: &Tree, old: &Tree) -> ApiResult<()> {
    let mut found = metadata(subject, new);
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let (is, was) = (new.at(&["metadata", field]), old.at(&["metadata", field]));
        if was.is_some() && is != was {
            let value = is.map_or_else(String::new, errors::show);
            found.push(FieldError::invalid(
                format!("metadata.{field}"),
                errors::BadValue::Bare(value),
                "field is immutable",
            ));
        }
    }
    if meta::is_deleting(old) {
        let added: Vec<String> =
            meta::finalizers(new).filter(|one| !meta::has_finalizer(old, one)).map(|one| format!("{one:?}")).collect();
        if !added.is_empty() {
            found.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers \
                     []string{{{}}}",
                    added.join(", ")
                ),
            ));
        }
    }
    found.extend(match subject.subresource.as_str() {
        "" => subject.kind.validate_update(new, old),
        subresource => subject.kind.validate_subresource(subresource, new, old),
    });
    if !found.is_empty() {
        // What was accepted once stays accepted as long as nobody touches it: rules grow stricter.
        let mut before = metadata(subject, old);
        before.extend(match subject.subresource.as_str() {
            "" => subject.kind.validate_create(old),
            subresource => subject.kind.validate_subresource(subresource, old, old),
        });
        found.retain(|error| !before.contains(error));
    }
    refuse(subject, meta::name(new), found)
}

/// The 422 for these errors, if there are any.
pub fn refuse(subject: &Subject, object_name: &str, found: Vec<FieldError>) -> ApiResult<()> {
    if found.is_empty() {
        return Ok(());
    }
    let causes = found
        .iter()
        .map(|error| Cause {
            reason: error.kind.reason().to_owned(),
            message: error.body(),
            field: error.field.clone(),
        })
        .collect();
    Err(ApiError::invalid(subject.kind_name(), object_name, causes))
}

/// How names of a resource are checked.
fn name_check(group: &str, plural: &str) -> fn(&str) -> Vec<String> {
    match (group, plural) {
        ("", "namespaces") => name::dns1123_label,
        ("", "services") => name::dns1035_label,
        ("rbac.authorization.k8s.io", _) | ("apiregistration.k8s.io", "apiservices") => name::path_segment,
        ("networking.k8s.io", "ipaddresses") => net::canonical_ip,
        ("certificates.k8s.io", _) => name::path_segment,
        _ => name::dns1123_subdomain,
    }
}

fn metadata(subject: &Subject, object: &Tree) -> Vec<FieldError> {
    let facts = subject.kind.facts();
    let check = name_check(facts.group.as_str(), facts.plural.as_str());
    let root = Path::root();
    let path = root.child("metadata");
    let mut found = Vec::new();
    let object_name = meta::name(object);
    let prefix = object.str_at(&["metadata", "generateName"]);
    if !prefix.is_empty() {
        let wrong = check(&name::masked_prefix(prefix));
        found.extend(wrong.into_iter().map(|why| FieldError::invalid(path.child("generateName"), prefix, why)));
    }
    if object_name.is_empty() {
        found.push(FieldError::required(path.child("name"), "name or generateName is required"));
    } else {
        found.extend(
            check(object_name).into_iter().map(|why| FieldError::invalid(path.child("name"), object_name, why)),
        );
    }
    if facts.namespaced {
        let namespace = meta::namespace(object);
        if namespace.is_empty() {
            found.push(FieldError::required(path.child("namespace"), ""));
        } else {
            found.extend(
                name::dns1123_label(namespace)
                    .into_iter()
                    .map(|why| FieldError::invalid(path.child("namespace"), namespace, why)),
            );
        }
    }
    found.extend(name::labels(object.at(&["metadata", "labels"]), path.child("labels")));
    found.extend(name::annotations(object.at(&["metadata", "annotations"]), path.child("annotations")));
    let [group, version, plural] = [&facts.group, &facts.version, &facts.plural].map(|part| part.as_str());
    let is_core = !matches!(group, "apiextensions.k8s.io" | "apiregistration.k8s.io")
        && skiff_kinds::builtin().resource(group, version, plural).is_some();
    finalizers(object, is_core, &mut found);
    owner_references(object, &mut found);
    found
}

/// Finalizers are qualified names; a kind of Kubernetes itself knows all those without a domain.
fn finalizers(object: &Tree, is_core: bool, found: &mut Vec<FieldError>) {
    const CONFLICT: &str = "finalizer set with both \"orphan\" and \"foregroundDeletion\" is not allowed";
    let root = Path::root();
    let metadata = root.child("metadata");
    let path = metadata.child("finalizers");
    for finalizer in meta::finalizers(object) {
        let wrong = name::qualified_name(finalizer);
        found.extend(wrong.into_iter().map(|why| FieldError::invalid(path, finalizer, why)));
    }
    if ["orphan", "foregroundDeletion"].iter().all(|one| meta::has_finalizer(object, one)) {
        let value = errors::BadValue::from(object.at(&["metadata", "finalizers"]));
        found.push(FieldError::invalid(path, value, CONFLICT));
    }
    for (index, finalizer) in meta::finalizers(object).enumerate().filter(|_| is_core) {
        if !finalizer.contains('/') && !matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion") {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            found.push(FieldError::invalid(path.index(index), finalizer, why));
        }
    }
}

fn owner_references(object: &Tree, found: &mut Vec<FieldError>) {
    let root = Path::root();
    let metadata = root.child("metadata");
    let path = metadata.child("ownerReferences");
    let mut controller: Option<String> = None;
    for owner in object.list_at(&["metadata", "ownerReferences"]) {
        for (field, value) in [
            ("apiVersion", owner.str_at(&["apiVersion"])),
            ("kind", owner.str_at(&["kind"])),
            ("name", owner.str_at(&["name"])),
            ("uid", owner.str_at(&["uid"])),
        ] {
            if value.is_empty() {
                let detail = if field == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                found.push(FieldError::invalid(path.child(field), value, detail));
            }
        }
        if owner.str_at(&["apiVersion"]) == "v1" && owner.str_at(&["kind"]) == "Event" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            found.push(FieldError::invalid(path, errors::BadValue::from(owner), why));
        }
        if owner.bool_at(&["controller"]) == Some(true) {
            let this = format!("{}/{}", owner.str_at(&["kind"]), owner.str_at(&["name"]));
            match &controller {
                Some(first) => found.push(FieldError::invalid(
                    path,
                    errors::BadValue::Omitted,
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                )),
                None => controller = Some(this),
            }
        }
    }
}
