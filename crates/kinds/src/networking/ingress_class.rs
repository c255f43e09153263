//! `ingressclasses` in `networking.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::errors::FieldError;
use skiff_object::time::Time;
use skiff_object::{Tree, name};

use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;
use crate::{cells, fill};

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

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["spec", "controller"]);
        found
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        if checks::required(&mut found, spec, "controller", SPEC).is_some() {
            checks::not_longer(&mut found, spec, "controller", SPEC, CONTROLLER_BYTES_MAX);
            checks::formed(&mut found, spec, "controller", SPEC, name::domain_prefixed_path);
        }
        checks::within(spec, "parameters", SPEC, |parameters, path| {
            checks::formed(&mut found, parameters, "apiGroup", path, name::dns1123_subdomain);
            checks::needed(&mut found, parameters, "kind", path, name::path_segment);
            checks::needed(&mut found, parameters, "name", path, name::path_segment);
            let namespace = checks::given(parameters, "namespace").is_some();
            match parameters.str_at(&["scope"]) {
                "" => found.push(FieldError::required(path.child("scope"), "")),
                "Namespace" if !namespace => {
                    let why = "`parameters.scope` is set to 'Namespace'";
                    found.push(FieldError::required(path.child("namespace"), why));
                }
                "Namespace" => checks::shaped(&mut found, parameters, "namespace", path, name::dns1123_label),
                "Cluster" if namespace => {
                    let why = "`parameters.scope` is set to 'Cluster'";
                    found.push(FieldError::forbidden(path.child("namespace"), why));
                }
                _ => checks::only(&mut found, parameters, "scope", path, &["Cluster", "Namespace"]),
            }
        });
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Controller", "string", "Who serves it."),
    Column::new("Parameters", "string", "Where its settings are."),
    cells::AGE,
];

/// How long the name of a controller may be.
const CONTROLLER_BYTES_MAX: usize = 250;
