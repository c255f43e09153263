//! `endpoints` in `v1`.

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

    fn deprecation(&self) -> Option<&str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
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
        judge(object, &HashSet::new())
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        // An address that was accepted once may be written loosely.
        let kept = old.list_at(&["subsets"]).iter().flat_map(|subset| {
            LISTS.iter().flat_map(|list| subset.list_at(&[list])).map(|address| address.str_at(&["ip"]))
        });
        judge(new, &kept.collect())
    }
}

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("Endpoints", "string", "Ready addresses with their ports."), cells::AGE];

const LISTS: [&str; 2] = ["addresses", "notReadyAddresses"];

fn judge(object: &Tree, kept: &HashSet<&str>) -> Found {
    let mut found = Found::new();
    checks::each(object, "subsets", Path::root(), |subset, path| {
        if LISTS.iter().all(|list| subset.list_at(&[list]).is_empty()) {
            found.push(FieldError::required(path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for list in LISTS {
            checks::each(subset, list, path, |address, path| {
                let ip = address.str_at(&["ip"]);
                if !kept.contains(ip) {
                    checks::invalid(&mut found, path.child("ip"), ip, net::ip(ip));
                }
                checks::formed(&mut found, address, "hostname", path, name::dns1123_label);
                if checks::given(address, "nodeName").is_some() {
                    checks::shaped(&mut found, address, "nodeName", path, name::dns1123_subdomain);
                }
                if net::sloppy(ip).is_some() {
                    checks::invalid(&mut found, path.child("ip"), ip, net::not_special(ip));
                }
            });
        }
        let several = subset.list_at(&["ports"]).len() > 1;
        checks::each(subset, "ports", path, |port, path| self::port(&mut found, port, several, path));
    });
    found
}

fn port(found: &mut Found, port: &Tree, named: bool, path: Path<'_>) {
    if named {
        checks::needed(found, port, "name", path, name::dns1123_label);
    } else {
        checks::formed(found, port, "name", path, name::dns1123_label);
    }
    checks::port_in_range(found, port, "port", path);
    checks::one_of(found, port, "protocol", path, &["SCTP", "TCP", "UDP"]);
    if checks::given(port, "appProtocol").is_some() {
        checks::shaped(found, port, "appProtocol", path, name::qualified_name);
    }
}
