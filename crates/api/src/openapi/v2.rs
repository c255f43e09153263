//! OpenAPI 2 ("Swagger"): one document of everything.

use skiff_kinds::Registry;
use skiff_object::{Map, Schema, Tree};

use super::paths::{self, Body, Operation, Path};
use super::schema::{Dialect, Schemas, group_version_kind, object};
use super::v3::body_schema;
use super::{custom, kinds_of_type, parameter};

const MEDIA: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// The document.
pub(crate) fn document(registry: &Registry, schema: &Schema) -> Tree {
    let mut schemas = Schemas::new(schema, Dialect::V2);
    let mut all: Vec<(String, Tree)> = Vec::new();
    for (group, versions) in registry.groups() {
        for version in versions {
            let tag = paths::tag(group, version);
            for path in paths::of_group_version(registry, group, version) {
                all.push((path.path.clone(), path_item(&path, &tag, &mut schemas)));
            }
        }
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut document = Tree::map();
    document.set(&["swagger"], "2.0");
    document.set(&["info"], object([("title", "Kubernetes"), ("version", super::VERSION)]));
    document.set(&["paths"], all.into_iter().map(|(path, tree)| (path.into(), tree)).collect::<Map>());
    let customs = custom::definitions(registry.iter(), &mut schemas);
    let mut definitions = schemas.write(|id| kinds_of_type(registry, id, None));
    customs.into_iter().for_each(|(name, tree)| definitions.push_unchecked(name.into(), tree));
    definitions.sort_keys();
    document.set(&["definitions"], definitions);
    let mut requirement = Tree::map();
    requirement.set(&["BearerToken"], Tree::list());
    document.set(&["security"], vec![requirement]);
    let mut scheme = object([("type", "apiKey"), ("name", "authorization"), ("in", "header")]);
    scheme.ensure_map().insert("description", "Bearer Token authentication");
    document.set(&["securityDefinitions", "BearerToken"], scheme);
    document
}

/// The paths and definitions of the custom kinds of a group version. The types that they share with others are
/// described where those are.
pub(crate) fn part(registry: &Registry, builtin: &Registry, schema: &Schema, group: &str, version: &str) -> Tree {
    let mut schemas = Schemas::new(schema, Dialect::V2);
    let tag = paths::tag(group, version);
    let is_new = builtin.group_version(group, version).next().is_none();
    let all = paths::of_group_version(registry, group, version).into_iter();
    let root = format!("{}/", paths::base(group, version));
    let own = all.filter(|path| {
        let is_root = path.path == root;
        (is_root && is_new) || path.operations.iter().any(|operation| operation.custom)
    });
    let paths: Map = own.map(|path| (path.path.clone().into(), path_item(&path, &tag, &mut schemas))).collect();
    let mut definitions = custom::definitions(registry.group_version(group, version), &mut schemas);
    definitions.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut part = Tree::map();
    part.set(&["paths"], paths);
    part.set(&["definitions"], definitions.into_iter().map(|(name, tree)| (name.into(), tree)).collect::<Map>());
    part
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
    item
}

fn operation_tree(operation: &Operation, tag: &str, schemas: &mut Schemas<'_>) -> Tree {
    let texts = |items: &[&str]| items.iter().map(|item| Tree::from(*item)).collect::<Vec<_>>();
    let mut tree = Tree::map();
    let is_patch = matches!(operation.request, Some(Body::Patch));
    let consumes = if is_patch { custom::media(operation, &PATCHES) } else { vec!["*/*"] };
    tree.set(&["consumes"], texts(&consumes));
    tree.set(&["description"], operation.description.as_str());
    tree.set(&["operationId"], operation.id.as_str());
    let mut parameters: Vec<Tree> = Vec::new();
    if let Some(body) = &operation.request {
        let mut parameter = object([("in", "body"), ("name", "body")]);
        if !matches!(body, Body::DeleteOptions) {
            parameter.ensure_map().insert("required", true);
        }
        let schema = body_schema(body, schemas);
        parameter.ensure_map().insert("schema", schema);
        parameters.push(parameter);
    }
    parameters.extend(operation.parameters.iter().map(|name| parameter_tree(name, "")));
    if !parameters.is_empty() {
        tree.set(&["parameters"], parameters);
    }
    let is_text = matches!(operation.response, Body::Text);
    let mut produces = if is_text { vec!["*/*"] } else { custom::media(operation, &MEDIA) };
    if operation.streams {
        produces.extend(custom::media(operation, &STREAMS));
    }
    tree.set(&["produces"], texts(&produces));
    for code in ["200"].into_iter().chain(operation.also.iter().copied()) {
        let description = match code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        let schema = body_schema(&operation.response, schemas);
        tree.set(&["responses", code, "description"], description);
        tree.set(&["responses", code, "schema"], schema);
    }
    tree.set(&["responses", "401", "description"], "Unauthorized");
    tree.set(&["schemes"], texts(&["https"]));
    tree.set(&["tags"], texts(&[tag]));
    if !operation.action.is_empty() {
        tree.set(&["x-kubernetes-action"], operation.action);
        tree.set(&["x-kubernetes-group-version-kind"], group_version_kind(&operation.kind));
    }
    tree
}

fn parameter_tree(name: &'static str, kind: &str) -> Tree {
    let parameter = parameter(name, kind);
    let mut tree = object([
        ("description", &parameter.description),
        ("in", parameter.place),
        ("name", name),
        ("type", parameter.ty),
    ]);
    if parameter.place == "path" {
        tree.ensure_map().insert("required", true);
    }
    tree.ensure_map().insert("uniqueItems", true);
    tree
}
