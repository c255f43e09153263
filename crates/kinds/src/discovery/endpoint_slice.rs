//! `endpointslices` in `discovery.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
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
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("AddressType", "string", "Which kind of addresses."),
    Column::new("Ports", "string", "The ports of the endpoints."),
    Column::new("Endpoints", "string", "The addresses of the endpoints."),
    cells::AGE,
];
