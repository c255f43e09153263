//! `meta.k8s.io/v1 Table`: what `kubectl get` prints.

use skiff_kinds::Kind;
use skiff_object::{Map, Tree};

use crate::negotiate::IncludeObject;
use crate::respond;

/// A table with one row for each object; the columns only where they are wanted (a watch sends
/// them once).
pub fn of(kind: &dyn Kind, objects: &[Tree], version: &str, include: IncludeObject, columns: bool) -> Tree {
    let mut table = Map::new();
    table.insert("kind", "Table");
    table.insert("apiVersion", "meta.k8s.io/v1");
    let mut metadata = Map::new();
    metadata.insert("resourceVersion", version);
    table.insert("metadata", Tree::Map(metadata));
    table.insert("columnDefinitions", if columns { column_definitions(kind) } else { Tree::Null });
    table.insert("rows", objects.iter().map(|object| row(kind, object, include)).collect::<Vec<_>>());
    Tree::Map(table)
}

fn column_definitions(_kind: &dyn Kind) -> Tree {
    let column = |name: &str, ty: &str, format: &str, description: &str| {
        let mut column = Map::new();
        column.insert("name", name);
        column.insert("type", ty);
        column.insert("format", format);
        column.insert("description", description);
        column.insert("priority", 0);
        Tree::Map(column)
    };
    Tree::List(vec![
        column("Name", "string", "name", "Name, unique within its namespace and resource"),
        column("Created At", "date", "", "When the object was made"),
    ])
}

fn row(_kind: &dyn Kind, object: &Tree, include: IncludeObject) -> Tree {
    let mut row = Map::new();
    row.insert(
        "cells",
        vec![
            object.at(&["metadata", "name"]).cloned().unwrap_or_default(),
            object.at(&["metadata", "creationTimestamp"]).cloned().unwrap_or_default(),
        ],
    );
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
