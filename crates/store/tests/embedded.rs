//! The embedded engine keeps the contract, on a real directory.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use skiff_base::{Clock, Random, Timestamp};
use skiff_store::embedded::{EmbeddedStore, OpenError, Options};
use skiff_store::suite::Subject;
use skiff_store::{Error, Expect, Range, Store};
use tempfile::TempDir;

struct EmbeddedSubject {
    directory: TempDir,
    options: Options,
    store: Arc<EmbeddedStore>,
}

impl EmbeddedSubject {
    fn new(snapshot_log_bytes_min: u64) -> Self {
        let directory = TempDir::new().unwrap();
        let options = Options { snapshot_log_bytes_min, ..options() };
        let store = Arc::new(EmbeddedStore::open(directory.path(), options.clone()).unwrap());
        Self { directory, options, store }
    }
}

#[async_trait]
impl Subject for EmbeddedSubject {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = Arc::new(EmbeddedStore::open(self.directory.path(), self.options.clone()).unwrap());
    }
}

fn options() -> Options {
    Options::new(Clock::simulated(Timestamp::from_secs(1_000)), Random::seeded(5))
}

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, options()).unwrap()
}

skiff_store::suite!(contract, || async { EmbeddedSubject::new(16 << 20) });
// So small that snapshots are written all the time.
skiff_store::suite!(contract_with_snapshots, || async { EmbeddedSubject::new(600) });

#[tokio::test]
async fn a_second_process_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    match EmbeddedStore::open(directory.path(), options()) {
        Err(error @ OpenError::Locked { .. }) => {
            assert!(error.to_string().ends_with(&format!("is in use by process {}", std::process::id())), "{error}");
        }
        other => panic!("{other:?}"),
    }
    store.close().await;
    let put = store.put("k".into(), "v".into(), Expect::Any, None).await;
    assert!(matches!(put, Err(Error::Unavailable(_))));
    open(directory.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_stays_bounded_while_one_key_is_rewritten() {
    let mut subject = EmbeddedSubject::new(256 << 10);
    let value = Bytes::from(vec![7; 16 << 10]);
    for round in 0..20 {
        let puts = (0..64).map(|key| subject.store.put(format!("k{key}").into(), value.clone(), Expect::Any, None));
        assert!(join_all(puts).await.iter().all(Result::is_ok));
        let revision = subject.store.revision();
        subject.store.compact(revision).await.unwrap();
        if round % 7 == 6 {
            subject.reopen().await;
        }
    }
    subject.reopen().await;
    let bytes: u64 =
        std::fs::read_dir(subject.directory.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    // 20 MiB were written; 1 MiB is alive, and a snapshot of it and of one round is the unit.
    assert!(bytes < 10 << 20, "{bytes} bytes");
    let all = subject.store.range(Range::default()).await.unwrap();
    assert!(all.entries.len() == 64 && all.entries.iter().all(|entry| entry.value == value));
    assert_eq!(all.revision, 1 + 20 * 64);
}
