//! `secrets` in `v1`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, data};
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::table::Column;

/// Settings that are nobody else's business.
pub(crate) struct Secret(pub(crate) Facts);

impl Kind for Secret {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::text(object, "type", "Opaque");
        // `stringData` is for writing only: it ends up in `data`.
        let Some(Tree::Map(plain)) = object.unset(&["stringData"]) else { return };
        let data = fill::within(object, "data").ensure_map();
        for (key, value) in plain {
            data.insert(key, STANDARD.encode(value.as_str().unwrap_or("")));
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![
            cells::name(object),
            cells::text(object, &["type"]),
            cells::size(object, &["data"]),
            cells::age(object, now),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let bytes = data::keys(&mut found, object, "data", true);
        data::size(&mut found, bytes, "data");
        let has = |key: &str| object.at(&["data", key]).is_some();
        let needed: &[&str] = match object.str_at(&["type"]) {
            "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
            "kubernetes.io/dockercfg" => &[".dockercfg"],
            "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
            "kubernetes.io/tls" => &["tls.crt", "tls.key"],
            "kubernetes.io/basic-auth" if !has("username") && !has("password") => &["username", "password"],
            _ => &[],
        };
        for key in needed.iter().filter(|key| !has(key)) {
            found.push(FieldError::required(format!("data[{key}]"), ""));
        }
        let account = ["metadata", "annotations", "kubernetes.io/service-account.name"];
        if object.str_at(&["type"]) == "kubernetes.io/service-account-token" && object.str_at(&account).is_empty() {
            found.push(FieldError::required("metadata.annotations[kubernetes.io/service-account.name]", ""));
        }
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["type"]);
        data::kept(&mut found, new, old, &["data"]);
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Type", "string", "What it is for."),
    Column::new("Data", "string", "How many entries it has."),
    cells::AGE,
];
