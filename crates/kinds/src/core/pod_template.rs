//! `podtemplates` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;
use crate::{cells, fill, pod_spec};

/// A pod to be, on its own.
pub(crate) struct PodTemplate(pub(crate) Facts);

impl Kind for PodTemplate {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }

    fn default(&self, object: &mut Tree) {
        pod_spec::template(fill::within(object, "template"));
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, _now: Time) -> Vec<Tree> {
        let [containers, images] = cells::containers(object, &["template", "spec"]);
        vec![cells::name(object), containers, images, cells::labels(object, &["template", "metadata", "labels"])]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let template = object.get("template").unwrap_or(&Tree::Null);
        pod_spec::validate::template(&mut found, template, Path::new("template"));
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Containers", "string", "The containers of the template."),
    Column::new("Images", "string", "The images of the template's containers."),
    Column::new("Pod Labels", "string", "The labels of the template."),
];
