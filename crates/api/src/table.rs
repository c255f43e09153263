//! `meta.k8s.io/v1 Table`: what `kubectl get` prints.

use skiff_kinds::Kind;
use skiff_object::time::Time;
use skiff_object::{Map, Tree};

use crate::negotiate::IncludeObject;
use crate::respond;

/// How a table is made.
#[derive(Clone, Copy)]
pub struct Style<'a> {
    /// What a row carries of its object.
    pub include: IncludeObject,
    /// Whether the columns come along: a watch sends them once.
    pub columns: bool,
    /// The resourceVersion of the table.
    pub version: &'a str,
    /// Ages are measured from here.
    pub now: Time,
}

/// A table with one row for each object.
pub fn of(kind: &dyn Kind, objects: &[Tree], style: Style<'_>) -> Tree {
    let mut table = Map::new();
    table.insert("kind", "Table");
    table.insert("apiVersion", "meta.k8s.io/v1");
    let mut metadata = Map::new();
    metadata.insert("resourceVersion", style.version);
    table.insert("metadata", Tree::Map(metadata));
    table.insert("columnDefinitions", if style.columns { column_definitions(kind) } else { Tree::Null });
    table.insert("rows", objects.iter().map(|object| row(kind, object, style.include, style.now)).collect::<Vec<_>>());
    Tree::Map(table)
}

/// The columns of a kind.
pub(crate) fn column_definitions(kind: &dyn Kind) -> Tree {
    let columns = kind.columns();
    let columns = columns.iter().map(|column| {
        let mut tree = Map::new();
        tree.insert("name", column.name.as_ref());
        tree.insert("type", column.ty.as_ref());
        tree.insert("format", column.format.as_ref());
        tree.insert("description", column.description.as_ref());
        tree.insert("priority", column.priority);
        Tree::Map(tree)
    });
    Tree::List(columns.collect())
}

/// An object as a row.
pub(crate) fn row(kind: &dyn Kind, object: &Tree, include: IncludeObject, now: Time) -> Tree {
    let mut row = Map::new();
    row.insert("cells", kind.row(object, now));
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row.insert("object", respond::metadata_only(object, "PartialObjectMetadata"));
        }
        IncludeObject::Object => {
            row.insert("object", object.clone());
        }
    }
    Tree::Map(row)
}
