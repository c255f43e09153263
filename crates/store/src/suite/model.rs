//! Random operations, compared after every step with the plainest model that keeps every state
//! the store was ever in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use skiff_base::Random;

use super::{Subject, bytes};
use crate::contract::{Entry, Error, Event, Expect, LeaseId, REVISION_FIRST, Range, Revision, Store};

const OPERATIONS: usize = 600;
const KEYS: u64 = 12;

/// See the module. A failure prints the seed.
pub async fn random_operations_match_a_naive_model(subject: &mut dyn Subject) {
    let seed = Random::system().next_u64();
    println!("seed {seed}");
    let mut run = Run { random: Random::seeded(seed), model: Model::default(), store: subject.store() };
    for step in 0..OPERATIONS {
        if run.random.below(60) == 0 {
            // The old handle must be gone before the store is opened again.
            run.store = Arc::new(crate::memory::MemoryStore::new(skiff_base::Clock::system()));
            subject.reopen().await;
            run.store = subject.store();
            run.check_all().await;
        }
        println!("step {step}");
        run.step().await;
        assert_eq!(run.store.revision(), run.model.revision());
    }
    run.check_all().await;
}

type State = BTreeMap<Bytes, Entry>;

struct Model {
    /// The state at each revision from 1 on.
    states: Vec<State>,
    compacted: Revision,
    leases: BTreeSet<LeaseId>,
}

impl Default for Model {
    fn default() -> Self {
        Self { states: vec![State::new()], compacted: REVISION_FIRST, leases: BTreeSet::new() }
    }
}

impl Model {
    fn revision(&self) -> Revision {
        self.states.len() as Revision
    }

    fn at(&self, revision: Revision) -> &State {
        &self.states[revision as usize - 1]
    }

    fn now(&self) -> &State {
        self.at(self.revision())
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, lease: Option<LeaseId>) -> Entry {
        let mut state = self.now().clone();
        let mod_revision = self.revision() + 1;
        let create_revision = state.get(key).map_or(mod_revision, |entry| entry.create_revision);
        let version = state.get(key).map_or(0, |entry| entry.version) + 1;
        let entry = Entry { key: key.clone(), value: value.clone(), create_revision, mod_revision, version, lease };
        state.insert(key.clone(), entry.clone());
        self.states.push(state);
        entry
    }

    fn delete(&mut self, key: &Bytes) -> Entry {
        let mut state = self.now().clone();
        let entry = state.remove(key).expect("the model deletes what is there");
        self.states.push(state);
        entry
    }

    fn holds(&self, key: &Bytes, expect: Expect) -> bool {
        let present = self.now().get(key);
        match expect {
            Expect::Any => true,
            Expect::Absent => present.is_none(),
            Expect::Present => present.is_some(),
            Expect::Revision(revision) => present.is_some_and(|entry| entry.mod_revision == revision),
        }
    }
}

struct Run {
    random: Random,
    model: Model,
    store: Arc<dyn Store>,
}

impl Run {
    async fn step(&mut self) {
        match self.random.below(20) {
            0..=7 => self.put().await,
            8..=11 => self.delete().await,
            12 => self.compact().await,
            13 => self.grant().await,
            14 => self.revoke().await,
            15 => self.get().await,
            16..=17 => self.range().await,
            _ => self.watch().await,
        }
    }

    fn key(&self) -> Bytes {
        let key = self.random.below(KEYS);
        bytes(&format!("{}/{key}", key % 3))
    }

    fn expect(&self, key: &Bytes) -> Expect {
        let present = self.model.now().get(key).map_or(0, |entry| entry.mod_revision);
        match self.random.below(6) {
            0 => Expect::Absent,
            1 => Expect::Present,
            2 => Expect::Revision(self.random.below(self.model.revision() + 1)),
            3..=4 => Expect::Revision(present),
            _ => Expect::Any,
        }
    }

    /// A lease that exists, mostly.
    fn lease(&self) -> Option<LeaseId> {
        let count = self.model.leases.len() as u64;
        self.model.leases.iter().nth(self.random.below(count * 2 + 1) as usize).copied()
    }

    /// A revision that may be read, or is a little too old or too new.
    fn some_revision(&self) -> Revision {
        let oldest = self.model.compacted.saturating_sub(2);
        oldest + self.random.below(self.model.revision() + 2 - oldest)
    }

    fn readable<T: std::fmt::Debug>(&self, revision: Revision, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => {
                assert!(revision >= self.model.compacted && revision <= self.model.revision(), "read at {revision}");
                Some(value)
            }
            Err(Error::Compacted { requested, .. }) => {
                assert!(requested == revision && revision < self.model.compacted);
                None
            }
            Err(Error::Future { requested, .. }) => {
                assert!(requested == revision && revision > self.model.revision());
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn put(&mut self) {
        let (key, value) = (self.key(), bytes(&self.random.suffix(9)));
        let (expect, lease) = (self.expect(&key), self.lease());
        let result = self.store.put(key.clone(), value.clone(), expect, lease).await;
        if self.model.holds(&key, expect) {
            let previous = self.model.now().get(&key).cloned();
            let put = result.expect("the expectation holds");
            assert_eq!((put.entry, put.previous), (self.model.put(&key, &value, lease), previous));
        } else {
            super::assert_conflict(result, self.model.now().get(&key));
        }
    }

    async fn delete(&mut self) {
        let key = self.key();
        let expect = self.expect(&key);
        let result = self.store.delete(key.clone(), expect).await;
        if self.model.now().contains_key(&key) && self.model.holds(&key, expect) {
            let deleted = result.expect("the expectation holds");
            assert_eq!((deleted.revision, deleted.previous), (self.model.revision() + 1, self.model.delete(&key)));
        } else {
            super::assert_conflict(result, self.model.now().get(&key));
        }
    }

    async fn compact(&mut self) {
        let revision = self.some_revision();
        let result = self.store.compact(revision).await;
        if self.readable(revision, result).is_some() {
            self.model.compacted = revision;
        }
    }

    async fn grant(&mut self) {
        let lease = self.store.grant(Duration::from_secs(1_000_000)).await.expect("grant");
        assert!(self.model.leases.insert(lease.id));
    }

    async fn revoke(&mut self) {
        let Some(lease) = self.lease() else { return };
        self.store.revoke(lease).await.expect("revoke");
        self.model.leases.remove(&lease);
        let of_lease = |entry: &&Entry| entry.lease == Some(lease);
        let keys: Vec<Bytes> = self.model.now().values().filter(of_lease).map(|entry| entry.key.clone()).collect();
        for key in keys {
            self.model.delete(&key);
        }
    }

    async fn get(&mut self) {
        let (key, revision) = (self.key(), self.some_revision());
        let result = self.store.get(&key, Some(revision)).await;
        if let Some(found) = self.readable(revision, result) {
            assert_eq!(found.entry.as_ref(), self.model.at(revision).get(&key));
        }
    }

    async fn range(&mut self) {
        let revision = self.some_revision();
        let limit = self.random.below(5) as usize;
        let mut range = Range { start: self.key(), end: self.key(), limit, revision: Some(revision) };
        match self.random.below(3) {
            0 => range.end = Bytes::new(),
            1 if range.start > range.end => std::mem::swap(&mut range.start, &mut range.end),
            _ => {}
        }
        let result = self.store.range(range.clone()).await;
        if let Some(found) = self.readable(revision, result) {
            let within = |key: &Bytes| *key >= range.start && (range.end.is_empty() || *key < range.end);
            let all: Vec<&Entry> = self.model.at(revision).values().filter(|entry| within(&entry.key)).collect();
            let wanted = if limit == 0 { all.len() } else { limit.min(all.len()) };
            assert_eq!((found.count, found.revision), (all.len(), revision));
            assert_eq!(found.entries.iter().collect::<Vec<_>>(), all[..wanted]);
        }
    }

    async fn watch(&mut self) {
        let after = self.some_revision();
        let result = self.store.watch(Bytes::new(), Bytes::new(), Some(after)).await;
        let Some(mut watch) = self.readable(after, result) else { return };
        for revision in after + 1..=self.model.revision() {
            match watch.next().await {
                Some(Ok(Event::Change { entry, previous, .. })) => {
                    self.check_change(revision, &entry, previous.as_ref())
                }
                other => panic!("expected revision {revision}, got {other:?}"),
            }
        }
        assert!(matches!(watch.next().await, Some(Ok(Event::Progress(revision))) if revision == self.model.revision()));
    }

    fn check_change(&self, revision: Revision, entry: &Entry, previous: Option<&Entry>) {
        assert_eq!(entry.mod_revision, revision);
        assert_eq!(previous, self.model.at(revision - 1).get(&entry.key));
        let stands = self.model.at(revision).get(&entry.key);
        assert!(stands.is_none_or(|stands| stands == entry) && (stands.is_some() || entry.value.is_empty()));
    }

    async fn check_all(&mut self) {
        for revision in self.model.compacted..=self.model.revision() {
            let result = self.store.range(Range { revision: Some(revision), ..Range::default() }).await;
            let found = result.expect("nothing readable is lost");
            assert!(found.entries.iter().eq(self.model.at(revision).values()), "at {revision}");
        }
        let result = self.store.watch(Bytes::new(), Bytes::new(), Some(self.model.compacted)).await;
        assert!(result.is_ok(), "history is kept: {result:?}");
    }
}
