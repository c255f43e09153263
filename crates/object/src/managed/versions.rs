//! Owners of fields in other versions of the same kind: each sees the object in its own version.
//!
//! Nothing here converts. What has to be converted is asked of [`Versions`]; where that takes a call to somebody
//! else, the question is noted, the whole computation ends with [`Pending`], and is run again with the answer.

use std::collections::BTreeMap;

use super::entries::{Owned, Owners};
use super::set::FieldSet;
use super::typed::{Comparison, Typed};
use super::{Request, view};
use crate::schema::{Schema, TypeId};
use crate::tree::Tree;

/// How fields of another version relate to those of the request.
#[derive(Clone, Copy)]
pub enum Other<'a> {
    /// They have the same paths.
    Same,
    /// There is no such version any more: who owned fields in it owns nothing.
    Gone,
    /// They are of this schema and type, and objects must be converted.
    Differs(&'a Schema, TypeId),
}

/// A conversion is missing; it has been noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pending;

/// The versions of a kind.
pub trait Versions {
    /// What `api_version` is to the version of the request.
    fn other(&self, api_version: &str) -> Other<'_>;

    /// An object in another version; its own is in its `apiVersion`.
    ///
    /// # Errors
    /// When the answer is not known yet.
    fn convert(&self, object: &Tree, api_version: &str) -> Result<Tree, Pending>;
}

/// A kind whose fields have the same paths in all versions.
pub struct OnePath;

impl Versions for OnePath {
    fn other(&self, _: &str) -> Other<'_> {
        Other::Same
    }

    fn convert(&self, object: &Tree, _: &str) -> Result<Tree, Pending> {
        Ok(object.clone())
    }
}

/// The object before a write, as the owners of each other version see it.
pub(super) struct Lenses<'a> {
    request: &'a Request<'a>,
    /// `None` for versions that are gone.
    others: BTreeMap<Box<str>, Option<Lens<'a>>>,
}

struct Lens<'a> {
    schema: &'a Schema,
    ty: TypeId,
    typed: Typed<'a>,
    live: Tree,
}

impl<'a> Lenses<'a> {
    /// Those of all versions in which somebody owns fields.
    pub(super) fn new(request: &'a Request<'a>, owners: &Owners, live: Option<&Tree>) -> Result<Self, Pending> {
        let mut others = BTreeMap::new();
        let Some(live) = live else { return Ok(Self { request, others }) };
        for version in owners.0.values().map(|owned| &owned.api_version) {
            if **version == *request.api_version || others.contains_key(version) {
                continue;
            }
            let lens = match request.versions.other(version) {
                Other::Same => continue,
                Other::Gone => None,
                Other::Differs(schema, ty) => {
                    let live = view::as_go(schema, ty, &in_version(request, live, version)?);
                    Some(Lens { schema, ty, typed: Typed::new(schema, ty), live })
                }
            };
            others.insert(version.clone(), lens);
        }
        Ok(Self { request, others })
    }

    /// Brings sets up to date with schemas that changed since, and forgets the owners of versions that are gone.
    pub(super) fn reconcile(&self, live: &Tree, owners: &mut Owners) {
        owners.0.retain(|_, owned| !matches!(self.others.get(&owned.api_version), Some(None)));
        let here = self.here();
        for owned in owners.0.values_mut() {
            owned.set = match self.others.get(&owned.api_version) {
                Some(Some(lens)) => lens.typed.reconcile(&owned.set, &lens.live),
                _ => here.reconcile(&owned.set, live),
            };
        }
    }

    /// What a write that makes `new` of the object changes; `here` is that in the version of the request.
    pub(super) fn changes(&self, here: Comparison, new: &Tree) -> Result<Changes, Pending> {
        let mut others = BTreeMap::new();
        for (version, lens) in &self.others {
            let Some(lens) = lens else { continue };
            let new = view::as_go(lens.schema, lens.ty, &in_version(self.request, new, version)?);
            others.insert(version.clone(), lens.typed.compare(&lens.live, &new).without(self.request.reset));
        }
        Ok(Changes { here, others })
    }

    fn here(&self) -> Typed<'a> {
        Typed::new(self.request.schema, self.request.ty)
    }

    /// The version in which an owner's fields are looked at, with its types; `None` when it is gone.
    fn version_of<'v>(&'v self, owned: &'v Owned) -> Option<(&'v str, Typed<'a>)> {
        match self.others.get(&owned.api_version) {
            None => Some((self.request.api_version, self.here())),
            Some(None) => None,
            Some(Some(lens)) => Some((&owned.api_version, lens.typed)),
        }
    }

    /// Removes from `merged` what its manager applied `last` and not this time, unless somebody else owns it.
    pub(super) fn prune(&self, merged: &Tree, owners: &Owners, last: &Owned) -> Result<Tree, Pending> {
        let Some((at, typed)) = self.version_of(last) else { return Ok(merged.clone()) };
        let merged_at = in_version(self.request, merged, at)?;
        let last = typed.with_named_fields(&last.set);
        let mut pruned = typed.remove(&merged_at, &last);
        // What others (or the new configuration) own comes back, first in the version at hand …
        let mut owned: BTreeMap<(bool, &str), (Typed<'_>, FieldSet)> = BTreeMap::new();
        for one in owners.0.values() {
            let Some((version, typed)) = self.version_of(one) else { continue };
            let (_, all) = owned.entry((version != at, version)).or_insert_with(|| (typed, FieldSet::new()));
            *all = all.union(&one.set);
        }
        for ((_, version), (typed, owned)) in owned {
            let merged = in_version(self.request, merged, version)?;
            pruned = in_version(self.request, &pruned, version)?;
            let pruned_set = typed.with_named_fields(&typed.field_set(&pruned));
            let keep = pruned_set.union(&typed.with_named_fields(&owned));
            let all = typed.with_named_fields(&typed.field_set(&merged));
            pruned = typed.remove(&merged, &all.difference(&keep));
        }
        // … and so does what nobody owns: only what this manager had may go.
        let pruned = in_version(self.request, &pruned, at)?;
        let pruned_set = typed.with_named_fields(&typed.field_set(&pruned));
        let all = typed.with_named_fields(&typed.field_set(&merged_at));
        let gone = all.difference(&pruned_set).intersection(&last);
        in_version(self.request, &typed.remove(&merged_at, &gone), self.request.api_version)
    }
}

/// What a write changes, in each version in which somebody owns fields.
pub(super) struct Changes {
    pub(super) here: Comparison,
    others: BTreeMap<Box<str>, Comparison>,
}

impl Changes {
    /// As an owner sees it.
    pub(super) fn seen_by(&self, owned: &Owned) -> &Comparison {
        self.others.get(&owned.api_version).unwrap_or(&self.here)
    }
}

/// Only what differs from the version that an object is in is converted. Objects without a version are of the
/// request's.
fn in_version(request: &Request<'_>, object: &Tree, version: &str) -> Result<Tree, Pending> {
    let from = match object.str_at(&["apiVersion"]) {
        "" => request.api_version,
        from => from,
    };
    if from == version {
        return Ok(object.clone());
    }
    let mut object = object.clone();
    object.unset(&["metadata", "managedFields"]);
    request.versions.convert(&object, version)
}
