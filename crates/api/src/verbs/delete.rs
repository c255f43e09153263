//! `delete`: at once, gracefully, or when the finalizers are done.

use bytes::Bytes;
use http::{Response, StatusCode};
use skiff_base::Timestamp;
use skiff_kinds::Kind;
use skiff_kinds::kind::DefaultPropagation;
use skiff_object::{Tree, json, protobuf, yaml};

use super::Subject;
use crate::admission::{Attributes, Operation, Options, Rounds};
use crate::authn::UserInfo;
use crate::body::Body;
use crate::chain::Call;
use crate::custom;
use crate::errors::{self, ApiError, ApiResult};
use crate::negotiate::{self, Format, Offer};
use crate::request::options::DeleteOptions;
use crate::server::ApiServer;
use crate::storage::Stored;
use crate::verbs::update::CONFLICT_RETRIES_MAX;
use crate::write::Writer;
use crate::{meta, registry, respond};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Resources whose delete answers with the object that went, where others answer with a `Status`.
const ANSWERS_WITH_OBJECT: [(&str, &str); 16] = [
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourceslices"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
];

/// What became of a delete.
pub enum Outcome {
    /// The object is gone; this is how it last was.
    Gone(Stored),
    /// The object is on its way out.
    Deleting(Stored),
}

/// Deletes an object.
pub async fn delete(server: &ApiServer, call: &mut Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let form = subject.form(call)?;
    let options = read_options(call).await?;
    let asking = Asking { user: &call.user, call: Some(call) };
    let outcome = remove(server, subject, &options, Some(asking)).await?;
    let resource = subject.resource();
    match outcome {
        Outcome::Gone(stored) => {
            if ANSWERS_WITH_OBJECT.contains(&(resource.group, resource.name)) {
                return respond::object(StatusCode::OK, subject.view(server, form), &stored);
            }
            let object = respond::decode_stored(subject.kind.as_ref(), &stored.value)?;
            let status = errors::deleted_status(resource, &subject.name, meta::uid(&object));
            Ok(respond::status(
                StatusCode::OK,
                &status,
                negotiate::Form { projection: negotiate::Projection::Object, ..form },
            ))
        }
        Outcome::Deleting(stored) => {
            let waits =
                options.orphan_dependents == Some(false) || options.propagation_policy.as_deref() == Some("Foreground");
            let code = if waits { StatusCode::ACCEPTED } else { StatusCode::OK };
            respond::object(code, subject.view(server, form), &stored)
        }
    }
}

/// Options from the body where there is one, else from the query.
pub async fn read_options(call: &mut Call) -> ApiResult<DeleteOptions> {
    let bytes = call.read_body().await?;
    let options = if bytes.is_empty() { DeleteOptions::parse(&call.query)? } else { decode_options(call, &bytes)? };
    options.validate()?;
    Ok(options)
}

fn decode_options(call: &Call, bytes: &[u8]) -> ApiResult<DeleteOptions> {
    let failed = |why: &dyn std::fmt::Display| ApiError::bad_request(format!("decode DeleteOptions: {why}"));
    let ty = respond::type_named("v1", "DeleteOptions")
        .ok_or_else(|| ApiError::internal("DeleteOptions is not in the schema"))?;
    let schema = skiff_kinds::schema();
    let tree = match negotiate::content_type(&call.headers, Offer::PLAIN)? {
        Format::Json => json::decode(bytes, schema, ty).map_err(|error| failed(&error))?.0,
        Format::Yaml => yaml::decode(bytes, schema, ty).map_err(|error| failed(&error))?.0,
        Format::Protobuf => {
            let envelope = protobuf::envelope::decode(bytes).map_err(|error| failed(&error))?;
            protobuf::decode(envelope.raw, schema, ty).map_err(|error| failed(&error))?
        }
    };
    let kind = tree.str_at(&["kind"]);
    if !kind.is_empty() && kind != "DeleteOptions" {
        return Err(failed(&format!("expected DeleteOptions, found {kind}")));
    }
    let text = |path: &[&str]| Some(tree.str_at(path).to_owned()).filter(|text| !text.is_empty());
    let dry_run: Vec<&str> = tree.list_at(&["dryRun"]).iter().filter_map(Tree::as_str).collect();
    Ok(DeleteOptions {
        grace_period_seconds: tree.int_at(&["gracePeriodSeconds"]),
        propagation_policy: text(&["propagationPolicy"]),
        orphan_dependents: tree.bool_at(&["orphanDependents"]),
        dry_run: dry_run.contains(&"All"),
        uid: text(&["preconditions", "uid"]),
        resource_version: text(&["preconditions", "resourceVersion"]),
    })
}

/// Who asks for a delete that is to be admitted.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// Who.
    pub user: &'a UserInfo,
    /// The request.
    pub call: Option<&'a Call>,
}

impl Asking<'_> {
    async fn admit(&self, server: &ApiServer, subject: &Subject, options: &DeleteOptions, old: &Tree) -> ApiResult<()> {
        let attributes = Attributes {
            operation: Operation::Delete,
            subject,
            name: &subject.name,
            user: self.user,
            dry_run: options.dry_run,
            call: self.call,
            options: Options::Delete(options),
            rounds: &Rounds::default(),
        };
        server.admission.admit(server, &attributes, &mut Tree::Null, Some(old)).await
    }
}

/// Deletes an object. Without `admission` the delete has been admitted as something else.
pub async fn remove(
    server: &ApiServer,
    subject: &Subject,
    options: &DeleteOptions,
    admission: Option<Asking<'_>>,
) -> ApiResult<Outcome> {
    for _ in 0..CONFLICT_RETRIES_MAX {
        let current =
            subject.collection.get(&subject.namespace, &subject.name).await?.ok_or_else(|| subject.not_found())?;
        let current = custom::convert::served_one(server, subject.kind.as_ref(), current).await?;
        let old = respond::served(subject.kind.as_ref(), &current)?;
        check_preconditions(subject, options, &old, &current)?;
        if let Some(admission) = &admission {
            admission.admit(server, subject, options, &old).await?;
        }
        if let Some(outcome) = attempt(server, subject, options, old, &current).await? {
            return Ok(outcome);
        }
    }
    Err(ApiError::stale(subject.resource(), &subject.name))
}

fn check_preconditions(subject: &Subject, options: &DeleteOptions, old: &Tree, current: &Stored) -> ApiResult<()> {
    let conflict = |why: String| Err(ApiError::conflict(subject.resource(), &subject.name, &why));
    if let Some(uid) = &options.uid
        && uid != meta::uid(old)
    {
        return conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(old)
        ));
    }
    if let Some(version) = &options.resource_version
        && version.parse() != Ok(current.revision)
    {
        return conflict(format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            current.revision
        ));
    }
    Ok(())
}

/// One try; `None` when somebody changed the object meanwhile.
async fn attempt(
    server: &ApiServer,
    subject: &Subject,
    options: &DeleteOptions,
    old: Tree,
    current: &Stored,
) -> ApiResult<Option<Outcome>> {
    let kind = subject.kind.as_ref();
    let mut new = old.clone();
    propagate(kind, &mut new, options);
    registry::before_delete(server, kind, &mut new);
    let grace = grace_period(kind, &old, options);
    let lingers = grace.is_some_and(|seconds| seconds > 0)
        || meta::finalizers(&new).next().is_some()
        || registry::holds(kind, &new);
    if !lingers {
        if options.dry_run {
            return Ok(Some(Outcome::Gone(current.clone())));
        }
        let Some(revision) = subject.collection.remove(&subject.namespace, &subject.name, current.revision).await?
        else {
            return Ok(None);
        };
        registry::after_delete(server, kind, &old, revision).await;
        return Ok(Some(Outcome::Gone(Stored { revision, ..current.clone() })));
    }
    mark(&mut new, &old, grace.unwrap_or(0), server.clock().now());
    registry::on_marked(kind, &mut new);
    let value = custom::convert::stored(server, kind, &new).await?;
    if value == current.value || options.dry_run || custom::convert::is_unchanged(kind, &new, current) {
        let shown = custom::convert::served_one(server, kind, Stored { value, ..current.clone() }).await?;
        return Ok(Some(Outcome::Deleting(shown)));
    }
    let lease = registry::lease(server, kind).await?;
    let stored = subject.collection.replace(&subject.namespace, &subject.name, value, current.revision, lease).await?;
    let stored = custom::convert::served_maybe(server, kind, stored).await?;
    Ok(stored.map(Outcome::Deleting))
}

/// Sets and clears the garbage collector's finalizers as the request wants.
fn propagate(kind: &dyn Kind, object: &mut Tree, options: &DeleteOptions) {
    let by_default = kind.default_propagation() == DefaultPropagation::Orphan;
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        (Some(orphan), _) => (orphan, false),
        (None, Some("Orphan")) => (true, false),
        (None, Some("Foreground")) => (false, true),
        (None, Some(_)) => (false, false),
        // What the object already carries stays when the request does not say.
        (None, None) => {
            let orphan = meta::has_finalizer(object, ORPHAN) || by_default;
            (orphan, !orphan && meta::has_finalizer(object, FOREGROUND))
        }
    };
    for (finalizer, wanted) in [(ORPHAN, orphan), (FOREGROUND, foreground)] {
        if wanted {
            meta::add_finalizer(object, finalizer);
        } else {
            meta::remove_finalizer(object, finalizer);
        }
    }
}

/// How long the object may linger, when its kind lingers at all.
fn grace_period(kind: &dyn Kind, object: &Tree, options: &DeleteOptions) -> Option<i64> {
    let by_default = kind.grace_period_seconds(object)?;
    if by_default == 0 {
        return Some(0);
    }
    // A negative period means "as short as possible", but not at once.
    Some(options.grace_period_seconds.map_or(by_default, |seconds| if seconds < 0 { 1 } else { seconds }))
}

/// Says when the object goes; a second delete can only bring that forward.
fn mark(new: &mut Tree, old: &Tree, grace: i64, now: Timestamp) {
    let deadline = |start: Timestamp, seconds: i64| Timestamp::from_secs(start.as_secs().saturating_add(seconds));
    if meta::is_deleting(old) {
        let before = old.int_at(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
        if grace >= before {
            return;
        }
        let marked = meta::parse_time(old.str_at(&["metadata", "deletionTimestamp"])).unwrap_or(now);
        let requested = deadline(marked, -before);
        new.set(&["metadata", "deletionTimestamp"], meta::time(deadline(requested, grace)));
        new.set(&["metadata", "deletionGracePeriodSeconds"], grace);
        return;
    }
    new.set(&["metadata", "deletionTimestamp"], meta::time(deadline(now, grace)));
    new.set(&["metadata", "deletionGracePeriodSeconds"], grace);
    if let Some(generation) = old.int_at(&["metadata", "generation"]).filter(|generation| *generation > 0) {
        new.set(&["metadata", "generation"], generation.saturating_add(1));
    }
}

/// Whether nothing holds an object on its way out any more.
pub fn is_complete(kind: &dyn Kind, object: &Tree) -> bool {
    meta::is_deleting(object)
        && meta::finalizers(object).next().is_none()
        && object.int_at(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
        && !registry::holds(kind, object)
}

/// The update that took the last hold away also deletes; the answer is the object as updated.
pub async fn complete(writer: &Writer<'_>, object: &Tree, value: Bytes, current: &Stored) -> ApiResult<Option<Stored>> {
    let subject = writer.subject;
    let removed = subject.collection.remove(&subject.namespace, &subject.name, current.revision).await?;
    let Some(revision) = removed else { return Ok(None) };
    registry::after_delete(writer.server, writer.kind(), object, revision).await;
    Ok(Some(Stored { key: current.key.clone(), value, revision }))
}
