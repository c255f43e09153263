//! `componentstatuses` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// The health of a control-plane component; read only, never stored.
pub(crate) struct ComponentStatus(pub(crate) Facts);

impl Kind for ComponentStatus {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn deprecation(&self) -> Option<&str> {
        Some("v1 ComponentStatus is deprecated in v1.19+")
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, _: Time) -> Vec<Tree> {
        let conditions = object.list_at(&["conditions"]);
        let healthy = conditions.iter().find(|condition| condition.str_at(&["type"]) == "Healthy");
        let text = |field: &str| healthy.map_or("", |condition| condition.str_at(&[field])).to_owned();
        let status = match text("status").as_str() {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        vec![cells::name(object), status.into(), text("message").into(), text("error").into()]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Status", "string", "Whether it is healthy."),
    Column::new("Message", "string", "What it says."),
    Column::new("Error", "string", "Why it could not be asked."),
];
