//! Leases and what happens by itself as time passes. The tests run on paused time, except with
//! engines whose time is another process's.

use std::time::Duration;

use bytes::Bytes;

use super::{Subject, bytes, next, put};
use crate::contract::{Error, Expect, Range};

/// Keys go when their lease ends, as deletes that watchers see, and not before.
pub async fn leases_end_on_time(subject: &mut dyn Subject) {
    let store = subject.store();
    let ttl = subject.lease_ttl();
    let lease = store.grant(ttl).await.expect("grant");
    assert_eq!(lease.ttl, ttl);
    store.put(bytes("a"), bytes("1"), Expect::Absent, Some(lease.id)).await.expect("put");
    store.put(bytes("b"), bytes("1"), Expect::Absent, Some(lease.id)).await.expect("put");
    put(&store, "c", "1").await;
    let free = store.put(bytes("b"), bytes("2"), Expect::Present, None).await.expect("a put without lease detaches");
    assert_eq!(free.entry.lease, None);
    let mut watch = store.watch(Bytes::new(), Bytes::new(), None).await.expect("watch");
    let status = store.lease(lease.id).await.expect("lease");
    assert_eq!((status.lease, &status.keys[..]), (lease, &[bytes("a")][..]));
    assert!(status.remaining <= ttl && status.remaining >= ttl / 2, "{status:?}");
    assert_eq!(store.leases().await.expect("leases"), [lease.id]);
    tokio::time::sleep(ttl - subject.precision()).await;
    assert_eq!(store.range(Range::default()).await.expect("range").count, 3);
    assert_eq!(next(&mut watch).await, "delete a @6");
    assert_eq!(store.range(Range::default()).await.expect("range").count, 2);
    assert!(matches!(store.keep_alive(lease.id).await, Err(Error::NoLease(_))));
    assert!(matches!(store.revoke(lease.id).await, Err(Error::NoLease(_))));
    assert!(matches!(store.lease(lease.id).await, Err(Error::NoLease(_))));
    assert_eq!(store.leases().await.expect("leases"), []);
    let again = store.grant(ttl).await.expect("grant");
    assert_ne!(again.id, lease.id, "identities are not used twice");
}

/// A lease that is kept alive outlives its first deadline.
pub async fn kept_leases_live(subject: &mut dyn Subject) {
    let store = subject.store();
    let ttl = subject.lease_ttl();
    let lease = store.grant(ttl).await.expect("grant");
    store.put(bytes("a"), bytes("1"), Expect::Absent, Some(lease.id)).await.expect("put");
    for _ in 0..5 {
        tokio::time::sleep(ttl * 9 / 10).await;
        assert_eq!(store.keep_alive(lease.id).await.expect("keep alive"), lease);
    }
    assert!(store.get(b"a", None).await.expect("get").entry.is_some());
    subject.reopen().await;
    let store = subject.store();
    let mut watch = store.watch(Bytes::new(), Bytes::new(), None).await.expect("watch");
    assert_eq!(store.get(b"a", None).await.expect("get").entry.and_then(|entry| entry.lease), Some(lease.id));
    assert_eq!(next(&mut watch).await, "delete a @3");
}

/// Revoking deletes the keys at once.
pub async fn revoked_leases_take_their_keys(subject: &mut dyn Subject) {
    let store = subject.store();
    let lease = store.grant(Duration::from_secs(3_600)).await.expect("grant");
    for key in ["b", "a"] {
        store.put(bytes(key), bytes("1"), Expect::Absent, Some(lease.id)).await.expect("put");
    }
    subject.reopen().await;
    let store = subject.store();
    let mut watch = store.watch(Bytes::new(), Bytes::new(), Some(3)).await.expect("watch");
    store.revoke(lease.id).await.expect("revoke");
    assert_eq!(next(&mut watch).await, "delete a @4");
    assert_eq!(next(&mut watch).await, "delete b @5");
    assert_eq!(store.revision(), 5);
    subject.reopen().await;
    assert!(matches!(subject.store().keep_alive(lease.id).await, Err(Error::NoLease(_))));
}

/// History is readable for at least its age (five minutes) and gone after twice that.
pub async fn history_is_compacted_by_age(subject: &mut dyn Subject) {
    let store = subject.store();
    let (age, precision) = (subject.history_age(), subject.precision());
    let first = put(&store, "a", "1").await.mod_revision;
    let second = put(&store, "a", "2").await.mod_revision;
    let at = |revision| Range { revision: Some(revision), ..Range::default() };
    tokio::time::sleep(age - precision).await;
    assert_eq!(store.range(at(first)).await.expect("range").count, 1);
    tokio::time::sleep(age + precision * 2).await;
    let gone = store.range(at(first)).await;
    assert!(
        matches!(gone, Err(Error::Compacted { requested, compacted }) if (requested, compacted) == (first, second))
    );
    assert_eq!(store.range(at(second)).await.expect("range").count, 1);
    // Nobody has written since, so nothing is due; a new write starts the time anew.
    let third = put(&store, "a", "3").await.mod_revision;
    tokio::time::sleep(age * 2 + precision).await;
    let gone = store.range(at(second)).await;
    assert!(
        matches!(gone, Err(Error::Compacted { requested, compacted }) if (requested, compacted) == (second, third))
    );
}
