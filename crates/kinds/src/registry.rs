//! Which kinds there are, and how a path or an `apiVersion` and `kind` lead to one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use skiff_object::Key;

use crate::facts::{Facts, Storage, Subresource, Verbs, split_api_version};
use crate::kind::Kind;

/// The facts about built-in resources, one line each, subresources below with a `+`.
const RESOURCES: &str = include_str!("resources.tsv");

/// An immutable set of kinds. Adding custom kinds gives a new one that shares the built-in half.
#[derive(Clone)]
pub struct Registry {
    builtin: Arc<Index>,
    custom: Arc<Index>,
}

/// Kinds in order of discovery, found by path or by object.
#[derive(Default)]
struct Index {
    kinds: Vec<Arc<dyn Kind>>,
    by_resource: HashMap<String, usize>,
    by_kind: HashMap<String, usize>,
    by_version: HashMap<String, Vec<usize>>,
}

impl Index {
    fn new(kinds: Vec<Arc<dyn Kind>>) -> Self {
        let mut index = Self::default();
        for kind in kinds {
            let facts = kind.facts();
            let place = index.kinds.len();
            index.by_resource.insert(join(facts.api_version.as_str(), facts.plural.as_str()), place);
            index.by_kind.insert(join(facts.api_version.as_str(), facts.kind.as_str()), place);
            index.by_version.entry(facts.api_version.as_str().to_owned()).or_default().push(place);
            index.kinds.push(kind);
        }
        index
    }
}

/// The key of the indexes. A NUL cannot occur in either half.
fn join(api_version: &str, name: &str) -> String {
    [api_version, name].join("\0")
}

impl Registry {
    /// The built-in kinds and nothing else.
    pub fn builtin() -> &'static Self {
        static REGISTRY: OnceLock<Registry> = OnceLock::new();
        REGISTRY.get_or_init(|| Self { builtin: Arc::new(Index::new(crate::builtin_kinds())), custom: Arc::default() })
    }

    /// The built-in kinds and these, in place of any custom kinds there were.
    #[must_use]
    pub fn with_custom(&self, custom: Vec<Arc<dyn Kind>>) -> Self {
        Self { builtin: Arc::clone(&self.builtin), custom: Arc::new(Index::new(custom)) }
    }

    /// The kind served at a path: `("apps", "v1", "deployments")`.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<dyn Kind>> {
        let api_version = api_version(group, version);
        self.find(|index| &index.by_resource, &join(&api_version, plural))
    }

    /// The kind of objects with this `apiVersion` and `kind`.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<&Arc<dyn Kind>> {
        self.find(|index| &index.by_kind, &join(api_version, kind))
    }

    fn find(&self, map: impl Fn(&Index) -> &HashMap<String, usize>, key: &str) -> Option<&Arc<dyn Kind>> {
        [&self.builtin, &self.custom]
            .into_iter()
            .find_map(|index| map(index).get(key).map(|place| &index.kinds[*place]))
    }

    /// Every kind in every served version, in the order of discovery: built-in ones first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Kind>> {
        self.builtin.kinds.iter().chain(&self.custom.kinds)
    }

    /// Every group with its versions, the preferred one first, in the order of discovery.
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for kind in self.iter() {
            let facts = kind.facts();
            let (group, version) = (facts.group.as_str(), facts.version.as_str());
            let place = *places.entry(group).or_insert(groups.len());
            match groups.get_mut(place) {
                Some((_, versions)) if versions.contains(&version) => {}
                Some((_, versions)) => versions.push(version),
                None => groups.push((group, vec![version])),
            }
        }
        groups
    }

    /// The kinds of one group and version, in the order of discovery.
    pub fn group_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<dyn Kind>> {
        let api_version = api_version(group, version);
        [&self.builtin, &self.custom].into_iter().flat_map(move |index| {
            let places = index.by_version.get(&api_version).map_or(&[][..], Vec::as_slice);
            places.iter().map(|place| &index.kinds[*place])
        })
    }

    /// The first kind of a group and resource in whatever version, the preferred one first.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<&Arc<dyn Kind>> {
        self.iter().find(|kind| kind.facts().group == *group && kind.facts().plural == *plural)
    }
}

/// `apps/v1`, and `v1` for the core group.
fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The built-in facts, keyed by `apiVersion` and plural, with their place in discovery.
pub(crate) fn builtin_facts() -> BTreeMap<(&'static str, &'static str), (usize, Facts)> {
    let mut all: Vec<Facts> = Vec::new();
    for line in RESOURCES.lines() {
        let columns: Vec<&'static str> = line.split('\t').collect();
        match (columns.as_slice(), all.last_mut()) {
            (["+", name, kind, api_version, verbs], Some(parent)) => {
                parent.subresources.push(subresource(parent.api_version.clone(), name, kind, api_version, verbs));
            }
            ([api_version, plural, singular, kind, scope, verbs, short, categories, hash], _) => {
                all.push(facts([api_version, plural, singular, kind, scope, verbs, short, categories, hash]));
            }
            _ => unreachable!("resources.tsv is generated and covered by a test"),
        }
    }
    all.into_iter()
        .enumerate()
        .map(|(place, facts)| match (&facts.api_version, &facts.plural) {
            (Key::Static(api_version), Key::Static(plural)) => ((*api_version, *plural), (place, facts)),
            _ => unreachable!("names from the table are static"),
        })
        .collect()
}

fn facts(columns: [&'static str; 9]) -> Facts {
    let [api_version, plural, singular, kind, scope, verbs, short_names, categories, hash] = columns;
    let (group, version) = split_api_version(api_version);
    let list_kind = format!("{kind}List");
    Facts {
        group: group.into(),
        version: version.into(),
        api_version: api_version.into(),
        plural: plural.into(),
        singular: singular.into(),
        kind: kind.into(),
        short_names: names(short_names),
        categories: names(categories),
        namespaced: scope == "n",
        verbs: Verbs::from_letters(verbs),
        subresources: Vec::new(),
        storage_version_hash: names(hash).pop().unwrap_or(Key::Static("")),
        ty: crate::pack::type_of(api_version, kind).unwrap_or_else(|| unreachable!("every kind is in the pack")),
        list_ty: crate::pack::type_of(api_version, &list_kind),
        list_kind: list_kind.into(),
        storage: stored_as(group, version, plural),
    }
}

/// Resources that are served in more than one version, and the one they are stored in.
fn stored_as(group: &'static str, version: &'static str, plural: &str) -> Storage {
    let (group, version) = match (group, plural) {
        ("events.k8s.io", "events") => ("", "v1"),
        ("autoscaling", "horizontalpodautoscalers") => ("autoscaling", "v2"),
        _ => (group, version),
    };
    Storage { group: group.into(), version: version.into() }
}

fn subresource(
    parent: Key,
    name: &'static str,
    kind: &'static str,
    api_version: &'static str,
    verbs: &str,
) -> Subresource {
    let foreign = api_version != "-";
    let api_version = if foreign { Key::Static(api_version) } else { parent };
    Subresource {
        name: name.into(),
        ty: crate::pack::type_of(api_version.as_str(), kind),
        api_version,
        kind: kind.into(),
        foreign,
        verbs: Verbs::from_letters(verbs),
    }
}

/// A comma-separated column; `-` is empty.
fn names(column: &'static str) -> Vec<Key> {
    if column == "-" { Vec::new() } else { column.split(',').map(Key::Static).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_has_a_kind() {
        let registry = Registry::builtin();
        assert_eq!(registry.iter().filter(|kind| kind.facts().verbs.contains(crate::Verb::Create)).count(), 67);
        assert_eq!(registry.iter().count(), RESOURCES.lines().filter(|line| !line.starts_with('+')).count());
    }

    #[test]
    fn subresources_name_the_kind_they_exchange() {
        let pods = Registry::builtin().kind("v1", "Pod").unwrap();
        let eviction = pods.facts().subresource("eviction").unwrap();
        assert_eq!((eviction.api_version.as_str(), eviction.kind.as_str()), ("policy/v1", "Eviction"));
        let status = pods.facts().subresource("status").unwrap();
        assert_eq!((status.api_version.as_str(), status.foreign), ("v1", false));
    }

    #[test]
    fn groups_come_in_the_order_of_discovery_with_the_preferred_version_first() {
        let groups = Registry::builtin().groups();
        assert_eq!(groups.first(), Some(&("", vec!["v1"])));
        assert!(groups.contains(&("autoscaling", vec!["v2", "v1"])));
    }
}
