//! `persistentvolumeclaims` in `v1`.

use std::borrow::Cow;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::selector::label;
use skiff_object::time::Time;
use skiff_object::{Tree, name};

use crate::checks::{self, Found, SPEC, resources};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, fill, pod_spec, rules};

/// A wish for storage.
pub(crate) struct PersistentVolumeClaim(pub(crate) Facts);

impl Kind for PersistentVolumeClaim {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::text(fill::within(object, "status"), "phase", "Pending");
        pod_spec::volume_claim_spec(fill::within(object, "spec"));
    }

    fn prepare_create(&self, object: &mut Tree) {
        rules::prepare_create(self.facts(), self.generation(), object);
        object.set(&["status", "phase"], "Pending");
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let class = match object.str_at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
            "" => object.str_at(&["spec", "storageClassName"]),
            class => class,
        };
        let phase = if cells::is_deleting(object) { "Terminating" } else { object.str_at(&["status", "phase"]) };
        let volume = object.str_at(&["spec", "volumeName"]);
        let bound = |cell: Tree| if volume.is_empty() { "".into() } else { cell };
        vec![
            cells::name(object),
            phase.into(),
            volume.into(),
            bound(cells::text_or(object, &["status", "capacity", "storage"], "0")),
            bound(cells::access_modes(object, &["status", "accessModes"])),
            class.into(),
            cells::text_or(object, &["spec", "volumeAttributesClassName"], "<unset>"),
            cells::age(object, now),
            cells::text_or(object, &["spec", "volumeMode"], "<unset>"),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        claim_spec(&mut found, checks::spec(object), SPEC);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        let [wanted, before] = [new, old].map(checks::spec);
        if !before.str_at(&["volumeName"]).is_empty() {
            changed_class(&mut found, wanted, before);
        }
        let mut rest = wanted.clone();
        rules::keep(&mut rest, before, &["volumeAttributesClassName"]);
        // The binder fills these in once.
        for field in ["volumeName", "storageClassName"] {
            if before.str_at(&[field]).is_empty() {
                rules::keep(&mut rest, before, &[field]);
            }
        }
        let bound = old.str_at(&["status", "phase"]) == "Bound";
        if bound {
            rules::keep(&mut rest, before, &["resources", "requests", "storage"]);
        }
        if !rules::same(Some(&rest), Some(before)) {
            let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                       bound claims";
            found.push(FieldError::forbidden(SPEC, why));
        }
        let storage = |spec: &Tree| resources::quantity(spec.at(&["resources", "requests", "storage"]));
        let had = resources::quantity(old.at(&["status", "capacity", "storage"]));
        if let (Some(wanted), Some(before)) = (storage(wanted), storage(before))
            && wanted < before
            && bound
            && had.is_none_or(|had| wanted <= had)
        {
            let why = "field can not be less than status.capacity";
            found.push(FieldError::forbidden("spec.resources.requests.storage", why));
        }
        found
    }

    fn validate_subresource(&self, _: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let status = new.get("status").unwrap_or(&Tree::Null);
        let path = Path::new("status");
        for list in ["capacity", "allocatedResources"] {
            checks::entries(status, list, path, |resource, value, path| {
                if let Some(amount) = resources::quantity(Some(value)) {
                    resources::amount(&mut found, resource, amount, path);
                }
            });
        }
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Status", "string", "Whether it is bound."),
    Column::new("Volume", "string", "The volume it is bound to."),
    Column::new("Capacity", "string", "How much fits."),
    Column::new("Access Modes", "string", "How it can be mounted."),
    Column::new("StorageClass", "string", "The class it asks for."),
    Column::new("VolumeAttributesClass", "string", "The attributes it asks for."),
    cells::AGE,
    Column::wide("VolumeMode", "string", "Whether it is a file system or a device."),
];

/// A bound claim may take other attributes, but not give them up.
fn changed_class(found: &mut Found, new: &Tree, old: &Tree) {
    const FIELD: &str = "volumeAttributesClassName";
    if !old.str_at(&[FIELD]).is_empty() && new.str_at(&[FIELD]).is_empty() {
        let why = "update from non-nil value to nil is forbidden";
        found.push(FieldError::forbidden(SPEC.child(FIELD), why));
    }
}

/// The ways to mount a volume.
pub(crate) fn access_modes(found: &mut Found, spec: &Tree, path: Path<'_>) {
    let known = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let modes = spec.list_at(&["accessModes"]);
    for mode in modes.iter().filter_map(Tree::as_str) {
        if !known.contains(&mode) {
            found.push(FieldError::not_supported(path.child("accessModes"), mode, &known));
        }
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode.as_str() == Some("ReadWriteOncePod")) {
        let why = "may not use ReadWriteOncePod with other access modes";
        found.push(FieldError::forbidden(path.child("accessModes"), why));
    }
}

/// Everything wrong with the spec of a claim.
pub(crate) fn claim_spec(found: &mut Found, spec: &Tree, path: Path<'_>) {
    if spec.list_at(&["accessModes"]).is_empty() {
        found.push(FieldError::required(path.child("accessModes"), "at least 1 access mode is required"));
    }
    found.extend(label::validate(spec.get("selector"), path.child("selector")));
    access_modes(found, spec, path);
    let resources_path = path.child("resources");
    match spec.at(&["resources", "requests", "storage"]) {
        None => found.push(FieldError::required(resources_path.key("storage"), "")),
        value => {
            let amount = resources::quantity(value);
            if let Some(amount) = amount.filter(|amount| amount.nanos() <= 0) {
                let path = resources_path.key("storage");
                found.push(FieldError::invalid(path, amount.to_string(), "must be greater than zero"));
            }
        }
    }
    checks::formed(found, spec, "storageClassName", path, name::dns1123_subdomain);
    checks::only_if_given(found, spec, "volumeMode", path, &["Block", "Filesystem"]);
    checks::formed(found, spec, "volumeAttributesClassName", path, name::dns1123_subdomain);
    checks::within(spec, "dataSource", path, |source, path| data_source(found, source, false, path));
    checks::within(spec, "dataSourceRef", path, |source, path| data_source(found, source, true, path));
    let [plain, with_namespace] = ["dataSource", "dataSourceRef"].map(|field| checks::given(spec, field));
    if let (Some(plain), Some(reference)) = (plain, with_namespace) {
        let part = |source: &Tree| ["apiGroup", "kind", "name"].map(|field| source.str_at(&[field]).to_owned());
        if reference.str_at(&["namespace"]).is_empty() && part(plain) != part(reference) {
            let why = "must match dataSourceRef";
            found.push(FieldError::invalid(path, BadValue::from(plain), why));
        }
    }
}

fn data_source(found: &mut Found, source: &Tree, with_namespace: bool, path: Path<'_>) {
    for field in ["name", "kind"] {
        if source.str_at(&[field]).is_empty() {
            found.push(FieldError::required(path.child(field), ""));
        }
    }
    let group = source.str_at(&["apiGroup"]);
    if group.is_empty() && source.str_at(&["kind"]) != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        found.push(FieldError::invalid(path, source.str_at(&["kind"]), why));
    }
    checks::formed(found, source, "apiGroup", path, name::dns1123_subdomain);
    if with_namespace {
        checks::formed(found, source, "namespace", path, name::dns1123_label);
    }
}
