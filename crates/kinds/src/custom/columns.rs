//! `additionalPrinterColumns`: columns found by JSONPath.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::{Time, human_duration};

use crate::custom::jsonpath::{self, JsonPath};
use crate::table::Column;

/// A column and where its cells come from.
pub(super) struct PrinterColumn {
    pub(super) column: Column,
    path: JsonPath,
}

/// The columns of a version. One path that cannot be read, and the table has no columns but the name, as upstream
/// has it.
pub(super) fn of_version(version: &Tree) -> Vec<PrinterColumn> {
    let columns = version.list_at(&["additionalPrinterColumns"]);
    if columns.is_empty() {
        return PrinterColumn::age().into_iter().collect();
    }
    columns.iter().map(PrinterColumn::new).collect::<Option<Vec<_>>>().unwrap_or_default()
}

impl PrinterColumn {
    /// What a definition without columns shows.
    fn age() -> Option<Self> {
        Some(Self {
            column: Column::new("Age", "date", "When the object was created."),
            path: JsonPath::parse(".metadata.creationTimestamp")?,
        })
    }

    fn new(definition: &Tree) -> Option<Self> {
        let text = |field: &str| Cow::Owned(definition.str_at(&[field]).to_owned());
        let path = definition.str_at(&["jsonPath"]);
        let described = definition.str_at(&["description"]);
        let description = match described {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            text => text.to_owned(),
        };
        let column = Column {
            name: text("name"),
            ty: text("type"),
            format: text("format"),
            description: Cow::Owned(description),
            priority: definition.int_at(&["priority"]).and_then(|value| i32::try_from(value).ok()).unwrap_or_default(),
        };
        Some(Self { column, path: JsonPath::parse(path)? })
    }

    /// The cell of an object: the first value that the path leads to, if it is of the column's type.
    pub(super) fn cell(&self, object: &Tree, now: Time) -> Tree {
        let Some(value) = self.path.find(object).into_iter().next() else { return Tree::Null };
        match (self.column.ty.as_ref(), value) {
            (_, Tree::Null) => Tree::Null,
            ("string", value) => jsonpath::plain(value).into(),
            ("integer", Tree::Int(_)) | ("number", Tree::Int(_) | Tree::Float(_)) | ("boolean", Tree::Bool(_)) => {
                value.clone()
            }
            ("integer", Tree::Float(number)) => Tree::Int(*number as i64),
            ("date", Tree::Str(text)) => match Time::parse(text) {
                Ok(time) => human_duration(now.to_nanos().saturating_sub(time.to_nanos())).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Tree::Null,
        }
    }
}
