//! `create`

use http::{Response, StatusCode};
use skiff_kinds::custom::CustomKind;
use skiff_object::Tree;

use super::Subject;
use super::update::ChangeKind;
use crate::admission::{Attributes, Operation, Options, Rounds};
use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::request::options::WriteOptions;
use crate::server::ApiServer;
use crate::storage::Stored;
use crate::write::{self, Expected, Writer};
use crate::{fields, meta, registry, respond, validate};

/// Names made from `generateName` are tried so often.
const GENERATE_ATTEMPTS_MAX: usize = 8;
/// Characters behind `generateName`.
const GENERATED_SUFFIX: usize = 5;
/// What is left of a `generateName` for the suffix to fit into a DNS label.
const GENERATE_PREFIX_MAX: usize = 63 - GENERATED_SUFFIX;

/// Creates an object.
pub async fn create(server: &ApiServer, call: &mut Call, subject: &mut Subject) -> ApiResult<Response<Body>> {
    let form = subject.form(call)?;
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let offer = subject.offer();
    let object = write::decode_body(call, offer, Expected::of(subject.kind.as_ref()), options.field_validation).await?;
    let writer = Writer::of(server, call, subject, &options);
    let stored = writer.written(write_new(&writer, object, ChangeKind::Update).await?).await?;
    respond::object(StatusCode::CREATED, subject.view(server, form), &stored)
}

/// Runs a new object through the pipeline and stores it.
pub async fn write_new(writer: &Writer<'_>, mut object: Tree, change: ChangeKind) -> ApiResult<Stored> {
    let (server, kind) = (writer.server, writer.kind());
    if kind.custom().is_some_and(CustomKind::is_terminating) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(ApiError::forbidden(writer.subject.resource(), meta::name(&object), why));
    }
    place(&mut object, writer.subject)?;
    if !meta::resource_version(&object).is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    kind.default(&mut object);
    wipe_metadata(&mut object);
    if change == ChangeKind::Update {
        fields::on_create(writer, &mut object);
    }
    let (given, rounds) = (meta::name(&object).to_owned(), Rounds::default());
    let attributes = Attributes {
        operation: Operation::Create,
        subject: writer.subject,
        name: &given,
        user: writer.user,
        dry_run: writer.options.dry_run,
        call: writer.call,
        options: Options::Create(writer.options),
        rounds: &rounds,
    };
    server.admission.mutate(server, &attributes, &mut object, None).await?;
    // Webhooks may have put anything there.
    place(&mut object, writer.subject)?;
    wipe_metadata(&mut object);
    kind.default(&mut object);
    let generate = meta::name(&object).is_empty() && !object.str_at(&["metadata", "generateName"]).is_empty();
    if !generate {
        return store_new(writer, object, &attributes).await;
    }
    let mut last = None;
    for _ in 0..GENERATE_ATTEMPTS_MAX {
        let mut attempt = object.clone();
        generate_name(&mut attempt, writer.server);
        let name = meta::name(&attempt).to_owned();
        match store_new(writer, attempt, &Attributes { name: &name, ..attributes }).await {
            Err(error) if error.is_already_exists() => last = Some(error),
            outcome => return outcome,
        }
    }
    let mut error = last.unwrap_or_else(|| ApiError::internal("no attempt to create"));
    error.message.push_str(", the server was not able to generate a unique name for the object");
    Err(error)
}

fn generate_name(object: &mut Tree, server: &ApiServer) {
    let prefix = object.str_at(&["metadata", "generateName"]);
    let mut end = prefix.len().min(GENERATE_PREFIX_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let name = format!("{}{}", &prefix[..end], server.random().suffix(GENERATED_SUFFIX));
    object.set(&["metadata", "name"], name);
}

/// Namespace and name agree with the path.
fn place(object: &mut Tree, subject: &Subject) -> ApiResult<()> {
    if object.get("metadata").is_none_or(Tree::is_null) {
        object.set(&["metadata"], Tree::map());
    }
    if !subject.kind.facts().namespaced {
        if !meta::namespace(object).is_empty() {
            object.unset(&["metadata", "namespace"]);
        }
        return Ok(());
    }
    let namespace = meta::namespace(object);
    if namespace.is_empty() {
        object.set(&["metadata", "namespace"], subject.namespace.as_str());
    } else if namespace != subject.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

async fn store_new(writer: &Writer<'_>, mut object: Tree, attributes: &Attributes<'_>) -> ApiResult<Stored> {
    let (server, kind) = (writer.server, writer.kind());
    fill_metadata(&mut object, server);
    kind.prepare_create(&mut object);
    let undo = registry::before_create(writer, &mut object).await?;
    let outcome = finish(writer, &object, attributes).await;
    match &outcome {
        Ok(_) if writer.options.dry_run => {}
        Ok(_) => registry::after_create(server, kind, &object).await,
        Err(_) => undo.run(server).await,
    }
    outcome
}

async fn finish(writer: &Writer<'_>, object: &Tree, attributes: &Attributes<'_>) -> ApiResult<Stored> {
    let (server, subject) = (writer.server, writer.subject);
    validate::create(subject, object)?;
    writer.kind().warnings(object, None).into_iter().for_each(|warning| writer.warn(warning));
    server.admission.validate(server, attributes, object, None).await?;
    let value = writer.encode(object).await?;
    let (namespace, name) = (meta::namespace(object), meta::name(object));
    if writer.options.dry_run {
        if subject.collection.get(namespace, name).await?.is_some() {
            return Err(ApiError::already_exists(subject.resource(), name));
        }
        return Ok(writer.unstored(value, 0));
    }
    let lease = registry::lease(server, writer.kind()).await?;
    subject.collection.create(namespace, name, value, lease).await.map_err(|error| {
        // The collection knows the storage group; the client asked for the path's.
        if error.is_already_exists() { ApiError::already_exists(subject.resource(), name) } else { error }
    })
}

/// What clients do not set.
fn wipe_metadata(object: &mut Tree) {
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        object.unset(&["metadata", field]);
    }
}

fn fill_metadata(object: &mut Tree, server: &ApiServer) {
    object.set(&["metadata", "uid"], server.random().uuid());
    object.set(&["metadata", "creationTimestamp"], meta::time(server.clock().now()));
}
