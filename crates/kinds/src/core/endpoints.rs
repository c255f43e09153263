//! `endpoints` in `v1`.

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
use crate::kind::Kind;
use crate::table::Column;

/// The addresses behind a Service, in the old form.
pub(crate) struct Endpoints(pub(crate) Facts);

impl Kind for Endpoints {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for subset in fill::items(object, &["subsets"]) {
            for port in fill::items(subset, &["ports"]) {
                fill::text(port, "protocol", "TCP");
            }
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let mut all = Vec::new();
        for subset in object.list_at(&["subsets"]) {
            let ports = subset.list_at(&["ports"]);
            for address in subset.list_at(&["addresses"]) {
                let ip = address.str_at(&["ip"]);
                let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                if ports.is_empty() {
                    all.push(ip.clone());
                }
                all.extend(ports.iter().map(|port| format!("{ip}:{}", cells::count(port, &["port"]))));
            }
        }
        let text = if all.is_empty() { "<none>".to_owned() } else { cells::some_of(all, 3, ",") };
        vec![cells::name(object), text.into(), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let subsets = Path::new("subsets");
        for (index, subset) in object.list_at(&["subsets"]).iter().enumerate() {
            let path = subsets.index(index);
            let has = |list: &str| !subset.list_at(&[list]).is_empty();
            if !has("addresses") && !has("notReadyAddresses") {
                found.push(FieldError::required(path, "must specify `addresses` or `notReadyAddresses`"));
            }
            for list in ["addresses", "notReadyAddresses"] {
                let path = path.child(list);
                for (index, address) in subset.list_at(&[list]).iter().enumerate() {
                    let ip = address.str_at(&["ip"]);
                    checks::invalid(&mut found, path.index(index).child("ip"), ip, name::ip(ip));
                }
            }
            let ports = path.child("ports");
            for (index, port) in subset.list_at(&["ports"]).iter().enumerate() {
                let path = ports.index(index);
                let number = port.int_at(&["port"]).unwrap_or(0);
                checks::invalid_number(&mut found, path.child("port"), number, name::port_number(number));
                checks::one_of(&mut found, port, "protocol", path, &["SCTP", "TCP", "UDP"]);
            }
        }
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("Endpoints", "string", "Ready addresses with their ports."), cells::AGE];
