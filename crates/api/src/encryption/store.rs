//! A store whose values are encrypted below and plain above.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use skiff_store::{
    Commit, Committed, Deleted, Durability, Entry, Error, Event, Expect, Found, Lease, LeaseId, LeaseStatus, Put,
    Range, RangeResult, Revision, Store, Watch, Write,
};

use super::Encryption;

/// See the [module](self).
pub(super) struct EncryptedStore {
    inner: Arc<dyn Store>,
    encryption: Arc<Encryption>,
}

impl EncryptedStore {
    pub(super) fn new(inner: Arc<dyn Store>, encryption: Arc<Encryption>) -> Self {
        Self { inner, encryption }
    }

    fn seal(&self, key: &Bytes, value: Bytes) -> Result<Bytes, Error> {
        self.encryption.seal(key, value).map_err(|why| {
            tracing::error!(error = why, key = %String::from_utf8_lossy(key), "failed to encrypt data");
            Error::Unavailable(format!("failed to encrypt data: {why}"))
        })
    }
}

async fn open(encryption: &Encryption, entry: Entry) -> Result<Entry, Error> {
    let value = encryption.open(&entry.key, entry.value).await.map_err(|why| {
        let key = String::from_utf8_lossy(&entry.key).into_owned();
        tracing::error!(error = why, key, "failed to decrypt data");
        Error::Unavailable(format!("unable to transform key {key:?}: {why}"))
    })?;
    Ok(Entry { value: value.data, ..entry })
}

async fn open_some(encryption: &Encryption, entry: Option<Entry>) -> Result<Option<Entry>, Error> {
    match entry {
        // The entry of a delete has no value.
        Some(entry) if !entry.value.is_empty() => open(encryption, entry).await.map(Some),
        other => Ok(other),
    }
}

async fn opened_error(encryption: &Encryption, error: Error) -> Error {
    match error {
        Error::Conflict { current } => match open_some(encryption, current).await {
            Ok(current) => Error::Conflict { current },
            Err(error) => error,
        },
        other => other,
    }
}

#[async_trait]
impl Store for EncryptedStore {
    async fn put(&self, key: Bytes, value: Bytes, expect: Expect, lease: Option<LeaseId>) -> Result<Put, Error> {
        let sealed = self.seal(&key, value.clone())?;
        match self.inner.put(key, sealed, expect, lease).await {
            Ok(put) => Ok(Put {
                entry: Entry { value, ..put.entry },
                // Nobody above looks at it but to tell that there was one: unreadable is no reason to fail
                // a write that happened.
                previous: match put.previous {
                    Some(previous) => Some(open(&self.encryption, previous.clone()).await.unwrap_or(previous)),
                    None => None,
                },
            }),
            Err(error) => Err(opened_error(&self.encryption, error).await),
        }
    }

    async fn delete(&self, key: Bytes, expect: Expect) -> Result<Deleted, Error> {
        match self.inner.delete(key, expect).await {
            Ok(deleted) => {
                let previous = deleted.previous;
                let previous = open(&self.encryption, previous.clone()).await.unwrap_or(previous);
                Ok(Deleted { previous, ..deleted })
            }
            Err(error) => Err(opened_error(&self.encryption, error).await),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        let writes = commit
            .writes
            .into_iter()
            .map(|write| match write {
                Write::Put { key, value, lease } => {
                    let value = self.seal(&key, value)?;
                    Ok(Write::Put { key, value, lease })
                }
                delete @ Write::Delete { .. } => Ok(delete),
            })
            .collect::<Result<_, Error>>()?;
        match self.inner.commit(Commit { writes, ..commit }).await {
            Ok(committed) => {
                let mut previous = Vec::with_capacity(committed.previous.len());
                for entry in committed.previous {
                    previous.push(open_some(&self.encryption, entry.clone()).await.unwrap_or(entry));
                }
                Ok(Committed { previous, ..committed })
            }
            Err(error) => Err(opened_error(&self.encryption, error).await),
        }
    }

    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Found, Error> {
        let found = self.inner.get(key, revision).await?;
        Ok(Found { entry: open_some(&self.encryption, found.entry).await?, ..found })
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        let mut result = self.inner.range(range).await?;
        let mut entries = Vec::with_capacity(result.entries.len());
        for entry in result.entries {
            entries.push(open(&self.encryption, entry).await?);
        }
        result.entries = entries;
        Ok(result)
    }

    async fn watch(&self, start: Bytes, end: Bytes, after: Option<Revision>) -> Result<Watch, Error> {
        let inner = self.inner.watch(start, end, after).await?;
        let frontier = inner.frontier();
        let encryption = Arc::clone(&self.encryption);
        let events = inner.then(move |event| {
            let encryption = Arc::clone(&encryption);
            async move {
                match event? {
                    Event::Change { kind, entry, previous } => Ok(Event::Change {
                        kind,
                        entry: if entry.value.is_empty() { entry } else { open(&encryption, entry).await? },
                        previous: open_some(&encryption, previous).await?,
                    }),
                    progress @ Event::Progress(_) => Ok(progress),
                }
            }
        });
        Ok(Watch::new(events.boxed(), frontier))
    }

    async fn is_stale(&self, key: &[u8]) -> Result<bool, Error> {
        if self.encryption.providers(key).is_none() {
            return Ok(false);
        }
        let found = self.inner.get(key, None).await?;
        match found.entry {
            Some(entry) => Ok(self.encryption.is_stale(key, entry.value).await),
            None => Ok(false),
        }
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.compact(revision).await
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease, Error> {
        self.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Lease, Error> {
        self.inner.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.inner.revoke(lease).await
    }

    async fn lease(&self, lease: LeaseId) -> Result<LeaseStatus, Error> {
        self.inner.lease(lease).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        self.inner.leases().await
    }

    async fn check(&self) -> Result<(), Error> {
        self.inner.check().await
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn compacted(&self) -> Revision {
        self.inner.compacted()
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }
}
