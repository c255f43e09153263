//! What must hold for an object whatever its kind: `metadata`.

use skiff_object::Tree;
use skiff_object::errors::{self, FieldError};
use skiff_object::name;
use skiff_object::path::Path;

use crate::errors::{ApiError, ApiResult, Cause};
use crate::meta;
use crate::verbs::Subject;

/// A new object.
pub fn create(subject: &Subject, object: &Tree) -> ApiResult<()> {
    let mut found = metadata(subject, object);
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
        ("networking.k8s.io", "ipaddresses") | ("certificates.k8s.io", _) => name::path_segment,
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
    for finalizer in meta::finalizers(object) {
        found.extend(
            name::qualified_name(finalizer)
                .into_iter()
                .map(|why| FieldError::invalid(path.child("finalizers"), finalizer, why)),
        );
    }
    owner_references(object, &mut found);
    found
}

fn owner_references(object: &Tree, found: &mut Vec<FieldError>) {
    let root = Path::root();
    let metadata = root.child("metadata");
    let path = metadata.child("ownerReferences");
    let mut controller: Option<String> = None;
    for (index, owner) in object.list_at(&["metadata", "ownerReferences"]).iter().enumerate() {
        let at = path.index(index);
        for (field, value) in [
            ("apiVersion", owner.str_at(&["apiVersion"])),
            ("kind", owner.str_at(&["kind"])),
            ("name", owner.str_at(&["name"])),
            ("uid", owner.str_at(&["uid"])),
        ] {
            if value.is_empty() {
                let detail = if field == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                found.push(FieldError::invalid(at.child(field), value, detail));
            }
        }
        if owner.bool_at(&["controller"]) == Some(true) {
            let this = owner.str_at(&["name"]).to_owned();
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
