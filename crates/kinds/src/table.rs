//! The columns that `kubectl get` shows: what a kind says about its own table.

use std::borrow::Cow;

use skiff_object::Tree;

/// A column of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// The heading; `kubectl` prints it in capitals.
    pub name: Cow<'static, str>,
    /// OpenAPI's type: `string`, `integer`, `number`, `boolean`, or `date`.
    pub ty: Cow<'static, str>,
    /// OpenAPI's format; `name` marks the column that identifies the row.
    pub format: Cow<'static, str>,
    /// What the column says, for people.
    pub description: Cow<'static, str>,
    /// 0 is always shown, 1 only in wide output.
    pub priority: i32,
}

impl Column {
    /// A column that is always shown.
    pub const fn new(name: &'static str, ty: &'static str, description: &'static str) -> Self {
        Self::of(name, ty, "", description, 0)
    }

    /// A column that is shown only in wide output.
    pub const fn wide(name: &'static str, ty: &'static str, description: &'static str) -> Self {
        Self::of(name, ty, "", description, 1)
    }

    /// The column with the object's name, which every table begins with.
    pub const fn name() -> Self {
        Self::of("Name", "string", "name", "The name of the object, unique within its scope.", 0)
    }

    /// As [`Column::name`], shown only in wide output.
    pub const fn wide_name() -> Self {
        Self::of("Name", "string", "name", "The name of the object, unique within its scope.", 1)
    }

    const fn of(
        name: &'static str,
        ty: &'static str,
        format: &'static str,
        description: &'static str,
        priority: i32,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            ty: Cow::Borrowed(ty),
            format: Cow::Borrowed(format),
            description: Cow::Borrowed(description),
            priority,
        }
    }
}

/// The columns of a kind that says nothing about its table.
pub const DEFAULT_COLUMNS: &[Column] =
    &[Column::name(), Column::new("Created At", "date", "When the object was created.")];

/// The row of a kind that says nothing about its table.
pub fn default_row(object: &Tree) -> Vec<Tree> {
    vec![object.str_at(&["metadata", "name"]).into(), object.str_at(&["metadata", "creationTimestamp"]).into()]
}
