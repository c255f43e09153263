//! Several writes as one.

use bytes::Bytes;
use futures::StreamExt;

use super::{Subject, assert_conflict, bytes, delete, put, text};
use crate::contract::{Commit, Error, Event, Expect, Range, Write};

fn write(key: &str, value: &str) -> Write {
    Write::Put { key: bytes(key), value: bytes(value), lease: None }
}

fn erase(key: &str) -> Write {
    Write::Delete { key: bytes(key) }
}

/// Everything expected is checked before anything is written.
pub async fn commits_happen_together_or_not_at_all(subject: &mut dyn Subject) {
    let store = subject.store();
    let a = put(&store, "a", "1").await;
    let b = put(&store, "b", "1").await;
    let commit = |expect: &[(&str, Expect)], writes: &[Write]| {
        let expect = expect.iter().map(|(key, expect)| (bytes(key), *expect)).collect();
        store.commit(Commit { expect, unwritten: Vec::new(), writes: writes.to_vec() })
    };
    let all = [write("a", "2"), erase("b"), write("c", "2")];
    assert_conflict(commit(&[("a", Expect::Revision(a.mod_revision)), ("b", Expect::Absent)], &all).await, Some(&b));
    assert_conflict(commit(&[("x", Expect::Present)], &all).await, None);
    assert_conflict(commit(&[], &[write("a", "2"), erase("x")]).await, None);
    assert!(matches!(commit(&[], &[write("a", "2"), write("a", "3")]).await, Err(Error::Invalid(_))));
    let leased = Write::Put { key: bytes("c"), value: bytes("1"), lease: Some(77) };
    assert!(matches!(commit(&[], &[write("a", "2"), leased]).await, Err(Error::NoLease(77))));
    assert_eq!(store.get(b"a", None).await.expect("get").entry, Some(a.clone()), "nothing happened");
    let empty = commit(&[("a", Expect::Present)], &[]).await.expect("nothing to write");
    assert_eq!(empty.revision, b.mod_revision);

    let unwritten = |revision| Commit {
        unwritten: vec![(bytes("a"), bytes("c"), revision)],
        writes: all.to_vec(),
        ..Commit::default()
    };
    assert_conflict(store.commit(unwritten(a.mod_revision)).await, Some(&b));
    let done = store.commit(unwritten(b.mod_revision)).await.expect("commit");
    assert_eq!(done.previous, [Some(a.clone()), Some(b), None]);
    assert_eq!(done.revision, store.revision());
    let found = store.range(Range::default()).await.expect("range");
    assert!(found.revision == done.revision && found.entries[0].create_revision == a.create_revision);
    let content: Vec<(String, u64)> = found.entries.iter().map(|entry| (text(&entry.key), entry.version)).collect();
    assert_eq!(content, [("a".to_owned(), 2), ("c".to_owned(), 1)]);
    subject.reopen().await;
    let store = subject.store();
    assert_eq!(store.range(Range::default()).await.expect("range").entries, found.entries);
    delete(&store, "a").await;
    assert_eq!(put(&store, "a", "1").await.version, 1, "a key that was deleted begins anew");
}

/// A watch gives the writes of a commit one after the other.
pub async fn commits_are_seen_whole(subject: &mut dyn Subject) {
    let store = subject.store();
    let mut watch = store.watch(Bytes::new(), Bytes::new(), None).await.expect("watch");
    let one = store.commit(Commit { writes: vec![write("b", "1"), write("a", "1")], ..Commit::default() });
    let other = store.commit(Commit { writes: vec![write("d", "1"), write("c", "1")], ..Commit::default() });
    let (one, other) = tokio::join!(one, other);
    let last = one.expect("commit").revision.max(other.expect("commit").revision);
    let mut seen = String::new();
    while seen.len() < 4 {
        match watch.next().await {
            Some(Ok(Event::Change { entry, .. })) => {
                assert!(entry.mod_revision <= last);
                seen.push_str(&text(&entry.key));
            }
            Some(Ok(Event::Progress(_))) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    let sorted = |part: &str| part.contains('a') == part.contains('b');
    assert!(sorted(&seen[..2]) && sorted(&seen[2..]), "{seen}");
}
