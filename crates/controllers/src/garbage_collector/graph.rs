//! Who owns whom: the graph of all objects, and what its changes ask for. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use skiff_client::Resource;

use crate::shared::Meta;

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// Owners known to be gone; upstream's bound.
const ABSENT_MAX: usize = 500;

/// An object.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) resource: Arc<Resource>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) dependents: BTreeSet<String>,
    pub(super) deleting: bool,
    /// Its dependents go first.
    pub(super) deleting_dependents: bool,
    /// Only referred to so far, not seen.
    pub(super) is_virtual: bool,
}

/// What must be looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Whether the object with this uid still has an owner, or waits for its dependents.
    Delete(String),
    /// The object with this uid lets its dependents go.
    Orphan(String),
}

#[derive(Default)]
pub(super) struct Graph {
    nodes: BTreeMap<String, Node>,
    absent: BTreeSet<String>,
    absent_order: VecDeque<String>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Whether the owner with this uid is known to be gone.
    pub(super) fn is_absent(&self, uid: &str) -> bool {
        self.absent.contains(uid)
    }

    pub(super) fn note_absent(&mut self, uid: &str) {
        if self.absent.insert(uid.to_owned()) {
            self.absent_order.push_back(uid.to_owned());
        }
        if self.absent_order.len() > ABSENT_MAX
            && let Some(oldest) = self.absent_order.pop_front()
        {
            self.absent.remove(&oldest);
        }
    }

    /// The dependents of `uid` that it must wait for.
    pub(super) fn blocking(&self, uid: &str) -> Vec<&Node> {
        let blocks =
            |node: &&Node| node.owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true));
        self.dependents(uid).filter(blocks).collect()
    }

    pub(super) fn dependents(&self, uid: &str) -> impl Iterator<Item = &Node> {
        self.nodes.get(uid).into_iter().flat_map(|node| &node.dependents).filter_map(|uid| self.nodes.get(uid))
    }

    /// The object exists with this metadata. `resolve` finds the resource of an owner's kind.
    pub(super) fn observe(
        &mut self,
        resource: &Arc<Resource>,
        meta: &ObjectMeta,
        resolve: impl Fn(&OwnerReference) -> Option<Arc<Resource>>,
    ) -> Vec<Task> {
        let uid = meta.uid().to_owned();
        let before = self.nodes.get(&uid).cloned();
        let deleting = meta.is_deleting();
        let owners = meta.owner_references.clone().unwrap_or_default();
        let mut node = Node {
            resource: resource.clone(),
            namespace: meta.ns().to_owned(),
            name: meta.id().to_owned(),
            uid: uid.clone(),
            owners,
            dependents: before.as_ref().map(|node| node.dependents.clone()).unwrap_or_default(),
            deleting,
            deleting_dependents: false,
            is_virtual: false,
        };
        node.deleting_dependents = deleting && meta.has_finalizer(FOREGROUND);
        let mut tasks = Vec::new();
        let was = before.as_ref().filter(|node| !node.is_virtual);
        // Sorted by transition: what has begun with this event.
        if deleting && meta.has_finalizer(ORPHAN) && !was.is_some_and(|was| was.deleting) {
            tasks.push(Task::Orphan(uid.clone()));
        }
        if node.deleting_dependents && !was.is_some_and(|was| was.deleting_dependents) {
            tasks.extend(node.dependents.iter().cloned().map(Task::Delete));
            tasks.push(Task::Delete(uid.clone()));
        }
        // Dependents that named our uid but not our place refer to nothing.
        tasks.extend(self.misplaced(&node).map(Task::Delete));
        if let Some(was) = &before {
            self.leave(was, &node, &mut tasks);
        }
        let joined = node.owners.clone();
        self.nodes.insert(uid, node.clone());
        for owner in &joined {
            self.join(&node, owner, &resolve, &mut tasks);
        }
        tasks
    }

    /// The object with this uid is gone.
    pub(super) fn forget(&mut self, uid: &str) -> Vec<Task> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut tasks = Vec::new();
        if !node.dependents.is_empty() {
            self.note_absent(uid);
        }
        tasks.extend(node.dependents.iter().cloned().map(Task::Delete));
        for owner in &node.owners {
            if let Some(owner) = self.nodes.get_mut(&owner.uid) {
                owner.dependents.remove(uid);
                if owner.deleting_dependents {
                    tasks.push(Task::Delete(owner.uid.clone()));
                }
            }
            self.drop_unreferenced(&owner.uid);
        }
        // Dependents that are still there keep referring to us.
        if !node.dependents.is_empty() {
            let placeholder =
                Node { is_virtual: true, deleting: false, deleting_dependents: false, owners: Vec::new(), ..node };
            self.nodes.insert(uid.to_owned(), placeholder);
        }
        tasks
    }

    fn misplaced<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = String> + 'a {
        let wrong = move |uid: &&String| {
            self.nodes
                .get(*uid)
                .is_some_and(|dependent| node.resource.namespaced && dependent.namespace != node.namespace)
        };
        node.dependents.iter().filter(wrong).cloned()
    }

    /// Owners that `after` no longer has, or no longer blocks, may be free to go.
    fn leave(&mut self, before: &Node, after: &Node, tasks: &mut Vec<Task>) {
        for old in &before.owners {
            let new = after.owners.iter().find(|new| new.uid == old.uid);
            let blocked = old.block_owner_deletion == Some(true);
            let blocks = new.is_some_and(|new| new.block_owner_deletion == Some(true));
            if blocked && !blocks {
                tasks.push(Task::Delete(old.uid.clone()));
            }
            if new.is_none() {
                if let Some(owner) = self.nodes.get_mut(&old.uid) {
                    owner.dependents.remove(&before.uid);
                }
                self.drop_unreferenced(&old.uid);
            }
        }
    }

    fn join(
        &mut self,
        node: &Node,
        owner: &OwnerReference,
        resolve: impl Fn(&OwnerReference) -> Option<Arc<Resource>>,
        tasks: &mut Vec<Task>,
    ) {
        if let Some(known) = self.nodes.get_mut(&owner.uid) {
            let new = known.dependents.insert(node.uid.clone());
            let misplaced = !known.is_virtual && known.resource.namespaced && known.namespace != node.namespace;
            if new && (misplaced || known.deleting_dependents) {
                tasks.push(Task::Delete(node.uid.clone()));
            }
            if known.is_virtual && new {
                tasks.push(Task::Delete(owner.uid.clone()));
            }
            return;
        }
        // Not seen yet: perhaps gone, perhaps its watch is behind. Looking it up live decides.
        let Some(resource) = resolve(owner) else {
            tasks.push(Task::Delete(node.uid.clone()));
            return;
        };
        let placeholder = Node {
            namespace: if resource.namespaced { node.namespace.clone() } else { String::new() },
            resource,
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            owners: Vec::new(),
            dependents: BTreeSet::from([node.uid.clone()]),
            deleting: false,
            deleting_dependents: false,
            is_virtual: true,
        };
        self.nodes.insert(owner.uid.clone(), placeholder);
        tasks.push(Task::Delete(owner.uid.clone()));
    }

    fn drop_unreferenced(&mut self, uid: &str) {
        if self.nodes.get(uid).is_some_and(|node| node.is_virtual && node.dependents.is_empty()) {
            self.nodes.remove(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use skiff_client::time::to_time;

    use super::*;

    struct Bench(Graph);

    impl Bench {
        /// `name [deleting] [finalizer…] <owner[!]…`: the uid is the name; `!` blocks the owner.
        fn observe(&mut self, text: &str) -> Vec<String> {
            let words: Vec<&str> = text.split_whitespace().collect();
            let owners = words.iter().filter_map(|word| word.strip_prefix('<')).map(|owner| OwnerReference {
                uid: owner.trim_end_matches('!').into(),
                name: owner.trim_end_matches('!').into(),
                block_owner_deletion: Some(owner.ends_with('!')),
                ..OwnerReference::default()
            });
            let finalizers = words[1..].iter().filter(|word| **word == FOREGROUND || **word == ORPHAN);
            let meta = ObjectMeta {
                name: Some(words[0].into()),
                uid: Some(words[0].into()),
                namespace: Some("n".into()),
                owner_references: Some(owners.collect()),
                finalizers: Some(finalizers.map(|word| (*word).to_owned()).collect()),
                deletion_timestamp: words.contains(&"deleting").then(|| to_time(Default::default())),
                ..ObjectMeta::default()
            };
            let resource = Arc::new(Resource::fixed("", "v1", "Thing", "things", true));
            show(self.0.observe(&resource, &meta, |_| Some(resource.clone())))
        }

        fn forget(&mut self, uid: &str) -> Vec<String> {
            show(self.0.forget(uid))
        }
    }

    fn show(tasks: Vec<Task>) -> Vec<String> {
        let text = |task| match task {
            Task::Delete(uid) => format!("delete {uid}"),
            Task::Orphan(uid) => format!("orphan {uid}"),
        };
        tasks.into_iter().map(text).collect()
    }

    fn bench(objects: &[&str]) -> Bench {
        let mut bench = Bench(Graph::default());
        for object in objects {
            bench.observe(object);
        }
        bench
    }

    #[test]
    fn dependents_of_a_vanished_owner_are_looked_at() {
        let mut bench = bench(&["a", "b <a", "c <b"]);
        assert_eq!(bench.forget("a"), ["delete b"]);
        assert!(bench.0.is_absent("a"));
        assert_eq!(bench.forget("b"), ["delete c"]);
        assert!(bench.0.get("a").is_none());
    }

    #[test]
    fn an_unseen_owner_is_looked_up() {
        let mut bench = bench(&[]);
        assert_eq!(bench.observe("b <a"), ["delete a"]);
        assert!(bench.0.get("a").unwrap().is_virtual);
        assert_eq!(bench.observe("a"), [""; 0]);
        assert!(!bench.0.get("a").unwrap().is_virtual);
        assert_eq!(bench.0.dependents("a").count(), 1);
    }

    #[test]
    fn foreground_deletion_looks_at_dependents_and_comes_back_as_they_go() {
        let mut bench = bench(&["a", "b <a!", "c <a"]);
        assert_eq!(bench.observe("a deleting foregroundDeletion"), ["delete b", "delete c", "delete a"]);
        assert_eq!(bench.0.blocking("a").len(), 1);
        assert_eq!(bench.observe("a deleting foregroundDeletion"), [""; 0]);
        assert_eq!(bench.forget("b"), ["delete a"]);
        assert!(bench.0.blocking("a").is_empty());
    }

    #[test]
    fn a_reference_that_no_longer_blocks_frees_the_owner() {
        let mut bench = bench(&["a", "b <a!", "a deleting foregroundDeletion"]);
        assert_eq!(bench.observe("b <a"), ["delete a"]);
        assert_eq!(bench.observe("b"), [""; 0]);
    }

    #[test]
    fn orphaning_begins_once() {
        let mut bench = bench(&["a", "b <a"]);
        assert_eq!(bench.observe("a deleting orphan"), ["orphan a"]);
        assert_eq!(bench.observe("a deleting orphan"), [""; 0]);
    }
}
