//! The memory engine keeps the contract, and fails when told to.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use skiff_base::{Clock, Timestamp};
use skiff_store::memory::MemoryStore;
use skiff_store::suite::MemorySubject;
use skiff_store::{Error, Event, Expect, Store};

skiff_store::suite!(contract, || async { MemorySubject::new() });

#[tokio::test(start_paused = true)]
async fn injected_faults_fail_delay_and_cut() {
    let clock = Clock::simulated(Timestamp::EPOCH);
    let store = MemoryStore::new(clock.clone());
    let put = || store.put("k".into(), "v".into(), Expect::Any, None);
    store.faults().fail_writes(1);
    assert!(matches!(put().await, Err(Error::Unavailable(_))));
    assert_eq!(put().await.unwrap().entry.mod_revision, 2, "the failed write took no revision");

    store.faults().delay_writes(Duration::from_secs(5));
    let begin = clock.now();
    put().await.unwrap();
    assert_eq!(clock.now().since(begin), Duration::from_secs(5));

    let mut watch = store.watch(Bytes::new(), Bytes::new(), Some(2)).await.unwrap();
    store.faults().cut_watches();
    assert!(matches!(watch.next().await, Some(Ok(Event::Change { .. }))));
    assert!(matches!(watch.next().await, Some(Ok(Event::Progress(3)))));
    assert!(matches!(watch.next().await, Some(Err(Error::Unavailable(_)))));
    assert!(watch.next().await.is_none());
}
