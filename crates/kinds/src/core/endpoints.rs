//! `endpoints` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
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
        vec![
            cells::name(object),
            text.into(),
            cells::age(object, now),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Endpoints", "string", "Ready addresses with their ports."),
    cells::AGE,
];
