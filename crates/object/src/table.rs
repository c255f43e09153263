//! The `Table` form of lists: what `kubectl get` prints.
//!
//! A kind gives its [`Column`]s and the [`Row`] of an object; the server wraps them into a
//! `meta.k8s.io/v1` `Table` together with the objects or their metadata.

use crate::tree::{Map, Tree};

/// A column of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// The heading; clients print it in capitals.
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, …
    pub ty: &'static str,
    /// `name` for the column that identifies the object, `password`, … or nothing.
    pub format: &'static str,
    /// What the column tells.
    pub description: &'static str,
    /// 0 is always shown, more only with `-o wide`.
    pub priority: i32,
}

/// The cells of one object, as many as there are columns.
pub type Row = Vec<Tree>;

impl Column {
    /// The column `Name`, with which every table starts.
    pub const NAME: Self = Self {
        name: "Name",
        ty: "string",
        format: "name",
        description: "The name of the object, unique within its namespace and kind.",
        priority: 0,
    };
    /// The column `Age`.
    pub const AGE: Self = Self::string("Age", "The time since the object was created.");

    /// A column of strings.
    pub const fn string(name: &'static str, description: &'static str) -> Self {
        Self { name, ty: "string", format: "", description, priority: 0 }
    }

    /// A column of whole numbers.
    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { ty: "integer", ..Self::string(name, description) }
    }

    /// The same column, shown with `-o wide` only.
    pub const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    /// The definition as it stands in `columnDefinitions`.
    pub fn definition(&self) -> Tree {
        let mut out = Map::new();
        out.insert("name", self.name);
        out.insert("type", self.ty);
        out.insert("format", self.format);
        out.insert("description", self.description);
        out.insert("priority", self.priority);
        Tree::Map(out)
    }
}

/// A `Table` of the given columns, without rows and list metadata.
pub fn table(columns: &[Column]) -> Tree {
    let mut out = Map::new();
    out.insert("kind", "Table");
    out.insert("apiVersion", "meta.k8s.io/v1");
    out.insert("metadata", Tree::map());
    out.insert("columnDefinitions", Tree::List(columns.iter().map(Column::definition).collect()));
    out.insert("rows", Tree::list());
    Tree::Map(out)
}

/// A row of a `Table`: the cells and, when the client wants it, the object or its metadata.
pub fn table_row(cells: Row, object: Option<Tree>) -> Tree {
    let mut out = Map::new();
    out.insert("cells", Tree::List(cells));
    out.insert("object", object.unwrap_or_default());
    Tree::Map(out)
}
