//! `volumeattachments` in `storage.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::name;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, Found, SPEC};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// A volume on a node.
pub(crate) struct VolumeAttachment(pub(crate) Facts);

impl Kind for VolumeAttachment {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![
            cells::name(object),
            cells::text(object, &["spec", "attacher"]),
            cells::text(object, &["spec", "source", "persistentVolumeName"]),
            cells::text(object, &["spec", "nodeName"]),
            (object.bool_at(&["status", "attached"]) == Some(true)).into(),
            cells::age(object, now),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        let mut found = Vec::new();
        let spec = checks::spec(object);
        super::csi_driver::driver_name(&mut found, spec, "attacher", SPEC);
        let source = spec.get("source").unwrap_or(&Tree::Null);
        let path = SPEC.child("source");
        match (checks::given(source, "inlineVolumeSpec"), checks::given(source, "persistentVolumeName")) {
            (None, None) => found.push(FieldError::required(path, ONE)),
            (Some(_), Some(_)) => found.push(FieldError::forbidden(path, ONE)),
            (None, Some(name)) => {
                if name.as_str() == Some("") {
                    let why = "must specify non empty persistentVolumeName";
                    found.push(FieldError::required(path.child("persistentVolumeName"), why));
                }
                checks::formed(&mut found, source, "persistentVolumeName", path, name::dns1123_subdomain);
            }
            (Some(_), None) => {}
        }
        checks::shaped(&mut found, spec, "nodeName", SPEC, name::dns1123_subdomain);
        status(&mut found, object);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["spec"]);
        found
    }

    fn validate_subresource(&self, _: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        status(&mut found, new);
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Attacher", "string", "Who attaches."),
    Column::new("PV", "string", "What is attached."),
    Column::new("Node", "string", "To which node."),
    Column::new("Attached", "boolean", "Whether it is."),
    cells::AGE,
];

/// How long the message of an error may be.
const MESSAGE_BYTES_MAX: usize = 1_024;
/// How much a driver may say about an attachment.
const METADATA_BYTES_MAX: usize = 256 * 1_024;

fn status(found: &mut Found, object: &Tree) {
    let path = Path::new("status");
    let Some(status) = object.get("status") else { return };
    let mut bytes = 0;
    checks::entries(status, "attachmentMetadata", path, |key, value, _| {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        if key.is_empty() {
            found.push(FieldError::invalid(path.child("attachmentMetadata"), key, "field can not be empty."));
        }
    });
    if bytes > METADATA_BYTES_MAX {
        found.push(FieldError::too_long(path.child("attachmentMetadata"), METADATA_BYTES_MAX));
    }
    for field in ["attachError", "detachError"] {
        checks::within(status, field, path, |error, path| {
            checks::not_longer(found, error, "message", path, MESSAGE_BYTES_MAX);
        });
    }
}
