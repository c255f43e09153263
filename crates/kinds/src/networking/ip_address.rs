//! `ipaddresses` in `networking.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// An address that is taken, and by whom.
pub(crate) struct IPAddress(pub(crate) Facts);

impl Kind for IPAddress {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let parent = match object.at(&["spec", "parentRef"]) {
            Some(parent @ Tree::Map(_)) => {
                let place = ["resource", "group", "namespace", "name"].map(|field| parent.str_at(&[field]));
                let [resource, group, namespace, name] = place;
                let dot = if group.is_empty() { "" } else { "." };
                let slash = if namespace.is_empty() { "" } else { "/" };
                format!("{resource}{dot}{group}/{namespace}{slash}{name}")
            }
            _ => "<none>".to_owned(),
        };
        vec![cells::name(object), parent.into(), cells::age(object, now)]
    }
}

const COLUMNS: &[Column] = &[Column::name(), Column::new("ParentRef", "string", "Whose address it is."), cells::AGE];
