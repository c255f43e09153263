//! `runtimeclasses` in `node.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::time::Time;
use skiff_object::{Tree, name};

use crate::checks::{self, resources};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, pod_spec, rules};

/// How containers are run.
pub(crate) struct RuntimeClass(pub(crate) Facts);

impl Kind for RuntimeClass {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::text(object, &["handler"]), cells::age(object, now)]
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["handler"]);
        found
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let root = Path::root();
        checks::shaped(&mut found, object, "handler", root, name::dns1123_label);
        checks::within(object, "overhead", root, |overhead, path| {
            let mut limits = Tree::map();
            limits.set(&["limits"], overhead.get("podFixed").cloned().unwrap_or_default());
            resources::requirements(&mut found, &limits, resources::Strictness::default(), path);
        });
        checks::within(object, "scheduling", root, |scheduling, path| {
            found.extend(name::labels(scheduling.get("nodeSelector"), path.child("nodeSelector")));
            let mut seen: Vec<&Tree> = Vec::new();
            checks::each(scheduling, "tolerations", path, |toleration, path| {
                pod_spec::toleration(&mut found, toleration, path);
                if seen.iter().any(|other| rules::same(Some(other), Some(toleration))) {
                    found.push(FieldError::duplicate(path, BadValue::from(toleration)));
                }
                seen.push(toleration);
            });
        });
        found
    }
}

const COLUMNS: &[Column] = &[Column::name(), Column::new("Handler", "string", "What runs its containers."), cells::AGE];
