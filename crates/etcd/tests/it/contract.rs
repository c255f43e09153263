//! The contract that every engine keeps.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skiff_etcd::{EtcdStore, Keys, Settings};
use skiff_store::suite::Subject;
use skiff_store::{Limits, Store};

use crate::etcd::Cluster;

struct EtcdSubject {
    cluster: Cluster,
    prefix: &'static str,
    age: Duration,
    store: Arc<EtcdStore>,
}

/// Short enough to wait for twice; only the test of ages is faster than its compactions.
const AGE: Duration = Duration::from_secs(4);

impl EtcdSubject {
    fn settings(cluster: &Cluster, prefix: &'static str, age: Duration) -> Settings {
        let limits = Limits { history_age: age, ..Limits::default() };
        Settings { keys: Keys::Plain { prefix: prefix.into() }, limits, ..cluster.settings() }
    }

    async fn new(prefix: &'static str, age: Duration) -> Option<Self> {
        let cluster = Cluster::start(1).await?;
        let store = EtcdStore::open(Self::settings(&cluster, prefix, age)).await.unwrap();
        Some(Self { cluster, prefix, age, store: Arc::new(store) })
    }
}

#[async_trait]
impl Subject for EtcdSubject {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        let settings = Self::settings(&self.cluster, self.prefix, self.age);
        self.store = Arc::new(EtcdStore::open(settings).await.unwrap());
    }

    fn lease_ttl(&self) -> Duration {
        Duration::from_secs(4)
    }

    fn history_age(&self) -> Duration {
        self.age
    }

    fn precision(&self) -> Duration {
        Duration::from_secs(1)
    }
}

// No compaction of its own comes between the revisions that the suite counts.
skiff_store::suite!(without_prefix, real time, || async { EtcdSubject::new("", Limits::default().history_age).await });
skiff_store::suite!(with_prefix, real time, || async { EtcdSubject::new("some/prefix/", Limits::default().history_age).await });

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_compacted_by_age() {
    let Some(mut subject) = EtcdSubject::new("", AGE).await else { return };
    skiff_store::suite::history_is_compacted_by_age(&mut subject).await;
}
