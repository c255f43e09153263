//! `scale`: how many there are and shall be, in the same words for every kind.

use http::{Response, StatusCode};
use skiff_kinds::Verb;
use skiff_kinds::kind::ScalePaths;
use skiff_object::selector::label;
use skiff_object::{Key, Tree, TypeId};

use crate::admission::{Attributes, Operation, Options, Rounds};
use crate::body::Body;
use crate::chain::Call;
use crate::custom;
use crate::errors::{ApiError, ApiResult, Qualified};
use crate::negotiate::{self, Offer};
use crate::request::options::WriteOptions;
use crate::server::ApiServer;
use crate::storage::Stored;
use crate::verbs::update::{self, CONFLICT_RETRIES_MAX, ChangeKind};
use crate::verbs::{Subject, patch};
use crate::write::{self, Expected, Writer};
use crate::{meta, respond};

const API_VERSION: &str = "autoscaling/v1";

/// Reads or writes a scale.
///
/// # Errors
/// As any get, update or patch.
pub async fn answer(server: &ApiServer, call: &mut Call, subject: &Subject, verb: Verb) -> ApiResult<Response<Body>> {
    let form = negotiate::accept(&call.headers, &call.query, Offer::PLAIN)?;
    let paths = subject.kind.scale().ok_or_else(|| ApiError::internal("the kind has no scale"))?;
    let ty = scale_type()?;
    let scale = match verb {
        Verb::Get => {
            let stored = subject.collection.get(&subject.namespace, &subject.name).await?;
            let stored = stored.ok_or_else(|| subject.not_found())?;
            let stored = custom::convert::served_one(server, subject.kind.as_ref(), stored).await?;
            let object = respond::served(subject.kind.as_ref(), &stored)?;
            if subject.kind.custom().is_some() && at(&object, &paths.spec_replicas).is_none() {
                let path: String = paths.spec_replicas.iter().map(|key| format!(".{}", key.as_str())).collect();
                return Err(ApiError::internal(format!("the spec replicas field {path:?} does not exist")));
            }
            read(&paths, &object)
        }
        _ => write_scale(server, call, subject, verb, &paths, ty).await?,
    };
    Ok(respond::tree(StatusCode::OK, &scale, Some(ty), skiff_kinds::schema(), form))
}

fn scale_type() -> ApiResult<TypeId> {
    respond::type_named(API_VERSION, "Scale").ok_or_else(|| ApiError::internal("Scale is not in the schema"))
}

/// What a new scale is made from.
enum Wanted {
    Whole(Tree),
    Patch(patch::Patch),
}

async fn write_scale(
    server: &ApiServer,
    call: &mut Call,
    subject: &Subject,
    verb: Verb,
    paths: &ScalePaths,
    ty: TypeId,
) -> ApiResult<Tree> {
    let schema = skiff_kinds::schema();
    let expected = Expected { api_version: API_VERSION, kind: "Scale", schema, ty };
    let options = WriteOptions::parse(&call.query, if verb == Verb::Patch { "PatchOptions" } else { "UpdateOptions" })?;
    let wanted = if verb == Verb::Patch {
        let kind = negotiate::patch_type(&call.headers, true)?;
        Wanted::Patch(patch::read(call, kind, options.field_validation).await?)
    } else {
        Wanted::Whole(write::decode_body(call, Offer::PLAIN, expected, options.field_validation).await?)
    };
    // The object below is written whole: its generation grows like with any change of its spec.
    let target = Subject { subresource: String::new(), ..subject.clone() };
    let writer =
        Writer { is_admitted: true, recorded: &subject.subresource, ..Writer::of(server, call, &target, &options) };
    for _ in 0..CONFLICT_RETRIES_MAX {
        let current = writer.current().await?;
        let current = current.ok_or_else(|| subject.not_found())?;
        let old = respond::served(subject.kind.as_ref(), &current)?;
        let old_scale = read(paths, &old);
        let mut scale = match &wanted {
            Wanted::Whole(scale) => scale.clone(),
            Wanted::Patch(patch) => patch::merge(patch, &old_scale, schema, ty)?,
        };
        let attributes = Attributes {
            operation: Operation::Update,
            subject,
            name: &subject.name,
            user: &call.user,
            dry_run: options.dry_run,
            call: Some(call),
            options: Options::Update(&options),
            rounds: &Rounds::default(),
        };
        server.admission.admit(server, &attributes, &mut scale, Some(&old_scale)).await?;
        let replicas = check(subject, &scale, &old, &current)?;
        let mut new = old.clone();
        set(&mut new, &paths.spec_replicas, replicas);
        if let Some(stored) = update::store_change(&writer, new, &old, &current, ChangeKind::Update).await? {
            let stored = writer.written(stored).await?;
            return Ok(read(paths, &respond::served(subject.kind.as_ref(), &stored)?));
        }
        if matches!(wanted, Wanted::Whole(_)) && !meta::resource_version(&scale).is_empty() {
            break;
        }
    }
    Err(ApiError::stale(subject.resource(), &subject.name))
}

/// The wanted number, if the scale may be written.
fn check(subject: &Subject, scale: &Tree, old: &Tree, current: &Stored) -> ApiResult<i64> {
    let version = meta::resource_version(scale);
    if !version.is_empty() && version.parse() != Ok(current.revision) {
        return Err(ApiError::stale(subject.resource(), &subject.name));
    }
    let uid = meta::uid(scale);
    if !uid.is_empty() && uid != meta::uid(old) {
        return Err(ApiError::conflict(
            subject.resource(),
            &subject.name,
            &format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta::uid(old)),
        ));
    }
    let name = meta::name(scale);
    if !name.is_empty() && name != subject.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            subject.name
        )));
    }
    let replicas = match scale.at(&["spec", "replicas"]) {
        None | Some(Tree::Null) => 0,
        Some(Tree::Int(number)) => *number,
        Some(_) => return Err(ApiError::bad_request("spec.replicas is no number")),
    };
    if replicas < 0 {
        return Err(ApiError::invalid_field(
            Qualified { group: "autoscaling", name: "Scale" },
            &subject.name,
            "FieldValueInvalid",
            "spec.replicas",
            format!("Invalid value: {replicas}: must be greater than or equal to 0"),
        ));
    }
    Ok(replicas)
}

/// The scale of an object.
fn read(paths: &ScalePaths, object: &Tree) -> Tree {
    let mut scale = Tree::map();
    scale.set(&["kind"], "Scale");
    scale.set(&["apiVersion"], API_VERSION);
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at(&["metadata", field]) {
            scale.set(&["metadata", field], value.clone());
        }
    }
    let count = |path: &[Key]| at(object, path).and_then(Tree::as_int).unwrap_or(0);
    scale.set(&["spec", "replicas"], count(&paths.spec_replicas));
    scale.set(&["status", "replicas"], count(&paths.status_replicas));
    let selector = if paths.selector.is_empty() { None } else { at(object, &paths.selector) };
    let is_label_selector = selector.is_some_and(|tree| {
        tree.get("matchLabels").is_some_and(|labels| labels.as_map().is_some())
            || tree.get("matchExpressions").is_some()
    });
    let text = if let Some(Tree::Str(text)) = selector {
        text.to_string()
    } else if is_label_selector {
        label::Selector::from_object(selector).map(|selector| selector.to_string()).unwrap_or_default()
    } else {
        label::Selector::from_set(selector).to_string()
    };
    if !text.is_empty() {
        scale.set(&["status", "selector"], text);
    }
    scale
}

fn at<'a>(object: &'a Tree, path: &[Key]) -> Option<&'a Tree> {
    path.iter().try_fold(object, |tree, key| tree.get(key.as_str()))
}

fn set(object: &mut Tree, path: &[Key], replicas: i64) {
    let mut tree = object;
    for key in path {
        tree = tree.ensure_map().entry_or(key.clone(), Tree::map);
    }
    *tree = replicas.into();
}
