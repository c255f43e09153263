//! Watching: order, completeness, isolation.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;

use super::{Subject, bytes, delete, next, put, text};
use crate::contract::{Error, Event, EventKind, Expect, Revision, Store, Watch, prefix_end};

async fn watch_all(store: &Arc<dyn Store>, after: Option<Revision>) -> Watch {
    store.watch(Bytes::new(), Bytes::new(), after).await.expect("watch")
}

/// A watch from the past replays it, says that it has caught up, and goes on live.
pub async fn watches_replay_then_follow(subject: &mut dyn Subject) {
    let store = subject.store();
    let first = put(&store, "a", "1").await;
    let second = put(&store, "a", "2").await;
    delete(&store, "a").await;
    let mut watch = watch_all(&store, Some(2)).await;
    match watch.next().await {
        Some(Ok(Event::Change { kind: EventKind::Put, entry, previous })) => {
            assert_eq!((entry, previous), (second.clone(), Some(first)));
        }
        other => panic!("unexpected {other:?}"),
    }
    match watch.next().await {
        Some(Ok(Event::Change { kind: EventKind::Delete, entry, previous })) => {
            assert_eq!((text(&entry.key), entry.value.len(), entry.mod_revision), ("a".into(), 0, 4));
            assert_eq!(previous, Some(second));
        }
        other => panic!("unexpected {other:?}"),
    }
    assert!(matches!(watch.next().await, Some(Ok(Event::Progress(4)))));
    put(&store, "b", "1").await;
    assert_eq!(next(&mut watch).await, "put b=1 @5");
    let mut live = watch_all(&store, None).await;
    put(&store, "c", "1").await;
    assert_eq!(next(&mut live).await, "put c=1 @6");
    let future = store.watch(Bytes::new(), Bytes::new(), Some(7)).await.map(|_| ());
    assert!(matches!(future, Err(Error::Future { requested: 7, current: 6 })));
}

/// A watch on a range sees nothing else.
pub async fn watches_see_their_range_only(subject: &mut dyn Subject) {
    let store = subject.store();
    for key in ["a", "b/1", "c"] {
        put(&store, key, "1").await;
    }
    let mut watch = store.watch(bytes("b/"), prefix_end(b"b/"), Some(1)).await.expect("watch");
    for key in ["b", "b/2", "b0"] {
        put(&store, key, "2").await;
    }
    delete(&store, "b/1").await;
    assert_eq!(next(&mut watch).await, "put b/1=1 @3");
    assert_eq!(next(&mut watch).await, "put b/2=2 @6");
    assert_eq!(next(&mut watch).await, "delete b/1 @8");
}

/// Watchers that start at any moment see every later revision exactly once, in order.
pub async fn watches_see_every_change_once_under_load(subject: &mut dyn Subject) {
    const WRITERS: u64 = 8;
    const WRITES: u64 = 50;
    const LAST: Revision = 1 + WRITERS * WRITES;
    let store = subject.store();
    let write = |writer: u64| {
        let store = store.clone();
        async move {
            for index in 0..WRITES {
                put(&store, &format!("{writer}/{}", index % 7), &index.to_string()).await;
            }
        }
    };
    let follow = |start: u64| {
        let store = store.clone();
        async move {
            let after = loop {
                let revision = store.revision();
                if revision >= start * 20 {
                    break revision;
                }
                tokio::task::yield_now().await;
            };
            let mut watch = watch_all(&store, Some(after)).await;
            let mut last = after;
            while last < LAST {
                match watch.next().await.expect("the watch goes on").expect("no error") {
                    Event::Change { entry, .. } => {
                        assert_eq!(entry.mod_revision, last + 1);
                        last += 1;
                    }
                    Event::Progress(revision) => assert!(revision <= store.revision() && revision >= last),
                }
            }
        }
    };
    tokio::join!(join_all((0..WRITERS).map(write)), join_all((0..16).map(follow)));
    assert_eq!(store.revision(), LAST);
}

/// Who does not read is cut; who reads gets everything meanwhile; the cut one can resume.
pub async fn a_slow_watcher_is_cut_alone(subject: &mut dyn Subject) {
    let writes = crate::index::WATCH_BUFFER_EVENTS as u64 + 10;
    let store = subject.store();
    let mut slow = watch_all(&store, None).await;
    let mut quick = watch_all(&store, None).await;
    let batch = 64;
    for first in (0..writes).step_by(batch) {
        let count = batch.min((writes - first) as usize);
        let puts = (0..count).map(|_| store.put(bytes("k"), bytes("v"), Expect::Any, None));
        assert!(join_all(puts).await.iter().all(Result::is_ok));
        for offset in 0..count as u64 {
            assert_eq!(next(&mut quick).await, format!("put k=v @{}", first + offset + 2));
        }
    }
    let mut last = 1;
    let error = loop {
        match slow.next().await.expect("an error comes before the end") {
            Ok(Event::Change { entry, .. }) => {
                assert_eq!(entry.mod_revision, last + 1);
                last = entry.mod_revision;
            }
            Ok(Event::Progress(_)) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Lagged(revision) if revision == last + 1), "{error:?}");
    assert!(slow.next().await.is_none());
    assert!(slow.frontier().outstanding().await.is_err(), "a cut watch is never complete");
    let mut resumed = watch_all(&store, Some(last)).await;
    assert_eq!(next(&mut resumed).await, format!("put k=v @{}", last + 1));
}

/// The frontier counts what was sent on this watch and names the store's revision.
pub async fn a_frontier_tells_what_to_wait_for(subject: &mut dyn Subject) {
    let store = subject.store();
    let mut watch = store.watch(bytes("a"), bytes("b"), None).await.expect("watch");
    let frontier = watch.frontier();
    let mine = put(&store, "a", "1").await.mod_revision;
    let other = put(&store, "x", "1").await.mod_revision;
    let outstanding = frontier.outstanding().await.expect("outstanding");
    assert!(outstanding.current >= other && outstanding.seen >= mine);
    let mut seen = 0;
    while seen < outstanding.seen {
        match watch.next().await.expect("goes on").expect("no error") {
            Event::Change { entry, .. } => seen = entry.mod_revision,
            Event::Progress(revision) => seen = revision,
        }
    }
}
