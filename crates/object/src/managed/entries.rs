//! `metadata.managedFields`: who owns which fields, and since when.

use std::collections::BTreeMap;
use std::fmt;

use super::set::FieldSet;
use crate::errors::quote;
use crate::tree::{Map, Tree};

/// Upstream's limit on entries of updates; older ones are merged.
const UPDATERS_MAX: usize = 10;
/// Whose the merged entries are.
const OLD_UPDATES: &str = "ancient-changes";

/// Who owns fields. Two entries with the same owner are one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Owner {
    pub(super) manager: Box<str>,
    pub(super) applies: bool,
    /// Empty for appliers: they stay the same through all versions.
    pub(super) api_version: Box<str>,
    pub(super) subresource: Box<str>,
}

impl Owner {
    pub(super) fn applier(manager: &str, subresource: &str) -> Self {
        Self { manager: manager.into(), applies: true, api_version: "".into(), subresource: subresource.into() }
    }

    pub(super) fn updater(manager: &str, api_version: &str, subresource: &str) -> Self {
        Self {
            manager: manager.into(),
            applies: false,
            api_version: api_version.into(),
            subresource: subresource.into(),
        }
    }
}

/// As conflicts name an owner: `"kubectl" with subresource "scale" using apps/v1`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(&self.manager))?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {}", quote(&self.subresource))?;
        }
        if !self.applies {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// What an owner owns.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Owned {
    pub(super) set: FieldSet,
    pub(super) api_version: Box<str>,
    /// As it is written in the entry.
    pub(super) time: Option<Box<str>>,
}

/// All owners of an object.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Owners(pub(super) BTreeMap<Owner, Owned>);

impl Owners {
    /// Reads `metadata.managedFields`.
    pub(super) fn decode(entries: &[Tree]) -> Result<Self, String> {
        let mut owners = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let applies = match entry.str_at(&["operation"]) {
                "Apply" => true,
                "Update" => false,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            let api_version = entry.str_at(&["apiVersion"]);
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match entry.str_at(&["fieldsType"]) {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
                other => {
                    return Err(format!("invalid fieldsType {} in managed fields entry {index}", quote(other)));
                }
            }
            let set = match entry.get("fieldsV1") {
                Some(fields) => FieldSet::decode(fields).map_err(|error| format!("error decoding set: {error}"))?,
                None => FieldSet::new(),
            };
            let (manager, subresource) = (entry.str_at(&["manager"]), entry.str_at(&["subresource"]));
            let owner = if applies {
                Owner::applier(manager, subresource)
            } else {
                Owner::updater(manager, api_version, subresource)
            };
            let time = entry.get("time").and_then(Tree::as_str).map(Box::from);
            owners.insert(owner, Owned { set, api_version: api_version.into(), time });
        }
        Ok(Self(owners))
    }

    /// Writes `metadata.managedFields`; `None` when nobody owns anything.
    pub(super) fn encode(&self) -> Option<Tree> {
        if self.0.is_empty() {
            return None;
        }
        let mut entries: Vec<(&Owner, &Owned)> = self.0.iter().collect();
        // Appliers first, then by time, then by name.
        entries.sort_by(|(a, x), (b, y)| {
            (!a.applies, seconds(x), &a.manager, &x.api_version, &a.subresource).cmp(&(
                !b.applies,
                seconds(y),
                &b.manager,
                &y.api_version,
                &b.subresource,
            ))
        });
        Some(Tree::List(entries.into_iter().map(|(owner, owned)| entry(owner, owned)).collect()))
    }

    /// Merges the oldest entries of updates until at most [`UPDATERS_MAX`] are left.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<Owner> = self.0.keys().filter(|owner| !owner.applies).cloned().collect();
        let mut left = updaters.len();
        if left <= UPDATERS_MAX {
            return;
        }
        updaters.sort_by_cached_key(|owner| (self.0.get(owner).and_then(seconds), owner.clone()));
        let mut first: BTreeMap<Box<str>, Owner> = BTreeMap::new();
        for owner in updaters {
            if left <= UPDATERS_MAX {
                break;
            }
            let Some(version) = self.0.get(&owner).map(|owned| owned.api_version.clone()) else { continue };
            let Some(oldest) = first.get(&version) else {
                first.insert(version, owner);
                continue;
            };
            let bucket = Owner::updater(OLD_UPDATES, &version, "");
            if !self.0.contains_key(&bucket)
                && let Some(owned) = self.0.remove(oldest)
            {
                self.0.insert(bucket.clone(), owned);
            }
            if owner == bucket {
                continue;
            }
            let Some(owned) = self.0.remove(&owner) else { continue };
            if let Some(merged) = self.0.get_mut(&bucket) {
                merged.set = merged.set.union(&owned.set);
                merged.time = owned.time;
            }
            left -= 1;
        }
    }
}

/// Order of times: those without first.
fn seconds(owned: &Owned) -> Option<i64> {
    let time = owned.time.as_deref()?;
    crate::time::Time::parse(time).ok().map(|time| time.seconds)
}

fn entry(owner: &Owner, owned: &Owned) -> Tree {
    let mut entry = Map::new();
    entry.insert("manager", &*owner.manager);
    entry.insert("operation", if owner.applies { "Apply" } else { "Update" });
    entry.insert("apiVersion", &*owned.api_version);
    if let Some(time) = &owned.time {
        entry.insert("time", &**time);
    }
    entry.insert("fieldsType", "FieldsV1");
    entry.insert("fieldsV1", owned.set.encode());
    if !owner.subresource.is_empty() {
        entry.insert("subresource", &*owner.subresource);
    }
    Tree::Map(entry)
}
