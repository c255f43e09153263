//! `csidrivers` in `storage.k8s.io/v1`.

use std::borrow::Cow;
use std::collections::HashSet;

use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};
use skiff_object::name;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, Found, SPEC};
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::rules;
use crate::table::Column;

/// A storage driver.
pub(crate) struct CSIDriver(pub(crate) Facts);

impl Kind for CSIDriver {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        fill::absent(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            fill::absent(spec, field, false);
        }
        fill::absent(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec.list_at(&["volumeLifecycleModes"]).is_empty() {
            fill::put(spec, "volumeLifecycleModes", vec![Tree::from("Persistent")]);
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let flag = |field: &str, otherwise: bool| object.bool_at(&["spec", field]).unwrap_or(otherwise);
        let list = |field: &str, key: Option<&str>| -> Tree {
            let items = object.list_at(&["spec", field]).iter();
            let items: Vec<&str> =
                items.map(|item| key.map_or(item.as_str().unwrap_or(""), |key| item.str_at(&[key]))).collect();
            if items.is_empty() { "<unset>".into() } else { items.join(",").into() }
        };
        vec![
            cells::name(object),
            flag("attachRequired", true).into(),
            flag("podInfoOnMount", false).into(),
            flag("storageCapacity", false).into(),
            list("tokenRequests", Some("audience")),
            flag("requiresRepublish", false).into(),
            list("volumeLifecycleModes", None),
            cells::age(object, now),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        driver_name(&mut found, object.get("metadata").unwrap_or(&Tree::Null), "name", Path::new("metadata"));
        for field in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
            if checks::given(spec, field).is_none() {
                found.push(FieldError::required(SPEC.child(field), ""));
            }
        }
        checks::only(&mut found, spec, "fsGroupPolicy", SPEC, &["File", "None", "ReadWriteOnceWithFSType"]);
        token_requests(&mut found, spec);
        let modes = ["Ephemeral", "Persistent"];
        for mode in spec.list_at(&["volumeLifecycleModes"]).iter().filter_map(Tree::as_str) {
            if !modes.contains(&mode) {
                found.push(FieldError::not_supported(SPEC.child("volumeLifecycleModes"), mode, &modes));
            }
        }
        if checks::given(spec, "seLinuxMount").is_none() {
            found.push(FieldError::required(SPEC.child("seLinuxMount"), ""));
        }
        const PERIOD: &str = "nodeAllocatableUpdatePeriodSeconds";
        if let Some(seconds) = spec.int_at(&[PERIOD]).filter(|seconds| *seconds < UPDATE_PERIOD_SECONDS_MIN) {
            let why = format!("must be greater than or equal to {UPDATE_PERIOD_SECONDS_MIN} seconds");
            found.push(FieldError::invalid(SPEC.child(PERIOD), seconds, why));
        }
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        if !rules::same(new.at(&["spec", "attachRequired"]), old.at(&["spec", "attachRequired"])) {
            let value = BadValue::from(new.at(&["spec", "attachRequired"]));
            found.push(FieldError::invalid("spec.attachedRequired", value, "field is immutable"));
        }
        checks::immutable(&mut found, new, old, &["spec", "volumeLifecycleModes"]);
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("AttachRequired", "boolean", "Whether volumes are attached before they are mounted."),
    Column::new("PodInfoOnMount", "boolean", "Whether mounting tells about the pod."),
    Column::new("StorageCapacity", "boolean", "Whether the scheduler asks how much fits."),
    Column::new("TokenRequests", "string", "The tokens that mounting needs."),
    Column::new("RequiresRepublish", "boolean", "Whether mounting is repeated."),
    Column::new("Modes", "string", "Which kinds of volumes there are."),
    cells::AGE,
];

/// How often a driver may at most be asked how much a node still takes.
const UPDATE_PERIOD_SECONDS_MIN: i64 = 10;
/// How long the name of a driver may be.
const NAME_BYTES_MAX: usize = 63;
/// The bounds of how long a token may last: ten minutes, and what fits in 32 bits.
const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);

/// The name of a driver at a field: there, short, a subdomain but for its case.
pub(crate) fn driver_name(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    let Some(text) = checks::required(found, object, field, path) else { return };
    if text.len() > NAME_BYTES_MAX {
        found.push(FieldError::too_long(path.child(field), NAME_BYTES_MAX));
    }
    checks::invalid(found, path.child(field), text, name::dns1123_subdomain(&text.to_lowercase()));
}

fn token_requests(found: &mut Found, spec: &Tree) {
    let mut audiences = HashSet::new();
    checks::each(spec, "tokenRequests", SPEC, |request, path| {
        let audience = request.str_at(&["audience"]);
        if !audiences.insert(audience) {
            found.push(FieldError::duplicate(path.child("audience"), audience));
        }
        let Some(seconds) = request.int_at(&["expirationSeconds"]) else { return };
        if seconds < TOKEN_SECONDS.0 {
            let why = "may not specify a duration less than 10 minutes";
            found.push(FieldError::invalid(path.child("expirationSeconds"), seconds, why));
        }
        if seconds > TOKEN_SECONDS.1 {
            let why = "may not specify a duration larger than 2^32 seconds";
            found.push(FieldError::invalid(path.child("expirationSeconds"), seconds, why));
        }
    });
}
