//! Field ownership and server-side apply.
//!
//! Every write notes in `metadata.managedFields` who set which fields. An update takes the fields it
//! changes away from everybody else; an apply is told of the conflict unless it is forced, and
//! removes what the same manager applied before and does not any more.
//!
//! Map, in reading order: [`set`] (sets of paths, `FieldsV1`), [`typed`] (objects as apply sees
//! them), `view` (objects as Go holds them), `entries` (the entries of `managedFields`), [`versions`]
//! (owners of fields in other versions), then [`update`] and [`apply`] here.

mod entries;
mod items;
pub mod set;
pub mod typed;
pub mod versions;
mod view;

use std::fmt::Write as _;
use std::sync::LazyLock;

use entries::{Owned, Owner, Owners};
use set::FieldSet;
use typed::Typed;
use versions::{Changes, Lenses, Pending, Versions};

use crate::schema::{Schema, TypeId};
use crate::time::Time;
use crate::tree::{Map, Tree};

/// What kubectl's client-side apply keeps its last configuration in.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Upstream's limit on all annotations together.
const LAST_APPLIED_BYTES_MAX: usize = 256 * 1_024;
/// The manager that owns what was there before anybody was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose applies take over from client-side apply.
const KUBECTL: &str = "kubectl";

/// What a write is about.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The schema of the objects.
    pub schema: &'a Schema,
    /// Their type.
    pub ty: TypeId,
    /// The group and version of the request: `apps/v1`.
    pub api_version: &'a str,
    /// The kind, for messages.
    pub kind: &'a str,
    /// The subresource written through, `""` for the object itself.
    pub subresource: &'a str,
    /// Fields that this path resets: nobody owns them through it.
    pub reset: &'a FieldSet,
    /// The other versions of the kind.
    pub versions: &'a (dyn Versions + Sync),
    /// Who writes.
    pub manager: &'a str,
    /// When.
    pub now: Time,
}

/// Why an apply was refused.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ApplyError {
    /// The request is wrong: 400.
    #[error("{0}")]
    BadRequest(String),
    /// Others own what it would change: 409, with causes.
    #[error("{0}")]
    Conflict(Conflicts),
    /// The configuration does not fit its type, or the object cannot be merged: 500, as upstream.
    #[error("{0}")]
    Unmergeable(String),
    /// It has to be done again once the objects that [`Versions`] noted are converted.
    #[error("objects have to be converted first")]
    Pending,
}

impl From<Pending> for ApplyError {
    fn from(Pending: Pending) -> Self {
        Self::Pending
    }
}

/// Fields that others own, in order.
#[derive(Clone, PartialEq, Debug)]
pub struct Conflicts(Vec<(Owner, String)>);

impl Conflicts {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none; an error never is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `details.causes` of the `Status`.
    pub fn causes(&self) -> Tree {
        let cause = |(owner, path): &(Owner, String)| {
            let mut cause = Map::new();
            cause.insert("reason", "FieldManagerConflict");
            cause.insert("message", format!("conflict with {owner}"));
            cause.insert("field", path.as_str());
            Tree::Map(cause)
        };
        Tree::List(self.0.iter().map(cause).collect())
    }
}

impl std::fmt::Display for Conflicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let [(owner, path)] = self.0.as_slice() {
            return write!(f, "Apply failed with 1 conflict: conflict with {owner}: {path}");
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let mut last = None;
        for (owner, path) in &self.0 {
            if last != Some(owner) {
                if last.is_some() {
                    f.write_str("\n")?;
                }
                write!(f, "conflicts with {owner}:")?;
                last = Some(owner);
            }
            write!(f, "\n- {path}")?;
        }
        Ok(())
    }
}

/// The fields whose ownership is never tracked.
static UNTRACKED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

fn entries_of(object: &Tree) -> Option<&[Tree]> {
    object.at(&["metadata", "managedFields"])?.as_list()
}

fn set_entries(object: &mut Tree, owners: &Owners) {
    match owners.encode() {
        Some(entries) => object.set(&["metadata", "managedFields"], entries),
        None => {
            object.unset(&["metadata", "managedFields"]);
        }
    }
}

/// An empty list, or a list with one empty entry, asks to forget who owns what.
fn is_reset(entries: Option<&[Tree]>) -> bool {
    match entries {
        Some([]) => true,
        Some([one]) => one.as_map().is_some_and(|map| map.iter().all(|(_, value)| value.is_null())),
        _ => false,
    }
}

/// The owners that an update starts from.
fn owners_before(request: &Request<'_>, live: Option<&Tree>, new: &Tree) -> Owners {
    let of_live = || live.and_then(entries_of).and_then(|entries| Owners::decode(entries).ok()).unwrap_or_default();
    if !request.subresource.is_empty() {
        return of_live();
    }
    let given = entries_of(new);
    if is_reset(given) {
        return Owners::default();
    }
    match given.map(Owners::decode) {
        Some(Ok(owners)) if !owners.0.is_empty() => owners,
        // A client that does not know of managed fields must not delete them.
        _ => of_live(),
    }
}

/// Notes in `new`, which is about to take the place of `live` (or to be created), who changed what.
///
/// What cannot be tracked leaves the entries as they were.
///
/// # Errors
/// When objects have to be converted first; `new` is as it was.
pub fn update(request: &Request<'_>, live: Option<&Tree>, new: &mut Tree) -> Result<(), Pending> {
    let owners = owners_before(request, live, new);
    let entries = entries_of(new).map(<[Tree]>::to_vec);
    new.unset(&["metadata", "managedFields"]);
    let tracked = !owners.0.is_empty() || live.is_none();
    let owners = if tracked { track_update(request, live, new, owners, request.manager) } else { Ok(owners) };
    match owners {
        Ok(owners) => set_entries(new, &owners),
        Err(Pending) => {
            if let Some(entries) = entries {
                new.set(&["metadata", "managedFields"], entries);
            }
            return Err(Pending);
        }
    }
    Ok(())
}

fn track_update(
    request: &Request<'_>,
    live: Option<&Tree>,
    new: &Tree,
    mut owners: Owners,
    manager: &str,
) -> Result<Owners, Pending> {
    let typed = Typed::new(request.schema, request.ty);
    let lenses = Lenses::new(request, &owners, live)?;
    let new_view = view::as_go(request.schema, request.ty, new);
    let live_view = view::as_go(request.schema, request.ty, live.unwrap_or(&Tree::map()));
    lenses.reconcile(&live_view, &mut owners);
    let changes = lenses.changes(typed.compare(&live_view, &new_view).without(request.reset), new)?;
    disown(&mut owners, &changes, None);
    let mut mine = changes.here.touched();
    mine.subtract(&UNTRACKED);
    if !mine.is_empty() {
        let owner = Owner::updater(manager, request.api_version, request.subresource);
        let set = match owners.0.get(&owner) {
            Some(owned) => owned.set.union(&mine),
            None => mine,
        };
        let time = Some(request.now.rfc3339().into_boxed_str());
        owners.0.insert(owner, Owned { set, api_version: request.api_version.into(), time });
    }
    owners.cap();
    Ok(owners)
}

/// Takes from everybody but `except` what changed hands or is gone.
fn disown(owners: &mut Owners, changes: &Changes, except: Option<&Owner>) {
    for (owner, owned) in &mut owners.0 {
        if except != Some(owner) {
            let seen = changes.seen_by(owned);
            owned.set.subtract(&seen.touched());
            owned.set.subtract(&seen.removed);
        }
    }
    owners.0.retain(|_, owned| !owned.set.is_empty());
}

/// Applies `config` to `live` (or to nothing) and gives the object to store, its entries included.
/// `force` takes conflicting fields from their owners.
///
/// When nothing changes, the result equals `live`, entries and their times included.
///
/// # Errors
/// When the configuration is malformed, or conflicts and is not forced.
pub fn apply(request: &Request<'_>, live: Option<&Tree>, config: &Tree, force: bool) -> Result<Tree, ApplyError> {
    check_config(request, config)?;
    let live_object = live.cloned().unwrap_or_else(Tree::map);
    let owners = match entries_of(&live_object) {
        Some(entries) => Owners::decode(entries)
            .map_err(|error| ApplyError::Unmergeable(format!("failed to decode managed fields: {error}")))?,
        None => Owners::default(),
    };
    let before = before_apply(request, live, owners)?;
    let first = apply_once(request, &live_object, config, before.clone(), force);
    let (mut object, owners) = match first {
        Err(ApplyError::Conflict(conflicts)) if request.manager == KUBECTL => {
            let rest = not_client_side(request, &live_object, conflicts.clone());
            if rest.as_ref().is_none_or(|rest| !rest.0.is_empty()) {
                return Err(ApplyError::Conflict(rest.unwrap_or(conflicts)));
            }
            // All of it came from client-side apply by the same user: take it over.
            apply_once(request, &live_object, config, before, true)?
        }
        other => other?,
    };
    if request.manager == KUBECTL && last_applied(&object).is_some_and(|text| !text.is_empty()) {
        let text = last_applied_text(config);
        object.set(&["metadata", "annotations", LAST_APPLIED], text);
    }
    set_entries(&mut object, &owners);
    Ok(object)
}

fn check_config(request: &Request<'_>, config: &Tree) -> Result<(), ApplyError> {
    let given = config.str_at(&["apiVersion"]);
    if given != request.api_version {
        return Err(ApplyError::BadRequest(format!(
            "Incorrect version specified in apply patch. Specified patch version: {given}, expected: {}",
            request.api_version
        )));
    }
    if config.at(&["metadata", "managedFields"]).is_some_and(|entries| !entries.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    let problems = Typed::new(request.schema, request.ty).validate(config);
    let text = match problems.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        several => {
            let mut text = "errors:".to_owned();
            for one in several {
                let _ = write!(text, "\n  {one}");
            }
            text
        }
    };
    Err(ApplyError::Unmergeable(format!("failed to create typed patch object ({}): {text}", named(request, config))))
}

/// `namespace/name; apps/v1, Kind=Deployment`
fn named(request: &Request<'_>, object: &Tree) -> String {
    let (namespace, name) = (object.str_at(&["metadata", "namespace"]), object.str_at(&["metadata", "name"]));
    format!("{namespace}/{name}; {}, Kind={}", request.api_version, request.kind)
}

/// An object that nobody tracked so far belongs to nobody in particular.
fn before_apply(request: &Request<'_>, live: Option<&Tree>, owners: Owners) -> Result<Owners, Pending> {
    match live {
        Some(live) if owners.0.is_empty() => {
            let mut untouched = live.clone();
            untouched.unset(&["metadata", "managedFields"]);
            track_update(request, None, &untouched, owners, BEFORE_FIRST_APPLY)
        }
        _ => Ok(owners),
    }
}

fn apply_once(
    request: &Request<'_>,
    live: &Tree,
    config: &Tree,
    mut owners: Owners,
    force: bool,
) -> Result<(Tree, Owners), ApplyError> {
    let typed = Typed::new(request.schema, request.ty);
    let mut live = live.clone();
    live.unset(&["metadata", "managedFields"]);
    let lenses = Lenses::new(request, &owners, Some(&live))?;
    let live_view = view::as_go(request.schema, request.ty, &live);
    lenses.reconcile(&live_view, &mut owners);
    let mut config = config.clone();
    config.unset(&["metadata", "managedFields"]);
    let merged = typed
        .merge(&live, &config)
        .map_err(|error| ApplyError::Unmergeable(format!("failed to merge config: {error}")))?;
    let me = Owner::applier(request.manager, request.subresource);
    let set = typed.field_set(&config).recursive_difference(request.reset);
    let before = owners.0.get(&me).cloned();
    let time = before.as_ref().and_then(|owned| owned.time.clone());
    owners.0.insert(me.clone(), Owned { set, api_version: request.api_version.into(), time });
    let object = match before {
        Some(before) if !before.set.is_empty() => {
            let mut object = lenses.prune(&merged, &owners, &before)?;
            drop_new_nulls(&mut object, &merged, Some(&config));
            object
        }
        _ => merged,
    };
    let object_view = view::as_go(request.schema, request.ty, &object);
    let here = typed.compare(&live_view, &object_view).without(request.reset);
    let changes = lenses.changes(here, &object)?;
    let conflicts = conflicts(&owners, &me, &changes);
    if !force && !conflicts.0.is_empty() {
        return Err(ApplyError::Conflict(conflicts));
    }
    disown(&mut owners, &changes, Some(&me));
    if let Some(mine) = owners.0.get_mut(&me) {
        mine.set.subtract(&UNTRACKED);
        if object_view != live_view {
            mine.time = Some(request.now.rfc3339().into_boxed_str());
        }
        if mine.set.is_empty() {
            owners.0.remove(&me);
        }
    }
    Ok((if object_view == live_view { live } else { object }, owners))
}

fn conflicts(owners: &Owners, me: &Owner, changes: &Changes) -> Conflicts {
    let mut out = Vec::new();
    for (owner, owned) in owners.0.iter().filter(|(owner, _)| *owner != me) {
        let paths = owned.set.intersection(&changes.seen_by(owned).touched()).paths();
        out.extend(paths.into_iter().map(|path| (owner.clone(), path)));
    }
    Conflicts(out)
}

/// Containers that lost everything are gone, unless the configuration has them empty; nulls that
/// were there before stay.
fn drop_new_nulls(result: &mut Tree, merged: &Tree, config: Option<&Tree>) {
    match (result, merged) {
        (Tree::Map(result), Tree::Map(merged)) => result.retain(|key, value| {
            let before = merged.get(key.as_str()).unwrap_or(&Tree::Null);
            let wanted = config.and_then(|config| config.get(key.as_str()));
            drop_new_nulls(value, before, wanted);
            if let (Tree::Null, Some(wanted @ (Tree::Map(_) | Tree::List(_)))) = (&*value, wanted) {
                *value = wanted.clone();
            }
            !value.is_null() || before.is_null()
        }),
        (Tree::List(result), Tree::List(merged)) if result.len() == merged.len() => {
            let mut before = merged.iter();
            result.retain_mut(|value| {
                let before = before.next().unwrap_or(&Tree::Null);
                drop_new_nulls(value, before, None);
                !value.is_null() || before.is_null()
            });
        }
        // Items have moved up where others went, and which was null before cannot be told.
        (Tree::List(result), Tree::List(_)) => result.retain_mut(|value| {
            drop_nulls(value);
            !value.is_null()
        }),
        _ => {}
    }
}

fn drop_nulls(tree: &mut Tree) {
    match tree {
        Tree::Map(map) => map.retain(|_, value| {
            drop_nulls(value);
            !value.is_null()
        }),
        Tree::List(items) => items.retain_mut(|value| {
            drop_nulls(value);
            !value.is_null()
        }),
        _ => {}
    }
}

fn last_applied(object: &Tree) -> Option<&str> {
    object.at(&["metadata", "annotations"])?.get(LAST_APPLIED)?.as_str()
}

/// The conflicts that client-side apply does not explain; `None` when there was no client-side apply.
fn not_client_side(request: &Request<'_>, live: &Tree, conflicts: Conflicts) -> Option<Conflicts> {
    let text = last_applied(live).filter(|text| !text.is_empty())?;
    let last: serde_json::Value = serde_json::from_str(text).ok()?;
    let last = from_json(last);
    if last.str_at(&["apiVersion"]) != request.api_version {
        return None;
    }
    let typed = Typed::new(request.schema, request.ty);
    if !typed.validate(&last).is_empty() {
        return None;
    }
    let live_view = view::as_go(request.schema, request.ty, live);
    let comparison = typed.compare(&last, &live_view);
    // What differs from the last configuration is somebody else's by now.
    let allowed = typed
        .field_set(&last)
        .difference(&comparison.modified)
        .difference(&comparison.added)
        .difference(&comparison.removed)
        .paths();
    Some(Conflicts(conflicts.0.into_iter().filter(|(_, path)| !allowed.contains(path)).collect()))
}

fn from_json(value: serde_json::Value) -> Tree {
    match value {
        serde_json::Value::Null => Tree::Null,
        serde_json::Value::Bool(value) => value.into(),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| Tree::Float(number.as_f64().unwrap_or(0.0)), Tree::Int)
        }
        serde_json::Value::String(text) => text.into(),
        serde_json::Value::Array(items) => Tree::List(items.into_iter().map(from_json).collect()),
        serde_json::Value::Object(map) => {
            Tree::Map(map.into_iter().map(|(key, value)| (key.into(), from_json(value))).collect())
        }
    }
}

/// The configuration as client-side apply would note it.
fn last_applied_text(config: &Tree) -> String {
    let mut config = config.clone();
    config.unset(&["metadata", "managedFields"]);
    if let Some(annotations) = config.at_mut(&["metadata", "annotations"]).and_then(Tree::as_map_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let mut text = String::new();
    write_json(&config, &mut text);
    text.push('\n');
    if text.len() > LAST_APPLIED_BYTES_MAX { String::new() } else { text }
}

fn write_json(tree: &Tree, out: &mut String) {
    match tree {
        Tree::Map(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                out.push_str(&set::json_text(key.as_str()));
                out.push(':');
                write_json(value, out);
            }
            out.push('}');
        }
        Tree::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                write_json(item, out);
            }
            out.push(']');
        }
        Tree::Null => out.push_str("null"),
        Tree::Bool(value) => {
            let _ = write!(out, "{value}");
        }
        Tree::Int(number) => {
            let _ = write!(out, "{number}");
        }
        Tree::Float(number) => {
            let _ = write!(out, "{number}");
        }
        Tree::Str(text) => out.push_str(&set::json_text(text)),
    }
}

/// Gives `new` the entries of `old` when the two differ in nothing but the times of entries: a write
/// that changes nothing must not change the times either.
pub fn keep_times(new: &mut Tree, old: &Tree) {
    if entries_of(new) == entries_of(old) || !same_but_times(new, old) {
        return;
    }
    if let Some(entries) = old.at(&["metadata", "managedFields"]) {
        new.set(&["metadata", "managedFields"], entries.clone());
    }
}

fn same_but_times(new: &Tree, old: &Tree) -> bool {
    let (Some(new_entries), Some(old_entries)) = (entries_of(new), entries_of(old)) else { return false };
    let same_entry = |a: &Tree, b: &Tree| {
        let (Some(a), Some(b)) = (a.as_map(), b.as_map()) else { return false };
        let rest = |map: &Map| map.keys().filter(|key| key.as_str() != "time").count();
        rest(a) == rest(b) && a.iter().all(|(key, value)| key.as_str() == "time" || b.get(key.as_str()) == Some(value))
    };
    // The order follows the times, so it may differ as well.
    new_entries.len() == old_entries.len()
        && new_entries.iter().all(|new| old_entries.iter().any(|old| same_entry(new, old)))
        && same_but(new, old, "metadata", |new, old| same_but(new, old, "managedFields", |_, _| true))
}

/// Whether two maps agree but for one key, whose values `agree` compares.
fn same_but(new: &Tree, old: &Tree, except: &str, agree: impl Fn(&Tree, &Tree) -> bool) -> bool {
    let (Some(new), Some(old)) = (new.as_map(), old.as_map()) else { return false };
    new.len() == old.len()
        && new.iter().all(|(key, value)| match old.get(key.as_str()) {
            Some(other) if key.as_str() == except => agree(value, other),
            other => other == Some(value),
        })
}

#[cfg(test)]
mod tests;
