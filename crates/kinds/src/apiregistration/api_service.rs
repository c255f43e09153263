//! `apiservices` in `apiregistration.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::table::Column;

/// A group and version, and who serves it.
pub(crate) struct APIService(pub(crate) Facts);

impl Kind for APIService {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::each(object, &["spec", "service"], |service| fill::absent(service, "port", 443));
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let service = match object.at(&["spec", "service"]) {
            Some(service @ Tree::Map(_)) => format!("{}/{}", service.str_at(&["namespace"]), service.str_at(&["name"])),
            _ => "Local".to_owned(),
        };
        let conditions = object.list_at(&["status", "conditions"]);
        let available = conditions.iter().find(|one| one.str_at(&["type"]) == "Available");
        let available = match available.map(|one| (one.str_at(&["status"]), one.str_at(&["reason"]))) {
            None => "Unknown".to_owned(),
            Some(("True", _)) => "True".to_owned(),
            Some((status, reason)) => format!("{status} ({reason})"),
        };
        vec![cells::name(object), service.into(), available.into(), cells::age(object, now)]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Service", "string", "Who serves it."),
    Column::new("Available", "string", "Whether it can be reached."),
    cells::AGE,
];
