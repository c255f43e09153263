//! `endpointslices` in `discovery.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::name;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks;
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

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        checks::one_of(&mut found, object, "addressType", Path::root(), &["FQDN", "IPv4", "IPv6"]);
        let list = Path::new("endpoints");
        let endpoints = object.list_at(&["endpoints"]);
        if endpoints.len() > ENDPOINTS_MAX {
            found.push(FieldError::too_many(list, endpoints.len(), ENDPOINTS_MAX));
            return found;
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let path = list.index(index);
            let addresses = path.child("addresses");
            let given = endpoint.list_at(&["addresses"]);
            if given.is_empty() {
                found.push(FieldError::required(addresses, "must contain at least 1 address"));
            }
            if given.len() > ADDRESSES_MAX {
                found.push(FieldError::too_many(addresses, given.len(), ADDRESSES_MAX));
            }
            for (index, address) in given.iter().filter_map(Tree::as_str).enumerate() {
                let wrong = match object.str_at(&["addressType"]) {
                    "FQDN" => name::dns1123_subdomain(address),
                    _ => name::ip(address),
                };
                checks::invalid(&mut found, addresses.index(index), address, wrong);
            }
        }
        let list = Path::new("ports");
        let mut names = std::collections::HashSet::new();
        for (index, port) in object.list_at(&["ports"]).iter().enumerate() {
            let path = list.index(index);
            let name = port.str_at(&["name"]);
            if !names.insert(name) {
                found.push(FieldError::duplicate(path.child("name"), name));
            } else if !name.is_empty() {
                checks::invalid(&mut found, path.child("name"), name, name::dns1123_label(name));
            }
            checks::one_of(&mut found, port, "protocol", path, &["SCTP", "TCP", "UDP"]);
        }
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["addressType"]);
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
