//! `ingressclasses` in `networking.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// Who implements an Ingress.
pub(crate) struct IngressClass(pub(crate) Facts);

impl Kind for IngressClass {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        fill::each(object, &["spec", "parameters"], |parameters| fill::absent(parameters, "scope", "Cluster"));
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let parameters = match object.at(&["spec", "parameters"]) {
            Some(parameters @ Tree::Map(_)) => {
                let group = parameters.str_at(&["apiGroup"]);
                let dot = if group.is_empty() { "" } else { "." };
                format!("{}{dot}{group}/{}", parameters.str_at(&["kind"]), parameters.str_at(&["name"]))
            }
            _ => "<none>".to_owned(),
        };
        vec![
            cells::name(object),
            cells::text(object, &["spec", "controller"]),
            parameters.into(),
            cells::age(object, now),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = object.get("spec").unwrap_or(&Tree::Null);
        checks::required(&mut found, spec, "controller", SPEC);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["spec", "controller"]);
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Controller", "string", "Who serves it."),
    Column::new("Parameters", "string", "Where its settings are."),
    cells::AGE,
];
