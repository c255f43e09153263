//! `endpointslices` in `discovery.k8s.io/v1`.

use std::borrow::Cow;
use std::collections::HashSet;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::name;
use skiff_object::net;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks;
use crate::checks::Found;
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// Some of the addresses behind a Service.
pub(crate) struct EndpointSlice(pub(crate) Facts);

impl Kind for EndpointSlice {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }

    fn default(&self, object: &mut Tree) {
        for port in fill::items(object, &["ports"]) {
            fill::absent(port, "name", "");
            fill::absent(port, "protocol", "TCP");
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let port = |port: &Tree| match (port.int_at(&["port"]), port.get("name").and_then(Tree::as_str)) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        };
        let ports = object.list_at(&["ports"]).iter().map(port).collect();
        let endpoints = object.list_at(&["endpoints"]).iter().flat_map(|endpoint| endpoint.list_at(&["addresses"]));
        let addresses = endpoints.filter_map(Tree::as_str).map(str::to_owned).collect();
        let [ports, addresses] = [ports, addresses].map(|all| match cells::some_of(all, 3, ",") {
            none if none.is_empty() => "<unset>".to_owned(),
            some => some,
        });
        vec![
            cells::name(object),
            cells::text(object, &["addressType"]),
            ports.into(),
            addresses.into(),
            cells::age(object, now),
        ]
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["addressType"]);
        found
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let root = Path::root();
        let ty = object.str_at(&["addressType"]);
        checks::one_of(&mut found, object, "addressType", root, &["FQDN", "IPv4", "IPv6"]);
        checks::at_most(&mut found, object, "endpoints", root, ENDPOINTS_MAX);
        if object.list_at(&["endpoints"]).len() <= ENDPOINTS_MAX {
            checks::each(object, "endpoints", root, |one, path| endpoint(&mut found, one, ty, path));
        }
        checks::at_most(&mut found, object, "ports", root, PORTS_MAX);
        if object.list_at(&["ports"]).len() > PORTS_MAX {
            return found;
        }
        let mut names = HashSet::new();
        checks::each(object, "ports", root, |port, path| {
            let name = port.str_at(&["name"]);
            if !names.insert(name) {
                found.push(FieldError::duplicate(path.child("name"), name));
            } else {
                checks::formed(&mut found, port, "name", path, name::dns1123_label);
            }
            checks::one_of(&mut found, port, "protocol", path, &["SCTP", "TCP", "UDP"]);
            if checks::given(port, "appProtocol").is_some() {
                checks::shaped(&mut found, port, "appProtocol", path, name::qualified_name);
            }
        });
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("AddressType", "string", "Which kind of addresses."),
    Column::new("Ports", "string", "The ports of the endpoints."),
    Column::new("Endpoints", "string", "The addresses of the endpoints."),
    cells::AGE,
];

const ENDPOINTS_MAX: usize = 1_000;
const ADDRESSES_MAX: usize = 100;

const PORTS_MAX: usize = 20_000;
const TOPOLOGY_LABELS_MAX: usize = 16;
const HINTS_MAX: usize = 8;

fn endpoint(found: &mut Found, endpoint: &Tree, ty: &str, path: Path<'_>) {
    if endpoint.list_at(&["addresses"]).is_empty() {
        found.push(FieldError::required(path.child("addresses"), "must contain at least 1 address"));
    }
    checks::at_most(found, endpoint, "addresses", path, ADDRESSES_MAX);
    checks::each_text(endpoint, "addresses", path, |text, path| address(found, text, ty, path));
    if checks::given(endpoint, "nodeName").is_some() {
        checks::shaped(found, endpoint, "nodeName", path, name::dns1123_subdomain);
    }
    let labels = endpoint.get("deprecatedTopology");
    let count = labels.and_then(Tree::as_map).map_or(0, skiff_object::Map::len);
    if count > TOPOLOGY_LABELS_MAX {
        found.push(FieldError::too_many(path.child("deprecatedTopology"), count, TOPOLOGY_LABELS_MAX));
    }
    found.extend(name::labels(labels, path.child("deprecatedTopology")));
    if checks::given(endpoint, "hostname").is_some() {
        checks::shaped(found, endpoint, "hostname", path, name::dns1123_label);
    }
    checks::within(endpoint, "hints", path, |hints, path| {
        for list in ["forZones", "forNodes"] {
            checks::at_most(found, hints, list, path, HINTS_MAX);
            let mut names = HashSet::new();
            checks::each(hints, list, path, |hint, path| {
                let text = hint.str_at(&["name"]);
                if !names.insert(text) {
                    found.push(FieldError::duplicate(path.child("name"), text));
                }
                checks::shaped(found, hint, "name", path, name::label_value);
            });
        }
    });
}

fn address(found: &mut Found, text: &str, ty: &str, path: Path<'_>) {
    if ty == "FQDN" {
        return checks::invalid(found, path, text, name::fully_qualified_domain(text));
    }
    let wrong = net::ip(text);
    let family = net::sloppy(text).map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" });
    if wrong.is_empty() && matches!(ty, "IPv4" | "IPv6") && family != Some(ty) {
        found.push(FieldError::invalid(path, text, format!("must be an {ty} address")));
    }
    if wrong.is_empty() {
        checks::invalid(found, path, text, net::not_special(text));
    }
    checks::invalid(found, path, text, wrong);
}
