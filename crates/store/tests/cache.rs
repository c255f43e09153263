//! The watch cache over the memory engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skiff_base::{Clock, Random, Shutdown, Tasks};
use skiff_store::cache::{Cache, Filter, Scope, Snapshot, WATCHER_QUEUE_EVENTS, Watcher};
use skiff_store::memory::MemoryStore;
use skiff_store::{Entry, Error, EventKind, Expect, Revision, Store};

struct Fixture {
    store: Arc<MemoryStore>,
    cache: Cache<Entry>,
}

fn fixture() -> Fixture {
    let store = Arc::new(MemoryStore::new(Clock::system()));
    let tasks = Tasks::new("test", Shutdown::new());
    let cache = Cache::new(store.clone(), "pods/".into(), Entry::clone, Clock::system(), &tasks);
    Fixture { store, cache }
}

impl Fixture {
    async fn put(&self, key: &str, value: &str) -> Revision {
        let put = self.store.put(key.to_owned().into(), value.to_owned().into(), Expect::Any, None);
        put.await.unwrap().entry.mod_revision
    }

    async fn delete(&self, key: &str) -> Revision {
        self.store.delete(key.to_owned().into(), Expect::Any).await.unwrap().revision
    }
}

fn content(snapshot: &Snapshot<Entry>, prefix: &str, after: Option<&str>) -> String {
    let items = snapshot.range(prefix.as_bytes(), after.map(str::as_bytes));
    let texts = items.map(|(key, item)| {
        assert_eq!(*key, item.key);
        format!("{}={}", text(key), text(&item.value))
    });
    texts.collect::<Vec<_>>().join(" ")
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn next(watcher: &mut Watcher<Entry>) -> String {
    match watcher.next().await {
        Ok(change) => {
            assert_eq!(change.current.mod_revision, change.revision);
            let previous = change.previous.as_ref().map_or("-".into(), |previous| text(&previous.value));
            let kind = if change.kind == EventKind::Put { "put" } else { "delete" };
            format!("{kind} {} {}->{} @{}", text(&change.key), previous, text(&change.current.value), change.revision)
        }
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn reads_see_every_acknowledged_write_and_only_their_prefix() {
    let fixture = fixture();
    fixture.put("nodes/a", "0").await;
    fixture.put("pods/x/a", "1").await;
    for value in 0..200 {
        let written = fixture.put("pods/y/a", &value.to_string()).await;
        let other = fixture.put("nodes/a", &value.to_string()).await;
        let snapshot = fixture.cache.current().await.unwrap();
        assert_eq!(snapshot.revision(), other, "a change elsewhere counts too");
        assert_eq!(snapshot.get(b"pods/y/a").unwrap().mod_revision, written);
        assert_eq!(content(&snapshot, "pods/", None), format!("pods/x/a=1 pods/y/a={value}"));
        assert_eq!(content(&snapshot, "pods/x/", None), "pods/x/a=1");
    }
    let snapshot = fixture.cache.current().await.unwrap();
    assert_eq!(content(&snapshot, "pods/", Some("pods/x/a")), "pods/y/a=199");
    assert_eq!(content(&snapshot, "pods/", Some("pods/x/0")), "pods/x/a=1 pods/y/a=199");
    assert_eq!(content(&snapshot, "pods/y/", Some("pods/x/a")), "pods/y/a=199");
    let future = fixture.cache.at_least(snapshot.revision() + 1).await;
    assert!(matches!(future, Err(Error::Future { .. })));
}

#[tokio::test]
async fn watchers_resume_follow_and_tell_deletes_with_their_revision() {
    let fixture = fixture();
    fixture.put("pods/x/a", "1").await; // 2
    let listed = fixture.cache.current().await.unwrap().revision();
    fixture.put("pods/x/a", "2").await; // 3
    fixture.put("pods/y/b", "1").await; // 4
    let mut all = fixture.cache.watch(Scope::prefix(b"pods/"), listed).await.unwrap();
    let mut x = fixture.cache.watch(Scope::prefix(b"pods/x/"), listed).await.unwrap();
    let mut b = fixture.cache.watch(Scope::key(b"pods/y/b"), listed).await.unwrap();
    fixture.put("pods/y/bb", "1").await; // 5
    fixture.delete("pods/x/a").await; // 6
    fixture.delete("pods/y/b").await; // 7
    assert_eq!(next(&mut all).await, "put pods/x/a 1->2 @3");
    assert_eq!(next(&mut all).await, "put pods/y/b -->1 @4");
    assert_eq!(next(&mut all).await, "put pods/y/bb -->1 @5");
    assert_eq!(next(&mut all).await, "delete pods/x/a 2->2 @6");
    assert_eq!(next(&mut all).await, "delete pods/y/b 1->1 @7");
    assert_eq!(next(&mut x).await, "put pods/x/a 1->2 @3");
    assert_eq!(next(&mut x).await, "delete pods/x/a 2->2 @6");
    assert_eq!(next(&mut b).await, "put pods/y/b -->1 @4");
    assert_eq!(next(&mut b).await, "delete pods/y/b 1->1 @7");
}

#[tokio::test]
async fn progress_never_runs_ahead_of_what_was_delivered() {
    let fixture = fixture();
    fixture.cache.current().await.unwrap();
    let mut watcher = fixture.cache.watch(Scope::prefix(b"pods/"), 1).await.unwrap();
    fixture.put("pods/a", "1").await;
    fixture.put("pods/b", "1").await;
    fixture.cache.current().await.unwrap();
    assert_eq!(watcher.progress().await, 1);
    watcher.next().await.unwrap();
    assert_eq!(watcher.progress().await, 2);
    watcher.next().await.unwrap();
    let elsewhere = fixture.put("nodes/a", "1").await;
    assert_eq!(watcher.progress().await, elsewhere);
}

#[tokio::test]
async fn filtered_changes_do_not_arrive() {
    let fixture = fixture();
    let filter = Filter::new(|change: &skiff_store::cache::Change<Entry>| change.current.value == "yes", None);
    let scope = Scope::prefix(b"pods/");
    let mut watcher = fixture.cache.watch_filtered(scope, 1, Some(filter)).await.unwrap();
    fixture.put("pods/a", "no").await;
    fixture.put("pods/b", "yes").await;
    assert_eq!(next(&mut watcher).await, "put pods/b -->yes @3");
}

#[tokio::test]
async fn a_slow_watcher_is_cut_and_the_others_go_on() {
    let fixture = fixture();
    fixture.cache.current().await.unwrap();
    let mut slow = fixture.cache.watch(Scope::prefix(b"pods/"), 1).await.unwrap();
    let mut quick = fixture.cache.watch(Scope::prefix(b"pods/"), 1).await.unwrap();
    for index in 0..WATCHER_QUEUE_EVENTS + 1 {
        let revision = fixture.put("pods/a", &index.to_string()).await;
        assert_eq!(quick.next().await.unwrap().revision, revision);
    }
    for index in 0..WATCHER_QUEUE_EVENTS {
        assert_eq!(slow.next().await.unwrap().revision, index as u64 + 2);
    }
    assert!(matches!(slow.next().await, Err(Error::Lagged(_))));
    assert!(matches!(slow.next().await, Err(Error::Lagged(_))));
    let old = fixture.cache.watch(Scope::prefix(b"pods/"), 0).await;
    assert!(matches!(old, Err(Error::Compacted { requested: 0, .. })), "{old:?}");
}

#[tokio::test]
async fn a_cut_store_watch_is_resumed_without_a_gap() {
    let fixture = fixture();
    fixture.cache.current().await.unwrap();
    let mut watcher = fixture.cache.watch(Scope::prefix(b"pods/"), 1).await.unwrap();
    for round in 0..5 {
        fixture.store.faults().cut_watches();
        let revision = fixture.put("pods/a", &round.to_string()).await;
        assert_eq!(watcher.next().await.unwrap().revision, revision);
        assert_eq!(fixture.cache.current().await.unwrap().get(b"pods/a").unwrap().mod_revision, revision);
    }
}

#[tokio::test]
async fn a_resume_that_comes_too_late_lists_again_and_ends_watchers() {
    let fixture = fixture();
    fixture.put("pods/a", "1").await;
    fixture.cache.current().await.unwrap();
    let mut watcher = fixture.cache.watch(Scope::prefix(b"pods/"), 2).await.unwrap();
    fixture.store.faults().cut_watches();
    fixture.put("pods/a", "2").await;
    fixture.delete("pods/a").await;
    let last = fixture.put("pods/b", "3").await;
    fixture.store.compact(last).await.unwrap();
    assert!(matches!(watcher.next().await, Err(Error::Compacted { .. })));
    assert_eq!(content(&fixture.cache.current().await.unwrap(), "pods/", None), "pods/b=3");
    let mut watcher = fixture.cache.watch(Scope::prefix(b"pods/"), last).await.unwrap();
    fixture.delete("pods/b").await;
    assert_eq!(next(&mut watcher).await, "delete pods/b 3->3 @6");
}

/// Whatever the way a past revision is found (kept, taken back, or read from the store), it is
/// that revision.
#[tokio::test]
async fn past_revisions_are_exact_until_compacted() {
    let fixture = fixture();
    let random = Random::seeded(11);
    let mut state = BTreeMap::new();
    let mut states = vec![String::new(), String::new()];
    let render = |state: &BTreeMap<String, String>| {
        state.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    for step in 0..3_000 {
        let key = format!("pods/{}", random.below(20));
        if random.below(4) == 0 && state.remove(&key).is_some() {
            fixture.delete(&key).await;
        } else {
            fixture.put(&key, &step.to_string()).await;
            state.insert(key, step.to_string());
        }
        states.push(render(&state));
        if random.below(8) == 0 {
            let current = fixture.cache.current().await.unwrap();
            assert_eq!(content(&current, "pods/", None), states[current.revision() as usize]);
            if random.below(2) == 0 {
                fixture.cache.keep(&current);
            }
            let past = random.below(current.revision()) + 1;
            let snapshot = fixture.cache.at(past).await.unwrap();
            assert_eq!(snapshot.revision(), past);
            assert_eq!(content(&snapshot, "pods/", None), states[past as usize], "at {past}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_under_load_see_every_change_once() {
    const WRITES: u64 = 2_000;
    let fixture = Arc::new(fixture());
    let follow = |start: u64| {
        let fixture = fixture.clone();
        async move {
            while fixture.store.revision() < start * 50 {
                tokio::task::yield_now().await;
            }
            let snapshot = fixture.cache.current().await.unwrap();
            let mut seen: BTreeMap<Bytes, Bytes> =
                snapshot.range(b"pods/", None).map(|(key, item)| (key.clone(), item.value.clone())).collect();
            let mut watcher = fixture.cache.watch(Scope::prefix(b"pods/"), snapshot.revision()).await.unwrap();
            let mut last = snapshot.revision();
            while last < 1 + WRITES {
                let change = watcher.next().await.unwrap();
                assert_eq!(change.revision, last + 1);
                assert_eq!(change.previous.as_ref().map(|item| &item.value), seen.get(&change.key));
                seen.insert(change.key.clone(), change.current.value.clone());
                last = change.revision;
            }
            assert_eq!(seen.len(), 16);
        }
    };
    let write = async {
        for index in 0..WRITES {
            fixture.put(&format!("pods/{}", index % 16), &index.to_string()).await;
            if index % 32 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    let everything = async { tokio::join!(futures::future::join_all((0..20).map(follow)), write) };
    tokio::time::timeout(Duration::from_secs(60), everything).await.expect("all changes arrive");
}
