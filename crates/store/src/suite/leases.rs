//! Leases and what happens by itself as time passes. The tests run on paused time.

use std::time::Duration;

use bytes::Bytes;

use super::{Subject, bytes, next, put};
use crate::contract::{Error, Expect, Range};

const TTL: Duration = Duration::from_secs(10);

/// Keys go when their lease ends, as deletes that watchers see, and not before.
pub async fn leases_end_on_time(subject: &mut dyn Subject) {
    let store = subject.store();
    let lease = store.grant(TTL).await.expect("grant");
    assert_eq!(lease.ttl, TTL);
    store.put(bytes("a"), bytes("1"), Expect::Absent, Some(lease.id)).await.expect("put");
    store.put(bytes("b"), bytes("1"), Expect::Absent, Some(lease.id)).await.expect("put");
    put(&store, "c", "1").await;
    let free = store.put(bytes("b"), bytes("2"), Expect::Present, None).await.expect("a put without lease detaches");
    assert_eq!(free.entry.lease, None);
    let mut watch = store.watch(Bytes::new(), Bytes::new(), None).await.expect("watch");
    tokio::time::sleep(TTL - Duration::from_millis(10)).await;
    assert_eq!(store.range(Range::default()).await.expect("range").count, 3);
    assert_eq!(next(&mut watch).await, "delete a @6");
    assert_eq!(store.range(Range::default()).await.expect("range").count, 2);
    assert!(matches!(store.keep_alive(lease.id).await, Err(Error::NoLease(_))));
    assert!(matches!(store.revoke(lease.id).await, Err(Error::NoLease(_))));
    let again = store.grant(TTL).await.expect("grant");
    assert_ne!(again.id, lease.id, "identities are not used twice");
}

/// A lease that is kept alive outlives its first deadline.
pub async fn kept_leases_live(subject: &mut dyn Subject) {
    let store = subject.store();
    let lease = store.grant(TTL).await.expect("grant");
    store.put(bytes("a"), bytes("1"), Expect::Absent, Some(lease.id)).await.expect("put");
    for _ in 0..5 {
        tokio::time::sleep(TTL * 9 / 10).await;
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

/// History is readable for at least five minutes and gone after ten.
pub async fn history_is_compacted_by_age(subject: &mut dyn Subject) {
    let store = subject.store();
    put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    let at = |revision| Range { revision: Some(revision), ..Range::default() };
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(store.range(at(2)).await.expect("range").count, 1);
    tokio::time::sleep(Duration::from_secs(310)).await;
    assert!(matches!(store.range(at(2)).await, Err(Error::Compacted { requested: 2, compacted: 3 })));
    assert_eq!(store.range(at(3)).await.expect("range").count, 1);
    // The keeper has gone to sleep; a new write wakes it.
    put(&store, "a", "3").await;
    tokio::time::sleep(Duration::from_secs(610)).await;
    assert!(matches!(store.range(at(3)).await, Err(Error::Compacted { requested: 3, compacted: 4 })));
}
