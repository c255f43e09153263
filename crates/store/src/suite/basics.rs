//! Reading, conditional writing, the past, compaction.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use super::{Subject, assert_conflict, bytes, delete, put, text};
use crate::contract::{Error, Expect, REVISION_FIRST, Range, Revision, Store};

/// A store that was never written has revision 1 and nothing in it.
pub async fn a_fresh_store_is_empty(subject: &mut dyn Subject) {
    let store = subject.store();
    assert_eq!(store.revision(), REVISION_FIRST);
    let all = store.range(Range::default()).await.expect("range");
    assert_eq!((all.entries.len(), all.count, all.revision), (0, 0, REVISION_FIRST));
    let found = store.get(b"a", None).await.expect("get");
    assert_eq!((found.entry, found.revision), (None, REVISION_FIRST));
    assert_conflict(store.delete(bytes("a"), Expect::Any).await, None);
    assert_eq!(store.revision(), REVISION_FIRST, "a refused write takes no revision");
}

/// Puts and deletes count one global revision, and entries remember theirs.
pub async fn every_write_takes_one_revision(subject: &mut dyn Subject) {
    let store = subject.store();
    let first = put(&store, "a", "1").await;
    assert_eq!((first.create_revision, first.mod_revision), (2, 2));
    let other = put(&store, "b", "1").await;
    assert_eq!((other.create_revision, other.mod_revision), (3, 3));
    let written = store.put(bytes("a"), bytes("2"), Expect::Any, None).await.expect("put");
    assert_eq!((written.entry.create_revision, written.entry.mod_revision), (2, 4));
    assert_eq!(written.previous, Some(first));
    let deleted = store.delete(bytes("a"), Expect::Any).await.expect("delete");
    assert_eq!((deleted.revision, deleted.previous), (5, written.entry));
    let again = put(&store, "a", "3").await;
    assert_eq!((again.create_revision, again.mod_revision), (6, 6));
    assert_eq!(store.revision(), 6);
}

/// Each expectation holds exactly when it says.
pub async fn conditions_decide_writes(subject: &mut dyn Subject) {
    let store = subject.store();
    let write = |value: &'static str, expect| store.put(bytes("k"), bytes(value), expect, None);
    assert_conflict(write("0", Expect::Present).await, None);
    assert_conflict(write("0", Expect::Revision(0)).await, None);
    assert_conflict(write("0", Expect::Revision(1)).await, None);
    let entry = write("1", Expect::Absent).await.expect("absent").entry;
    assert_conflict(write("2", Expect::Absent).await, Some(&entry));
    assert_conflict(write("2", Expect::Revision(entry.mod_revision + 1)).await, Some(&entry));
    let entry = write("2", Expect::Revision(entry.mod_revision)).await.expect("revision").entry;
    let entry = write("3", Expect::Present).await.map(|put| put.entry).unwrap_or(entry);
    assert_conflict(store.delete(bytes("k"), Expect::Absent).await, Some(&entry));
    assert_conflict(store.delete(bytes("k"), Expect::Revision(entry.mod_revision - 1)).await, Some(&entry));
    store.delete(bytes("k"), Expect::Revision(entry.mod_revision)).await.expect("delete");
    assert_conflict(store.delete(bytes("k"), Expect::Present).await, None);
    assert_eq!(store.get(b"k", None).await.expect("get").entry, None);
}

/// Ranges come in bytewise order with the count of the whole range.
pub async fn ranges_are_ordered_counted_and_limited(subject: &mut dyn Subject) {
    let store = subject.store();
    for key in ["b/2", "a", "b/10", "c", "b/1", "b0"] {
        put(&store, key, key).await;
    }
    let check = |range: Range, keys: &'static [&'static str], count: usize| {
        let store = store.clone();
        async move {
            let result = store.range(range).await.expect("range");
            let found: Vec<String> = result.entries.iter().map(|entry| text(&entry.key)).collect();
            assert_eq!((found.as_slice(), result.count), (keys.map_strings().as_slice(), count));
        }
    };
    check(Range::default(), &["a", "b/1", "b/10", "b/2", "b0", "c"], 6).await;
    check(Range::prefix(b"b/"), &["b/1", "b/10", "b/2"], 3).await;
    check(Range { limit: 2, ..Range::prefix(b"b/") }, &["b/1", "b/10"], 3).await;
    check(Range { start: bytes("b/10\0"), ..Range::prefix(b"b/") }, &["b/2"], 1).await;
    check(Range { start: bytes("b0"), ..Range::default() }, &["b0", "c"], 2).await;
    check(Range { start: bytes("c"), end: bytes("a"), ..Range::default() }, &[], 0).await;
    check(Range { start: bytes("c"), end: bytes("c"), revision: Some(2), ..Range::default() }, &[], 0).await;
    check(Range { revision: Some(4), ..Range::default() }, &["a", "b/10", "b/2"], 3).await;
    check(Range { revision: Some(4), limit: 1, ..Range::prefix(b"b") }, &["b/10"], 2).await;
}

trait MapStrings {
    fn map_strings(&self) -> Vec<String>;
}

impl MapStrings for [&str] {
    fn map_strings(&self) -> Vec<String> {
        self.iter().map(ToString::to_string).collect()
    }
}

/// Reads at an old revision see that revision, deletes and re-creations included.
pub async fn the_past_can_be_read(subject: &mut dyn Subject) {
    let store = subject.store();
    put(&store, "a", "1").await; // 2
    put(&store, "b", "1").await; // 3
    put(&store, "a", "2").await; // 4
    delete(&store, "a").await; // 5
    put(&store, "c", "1").await; // 6
    put(&store, "a", "3").await; // 7
    let expected: [(Revision, &str); 7] =
        [(1, ""), (2, "a=1"), (3, "a=1 b=1"), (4, "a=2 b=1"), (5, "b=1"), (6, "b=1 c=1"), (7, "a=3 b=1 c=1")];
    for (revision, content) in expected {
        assert_eq!(content_at(&store, revision).await.expect("range"), content, "at {revision}");
    }
    let found = store.get(b"a", Some(4)).await.expect("get");
    assert_eq!(found.entry.map(|entry| (entry.create_revision, text(&entry.value))), Some((2, "2".into())));
    assert_eq!(store.get(b"a", Some(5)).await.expect("get").entry, None);
    assert!(matches!(store.get(b"a", Some(8)).await, Err(Error::Future { requested: 8, current: 7 })));
}

async fn content_at(store: &Arc<dyn Store>, revision: Revision) -> Result<String, Error> {
    let result = store.range(Range { revision: Some(revision), ..Range::default() }).await?;
    assert_eq!(result.revision, revision);
    let entries = result.entries.iter().map(|entry| format!("{}={}", text(&entry.key), text(&entry.value)));
    Ok(entries.collect::<Vec<_>>().join(" "))
}

/// Compaction forgets superseded versions only, and reading them says so.
pub async fn compaction_forgets_and_says_so(subject: &mut dyn Subject) {
    let store = subject.store();
    put(&store, "a", "1").await; // 2
    put(&store, "a", "2").await; // 3
    put(&store, "b", "1").await; // 4
    delete(&store, "b").await; // 5
    put(&store, "c", "1").await; // 6
    assert!(matches!(store.compact(7).await, Err(Error::Future { requested: 7, current: 6 })));
    store.compact(4).await.expect("compact");
    store.compact(4).await.expect("compact to where it is");
    assert!(matches!(store.compact(3).await, Err(Error::Compacted { requested: 3, compacted: 4 })));
    assert!(matches!(content_at(&store, 3).await, Err(Error::Compacted { requested: 3, compacted: 4 })));
    assert!(matches!(store.get(b"a", Some(3)).await, Err(Error::Compacted { .. })));
    assert!(matches!(
        store.watch(Bytes::new(), Bytes::new(), Some(3)).await.map(|_| ()),
        Err(Error::Compacted { requested: 3, compacted: 4 })
    ));
    assert_eq!(content_at(&store, 4).await.expect("range"), "a=2 b=1");
    assert_eq!(content_at(&store, 5).await.expect("range"), "a=2");
    store.compact(6).await.expect("compact");
    assert_eq!(content_at(&store, 6).await.expect("range"), "a=2 c=1");
    assert_eq!(put(&store, "a", "3").await.mod_revision, 7);
}

/// Of many creations of one key exactly one wins, and no revision is lost or given twice.
pub async fn concurrent_creates_have_one_winner(subject: &mut dyn Subject) {
    let store = subject.store();
    let writes = (0..64).map(|index| {
        let store = store.clone();
        let key = bytes(&format!("k{}", index % 8));
        async move { store.put(key, bytes("v"), Expect::Absent, None).await }
    });
    let results = join_all(writes).await;
    let mut revisions: Vec<Revision> = results.iter().flatten().map(|put| put.entry.mod_revision).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..10).collect::<Vec<_>>());
    assert_eq!(store.revision(), 9);
}

/// Empty and oversized keys and oversized values are the caller's mistake.
pub async fn bad_input_is_refused(subject: &mut dyn Subject) {
    let store = subject.store();
    let put = |key: Bytes, value: Bytes| store.put(key, value, Expect::Any, None);
    assert!(matches!(put(Bytes::new(), bytes("v")).await, Err(Error::Invalid(_))));
    assert!(matches!(put(vec![b'k'; 1 << 20].into(), bytes("v")).await, Err(Error::TooLarge { what: "key", .. })));
    assert!(matches!(put(bytes("k"), vec![0; 64 << 20].into()).await, Err(Error::TooLarge { what: "value", .. })));
    assert!(matches!(store.put(bytes("k"), bytes("v"), Expect::Any, Some(77)).await, Err(Error::NoLease(77))));
    assert_eq!(store.revision(), REVISION_FIRST);
    put(bytes("k"), vec![7; 1 << 20].into()).await.expect("a megabyte is fine");
}
