//! `update`: replacing an object, or the part of it that a subresource is.

use http::{Response, StatusCode};
use skiff_object::Tree;

use super::{Subject, create, delete};
use crate::admission::{Attributes, Operation, Options, Rounds};
use crate::body::Body;
use crate::chain::Call;
use crate::custom;
use crate::errors::{ApiError, ApiResult};
use crate::request::options::WriteOptions;
use crate::server::ApiServer;
use crate::storage::Stored;
use crate::write::{self, Expected, Writer};
use crate::{fields, meta, registry, respond, validate};

/// An update without resourceVersion and a patch try again when somebody else was faster.
pub const CONFLICT_RETRIES_MAX: usize = 5;

/// Replaces an object.
pub async fn update(server: &ApiServer, call: &mut Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let form = subject.form(call)?;
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let object =
        write::decode_body(call, subject.offer(), Expected::of(subject.kind.as_ref()), options.field_validation)
            .await?;
    let object = check_place(object, subject)?;
    let writer = Writer::of(server, call, subject, &options);
    let (stored, created) = replace(&writer, object).await?;
    let stored = writer.written(stored).await?;
    let code = if created { StatusCode::CREATED } else { StatusCode::OK };
    respond::object(code, subject.view(server, form), &stored)
}

/// The object's name and namespace are the path's.
pub fn check_place(mut object: Tree, subject: &Subject) -> ApiResult<Tree> {
    let (name, namespace) = (meta::name(&object), meta::namespace(&object));
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            subject.name
        )));
    }
    if name != subject.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            subject.name
        )));
    }
    if !subject.kind.facts().namespaced {
        object.unset(&["metadata", "namespace"]);
        return Ok(object);
    }
    if !namespace.is_empty() && namespace != subject.namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the URL ({})",
            subject.namespace
        )));
    }
    object.set(&["metadata", "namespace"], subject.namespace.as_str());
    Ok(object)
}

/// Stores `object` in place of what is there; says whether it was created.
pub async fn replace(writer: &Writer<'_>, object: Tree) -> ApiResult<(Stored, bool)> {
    let (subject, kind) = (writer.subject, writer.kind());
    for _ in 0..CONFLICT_RETRIES_MAX {
        let Some(current) = writer.current().await? else {
            if kind.allows_create_on_update() && subject.subresource.is_empty() {
                let mut object = object;
                object.unset(&["metadata", "resourceVersion"]);
                return create::write_new(writer, object, ChangeKind::Update).await.map(|stored| (stored, true));
            }
            return Err(subject.not_found());
        };
        let old = respond::served(kind, &current)?;
        check_preconditions(writer, &object, &old, &current)?;
        let unconditional = meta::resource_version(&object).is_empty();
        match store_change(writer, object.clone(), &old, &current, ChangeKind::Update).await? {
            Some(stored) => return Ok((stored, false)),
            None if unconditional => {}
            None => return Err(ApiError::stale(subject.resource(), &subject.name)),
        }
    }
    Err(ApiError::stale(subject.resource(), &subject.name))
}

/// The resourceVersion and the uid of the new object, where given, are the current ones.
pub fn check_preconditions(writer: &Writer<'_>, new: &Tree, old: &Tree, current: &Stored) -> ApiResult<()> {
    let subject = writer.subject;
    let uid = meta::uid(new);
    if !uid.is_empty() && uid != meta::uid(old) {
        return Err(ApiError::conflict(
            subject.resource(),
            &subject.name,
            &format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta::uid(old)),
        ));
    }
    let version = meta::resource_version(new);
    if version.is_empty() {
        if writer.kind().allows_unconditional_update() || !subject.subresource.is_empty() {
            return Ok(());
        }
        return Err(ApiError::invalid_field(
            subject.kind_name(),
            &subject.name,
            "FieldValueInvalid",
            "metadata.resourceVersion",
            "Invalid value: 0: must be specified for an update".into(),
        ));
    }
    if version.parse() != Ok(current.revision) {
        if version.parse::<u64>().is_err() {
            return Err(ApiError::invalid_field(
                subject.kind_name(),
                &subject.name,
                "FieldValueInvalid",
                "metadata.resourceVersion",
                format!("Invalid value: {version:?}: strconv.ParseUint: parsing {version:?}: invalid syntax"),
            ));
        }
        return Err(ApiError::stale(subject.resource(), &subject.name));
    }
    Ok(())
}

/// How a change came about, as field ownership wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// A replacement or a patch that is not apply.
    Update,
    /// Server-side apply, which has already settled who owns what.
    Apply,
}

/// Runs a changed object through the pipeline and stores it; `None` when somebody was faster.
pub async fn store_change(
    writer: &Writer<'_>,
    mut new: Tree,
    old: &Tree,
    current: &Stored,
    change: ChangeKind,
) -> ApiResult<Option<Stored>> {
    let (server, subject, kind) = (writer.server, writer.subject, writer.kind());
    keep_metadata(&mut new, old);
    kind.default(&mut new);
    if change == ChangeKind::Update {
        fields::on_update(writer, &mut new, old).await;
    }
    let rounds = Rounds::default();
    let attributes = Attributes {
        operation: Operation::Update,
        subject,
        name: &subject.name,
        user: writer.user,
        dry_run: writer.options.dry_run,
        call: writer.call,
        options: Options::Update(writer.options),
        rounds: &rounds,
    };
    if !writer.is_admitted {
        server.admission.mutate(server, &attributes, &mut new, Some(old)).await?;
        // Webhooks may have put anything there.
        new = check_place(new, subject)?;
        keep_metadata(&mut new, old);
    }
    kind.default(&mut new);
    prepare(writer, &mut new, old);
    fields::keep_times(&mut new, old);
    let undo = registry::before_update(writer, &mut new, old).await?;
    let outcome = finish(writer, &new, old, current, &attributes).await;
    match &outcome {
        Ok(Some(_)) if writer.options.dry_run => {}
        Ok(Some(stored)) => registry::after_update(server, kind, &new, old, stored.revision).await,
        _ => undo.run(server).await,
    }
    outcome
}

fn prepare(writer: &Writer<'_>, new: &mut Tree, old: &Tree) {
    match writer.subject.subresource.as_str() {
        "" => writer.kind().prepare_update(new, old),
        subresource => writer.kind().prepare_subresource(subresource, new, old),
    }
}

async fn finish(
    writer: &Writer<'_>,
    new: &Tree,
    old: &Tree,
    current: &Stored,
    attributes: &Attributes<'_>,
) -> ApiResult<Option<Stored>> {
    let (server, subject) = (writer.server, writer.subject);
    validate::update(subject, new, old)?;
    writer.kind().warnings(new, Some(old)).into_iter().for_each(|warning| writer.warn(warning));
    if !writer.is_admitted {
        server.admission.validate(server, attributes, new, Some(old)).await?;
    }
    let is_unchanged = custom::convert::is_unchanged(writer.kind(), new, current);
    let value = if is_unchanged { current.value.clone() } else { writer.encode(new).await? };
    let is_stale = async || subject.collection.is_stale(&subject.namespace, &subject.name).await;
    if value == current.value && !is_stale().await? && !custom::convert::is_outdated(subject).await? {
        // Nothing changed: no write, no event, the same version.
        return Ok(Some(current.clone()));
    }
    // What is stored with a key or in a version of before is written anew, changed or not.
    let value = if is_unchanged { writer.encode(new).await? } else { value };
    if writer.options.dry_run {
        return Ok(Some(writer.unstored(value, current.revision)));
    }
    if delete::is_complete(writer.kind(), new) {
        return delete::complete(writer, new, value, current).await;
    }
    let lease = registry::lease(server, writer.kind()).await?;
    subject.collection.replace(&subject.namespace, &subject.name, value, current.revision, lease).await
}

/// What no update changes; left out means kept.
fn keep_metadata(new: &mut Tree, old: &Tree) {
    if new.get("metadata").is_none_or(Tree::is_null) {
        new.set(&["metadata"], Tree::map());
    }
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new.at(&["metadata", field]).is_none_or(Tree::is_null)
            && let Some(value) = old.at(&["metadata", field])
        {
            new.set(&["metadata", field], value.clone());
        }
    }
    new.unset(&["metadata", "selfLink"]);
}
