//! `resourceslices` in `resource.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::time::Time;
use skiff_object::{Map, Tree, name};

use crate::checks::{self, Found, SPEC, devices, resources};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;
use crate::{cells, pod_spec};

/// Devices that a driver offers.
pub(crate) struct ResourceSlice(pub(crate) Facts);

impl Kind for ResourceSlice {
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
        let node = match object.str_at(&["spec", "nodeName"]) {
            "" if object.bool_at(&["spec", "allNodes"]) == Some(true) => "<all>",
            "" => "<unset>",
            node => node,
        };
        vec![
            cells::name(object),
            node.into(),
            cells::text(object, &["spec", "driver"]),
            cells::text(object, &["spec", "pool", "name"]),
            cells::age(object, now),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        devices::driver(&mut found, spec, SPEC);
        pool(&mut found, spec);
        place(&mut found, spec, SPEC, &PLACES, PLACES_WHY);
        if checks::given(spec, "sharedCounters").is_some() && checks::given(spec, "devices").is_some() {
            let why = "only one of `sharedCounters` or `devices` is allowed";
            found.push(FieldError::invalid(SPEC, "", why));
        }
        let list = spec.list_at(&["devices"]);
        let advanced =
            |device: &Tree| ["taints", "consumesCounters"].iter().any(|field| !device.list_at(&[field]).is_empty());
        let max = if list.iter().any(advanced) { DEVICES_MAX / 2 } else { DEVICES_MAX };
        let own = spec.bool_at(&["perDeviceNodeSelection"]) == Some(true);
        devices::unique(&mut found, spec, "devices", max, SPEC, "name", |found, one, path| {
            device(found, one, own, path)
        });
        devices::unique(&mut found, spec, "sharedCounters", COUNTER_SETS_MAX, SPEC, "name", |found, set, path| {
            checks::needed(found, set, "name", path, name::dns1123_label);
            counters(found, set, path);
        });
        devices::node_operations(&mut found, spec, SPEC);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        for fields in [&["spec", "pool", "name"] as &[&str], &["spec", "driver"], &["spec", "nodeName"]] {
            checks::immutable(&mut found, new, old, fields);
        }
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Node", "string", "Where the devices are."),
    Column::new("Driver", "string", "Who manages them."),
    Column::new("Pool", "string", "The pool they belong to."),
    cells::AGE,
];

/// How many devices a slice may have; half of that when they have taints or share counters.
const DEVICES_MAX: usize = 128;
/// How many attributes and capacities a device may have.
const ATTRIBUTES_MAX: usize = 32;
/// How many sets of counters there may be in a slice.
const COUNTER_SETS_MAX: usize = 8;
/// How many counters there may be in a set.
const COUNTERS_MAX: usize = 32;
/// How many sets a device may draw from.
const CONSUMED_SETS_MAX: usize = 2;
/// How many taints a device may have.
const TAINTS_MAX: usize = 16;
/// How long the value of an attribute may be.
const VALUE_BYTES_MAX: usize = 64;

const PLACES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
const PLACES_WHY: [&str; 2] = [
    "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
    "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are \
     set",
];
const OWN_PLACE_WHY: [&str; 2] = ["exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
     `perDeviceNodeSelection` is set to true in the ResourceSlice spec"; 2];

fn pool(found: &mut Found, spec: &Tree) {
    let path = SPEC.child("pool");
    let pool = spec.get("pool").unwrap_or(&Tree::Null);
    devices::pool(found, pool, "name", path);
    let count = pool.int_at(&["resourceSliceCount"]).unwrap_or(0);
    if count <= 0 {
        found.push(FieldError::invalid(path.child("resourceSliceCount"), count, "must be greater than zero"));
    }
    if let Some(generation) = pool.int_at(&["generation"]).filter(|generation| *generation < 0) {
        let why = "must be greater than or equal to zero";
        found.push(FieldError::invalid(path.child("generation"), generation, why));
    }
}

/// Where devices are, said in exactly one of some ways.
fn place(found: &mut Found, object: &Tree, path: Path<'_>, ways: &[&str], why: [&str; 2]) {
    let mut given = Vec::new();
    for way in ways {
        let Some(value) = checks::given(object, way) else { continue };
        match value {
            Tree::Str(text) if text.is_empty() => {
                let why = if path.to_string() == "spec" {
                    "must be either unset or set to a non-empty string"
                } else {
                    "must not be empty"
                };
                found.push(FieldError::invalid(path.child(way), "", why));
                continue;
            }
            Tree::Bool(false) => {
                found.push(FieldError::invalid(path.child(way), false, "must be either unset or set to true"));
                continue;
            }
            Tree::Str(text) => checks::invalid(found, path.child(way), text, name::dns1123_subdomain(text)),
            Tree::Map(_) => {
                pod_spec::node_selector(found, value, path.child(way));
                if path.to_string() == "spec" && value.list_at(&["nodeSelectorTerms"]).len() != 1 {
                    let terms = BadValue::from(value.get("nodeSelectorTerms"));
                    let why = "must have exactly one node selector term";
                    found.push(FieldError::invalid(path.child(way).child("nodeSelectorTerms"), terms, why));
                }
            }
            _ => {}
        }
        given.push(format!("`{way}`"));
    }
    match given.len() {
        0 => found.push(FieldError::required(path, why[0])),
        1 => {}
        _ => found.push(FieldError::invalid(path, format!("{{{}}}", given.join(", ")), why[1])),
    }
}

fn device(found: &mut Found, device: &Tree, own_place: bool, path: Path<'_>) {
    checks::shaped(found, device, "name", path, name::dns1123_label);
    let size = |field: &str| device.get(field).and_then(Tree::as_map).map_or(0, Map::len);
    let all = size("attributes") + size("capacity");
    if all > ATTRIBUTES_MAX {
        let why = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        found.push(FieldError::invalid(path, i64::try_from(all).unwrap_or(i64::MAX), why));
    }
    checks::entries(device, "attributes", path, |key, value, path| {
        devices::qualified(found, key, path);
        attribute(found, value, path);
    });
    let shared = device.bool_at(&["allowMultipleAllocations"]) == Some(true);
    checks::entries(device, "capacity", path, |key, capacity, path| {
        devices::qualified(found, key, path);
        if checks::given(capacity, "requestPolicy").is_some() && !shared {
            let why = "allowMultipleAllocations must be true";
            found.push(FieldError::forbidden(path.child("requestPolicy"), why));
        }
    });
    checks::at_most(found, device, "taints", path, TAINTS_MAX);
    checks::each(device, "taints", path, |taint, path| devices::taint(found, taint, path));
    devices::unique(found, device, "consumesCounters", CONSUMED_SETS_MAX, path, "counterSet", |found, one, path| {
        checks::needed(found, one, "counterSet", path, name::dns1123_label);
        counters(found, one, path);
    });
    let ways = &PLACES[..3];
    if own_place {
        place(found, device, path, ways, OWN_PLACE_WHY);
    } else if ways.iter().any(|way| checks::given(device, way).is_some()) {
        let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true \
                   in the ResourceSlice spec";
        found.push(FieldError::invalid(path, BadValue::Null, why));
    }
    devices::binding_conditions(found, device, path);
}

fn attribute(found: &mut Found, attribute: &Tree, path: Path<'_>) {
    const ONE: &str = "exactly one value must be specified";
    let values = attribute.as_map().map_or(0, |map| map.values().filter(|value| !value.is_null()).count());
    checks::not_longer(found, attribute, "string", path, VALUE_BYTES_MAX);
    if checks::given(attribute, "version").is_some() {
        let version = attribute.str_at(&["version"]);
        if !is_semver(version) {
            let why = "must be a string compatible with semver.org spec 2.0.0";
            found.push(FieldError::invalid(path.child("version"), version, why));
        }
        checks::not_longer(found, attribute, "version", path, VALUE_BYTES_MAX);
    }
    match values {
        0 => found.push(FieldError::invalid(path, "", ONE)),
        1 => {}
        _ => found.push(FieldError::invalid(path, BadValue::from(attribute), ONE)),
    }
}

/// `1.2.3-pre.1+build`.
fn is_semver(text: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

fn counters(found: &mut Found, set: &Tree, path: Path<'_>) {
    let count = set.get("counters").and_then(Tree::as_map).map_or(0, Map::len);
    if count == 0 {
        found.push(FieldError::required(path.child("counters"), ""));
    }
    if count > COUNTERS_MAX {
        found.push(FieldError::too_many(path.child("counters"), count, COUNTERS_MAX));
    }
    checks::entries(set, "counters", path, |key, counter, path| {
        checks::invalid(found, path, key, name::dns1123_label(key));
        if let Some(amount) = resources::quantity(counter.get("value")) {
            resources::not_negative(found, amount, path.child("value"));
        }
    });
}
