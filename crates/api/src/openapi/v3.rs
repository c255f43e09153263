//! OpenAPI 3: one document per group version.

use skiff_kinds::{Registry, type_named};
use skiff_object::{Map, Schema, Tree};

use super::paths::{self, Body, Operation, Path};
use super::schema::{Dialect, Schemas, group_version_kind, object};
use super::{custom, kinds_of_type, parameter};

const MEDIA: [&str; 3] = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// The document of one group version.
pub(crate) fn document(registry: &Registry, schema: &Schema, group: &str, version: &str) -> Tree {
    let mut schemas = Schemas::new(schema, Dialect::V3);
    let tag = paths::tag(group, version);
    let paths: Map = paths::of_group_version(registry, group, version)
        .into_iter()
        .map(|path| (path.path.clone().into(), path_item(&path, &tag, &mut schemas)))
        .collect();
    let mut document = Tree::map();
    let customs = custom::definitions(registry.group_version(group, version), &mut schemas);
    let mut written = schemas.write(|id| kinds_of_type(registry, id, Some((group, version))));
    customs.into_iter().for_each(|(name, tree)| written.push_unchecked(name.into(), tree));
    written.sort_keys();
    document.set(&["components", "schemas"], written);
    let mut scheme = object([("type", "apiKey"), ("in", "header"), ("name", "authorization")]);
    scheme.ensure_map().insert("description", "Bearer Token authentication");
    document.set(&["components", "securitySchemes", "BearerToken"], scheme);
    document.set(&["info"], object([("title", "Kubernetes"), ("version", "unversioned")]));
    document.set(&["openapi"], "3.0.0");
    document.set(&["paths"], paths);
    document
}

fn path_item(path: &Path, tag: &str, schemas: &mut Schemas<'_>) -> Tree {
    let mut item = Tree::map();
    for operation in &path.operations {
        let written = operation_tree(operation, tag, schemas);
        item.ensure_map().insert(operation.method, written);
    }
    if !path.parameters.is_empty() {
        let parameters: Vec<Tree> = path.parameters.iter().map(|name| parameter_tree(name, &path.kind)).collect();
        item.ensure_map().insert("parameters", parameters);
    }
    item.ensure_map().sort_keys();
    item
}

fn operation_tree(operation: &Operation, tag: &str, schemas: &mut Schemas<'_>) -> Tree {
    let mut tree = Tree::map();
    tree.set(&["description"], operation.description.as_str());
    tree.set(&["operationId"], operation.id.as_str());
    if !operation.parameters.is_empty() {
        let parameters: Vec<Tree> = operation.parameters.iter().map(|name| parameter_tree(name, "")).collect();
        tree.set(&["parameters"], parameters);
    }
    if let Some(body) = &operation.request {
        let media = if matches!(body, Body::Patch) { custom::media(operation, &PATCHES) } else { vec!["*/*"] };
        let content = content(body, &media, schemas);
        tree.set(&["requestBody", "content"], content);
        if !matches!(body, Body::DeleteOptions) {
            tree.set(&["requestBody", "required"], true);
        }
    }
    let media: Vec<&'static str> = match (&operation.response, operation.streams) {
        (Body::Text, _) => vec!["*/*"],
        (_, true) => [custom::media(operation, &MEDIA), custom::media(operation, &STREAMS)].concat(),
        (_, false) => custom::media(operation, &MEDIA),
    };
    for code in ["200"].into_iter().chain(operation.also.iter().copied()) {
        let description = match code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        let content = content(&operation.response, &media, schemas);
        tree.set(&["responses", code, "content"], content);
        tree.set(&["responses", code, "description"], description);
    }
    tree.set(&["responses", "401", "description"], "Unauthorized");
    tree.set(&["tags"], vec![Tree::from(tag)]);
    if !operation.action.is_empty() {
        tree.set(&["x-kubernetes-action"], operation.action);
        tree.set(&["x-kubernetes-group-version-kind"], group_version_kind(&operation.kind));
    }
    tree
}

fn content(body: &Body, media: &[&'static str], schemas: &mut Schemas<'_>) -> Map {
    media
        .iter()
        .map(|media| {
            let mut tree = Tree::map();
            tree.ensure_map().insert("schema", body_schema(body, schemas));
            ((*media).into(), tree)
        })
        .collect()
}

pub(super) fn body_schema(body: &Body, schemas: &mut Schemas<'_>) -> Tree {
    let mut named = |name: &str| {
        let id = type_named(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"));
        id.map_or_else(|| object([("type", "object")]), |id| schemas.refer(id))
    };
    match body {
        Body::Object(id) => schemas.refer(*id),
        Body::Custom(api_version, kind) => schemas.dialect().reference(&custom::model_name(api_version, kind)),
        Body::DeleteOptions => named("DeleteOptions"),
        Body::Status => named("Status"),
        Body::WatchEvent => named("WatchEvent"),
        Body::Resources => named("APIResourceList"),
        Body::Patch => object([("type", "object")]),
        Body::Text => object([("type", "string")]),
    }
}

fn parameter_tree(name: &'static str, kind: &str) -> Tree {
    let parameter = parameter(name, kind);
    let mut tree = object([("description", &parameter.description), ("in", parameter.place), ("name", name)]);
    if parameter.place == "path" {
        tree.ensure_map().insert("required", true);
    }
    let mut schema = object([("type", parameter.ty)]);
    schema.ensure_map().insert("uniqueItems", true);
    tree.ensure_map().insert("schema", schema);
    tree
}
