//! `ingresses` in `networking.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// HTTP routes into the cluster.
pub(crate) struct Ingress(pub(crate) Facts);

impl Kind for Ingress {
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
        let class = match object.str_at(&["spec", "ingressClassName"]) {
            "" => cells::text_or(object, &["metadata", "annotations", "kubernetes.io/ingress.class"], "<none>"),
            class => class.into(),
        };
        let hosts = object.list_at(&["spec", "rules"]).iter().map(|rule| rule.str_at(&["host"]).to_owned());
        let hosts = cells::some_of(hosts.filter(|host| !host.is_empty()).collect(), 3, ",");
        let ports = if object.list_at(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
        vec![
            cells::name(object),
            class,
            if hosts.is_empty() { "*".into() } else { hosts.into() },
            cells::load_balancer(object).join(",").into(),
            ports.into(),
            cells::age(object, now),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Class", "string", "The class that serves it."),
    Column::new("Hosts", "string", "The hosts it answers for."),
    Column::new("Address", "string", "Where it is reached."),
    Column::new("Ports", "string", "On which ports."),
    cells::AGE,
];
