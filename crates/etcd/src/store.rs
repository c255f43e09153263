//! The engine: the store's contract as calls to an etcd cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use skiff_base::{Clock, Shutdown, Tasks};
use skiff_store::{
    Commit, Committed, Deleted, Durability, Entry, Error, Expect, Found, Lease, LeaseId, LeaseStatus, Limits, Put,
    REVISION_FIRST, Range, RangeResult, Revision, Store, Watch, Write,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::connect::{Again, Members, Tls};
use crate::convert::{self, COMPACTED, FUTURE, NO_LEASE, revision_of, signed, unsigned};
use crate::keys::Keys;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::kv_client::KvClient;
use crate::proto::etcdserverpb::lease_client::LeaseClient;
use crate::proto::mvccpb::KeyValue;
use crate::{compact, watch};

/// A range is read in pages of so many entries, all at one revision: neither side builds an
/// answer of hundreds of megabytes.
const PAGE_ENTRIES: i64 = 1_000;

/// The largest answer that is taken; a page that is larger is asked for again in halves.
const RECEIVE_BYTES_MAX: usize = 64 << 20;

/// The largest request; above etcd's own default of 1.5 MiB, which then decides.
const SEND_BYTES_MAX: usize = 16 << 20;

/// How often a list of the present begins anew because its revision was compacted under it.
const RESTARTS_MAX: usize = 3;

/// A key that nothing ever writes, for asking how the cluster is.
const PROBE: &[u8] = b"\0skiff";

/// How to reach an etcd cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its members (`--etcd-servers`): `https://`, `http://` or `unix:` addresses.
    pub endpoints: Vec<String>,
    /// Needed for `https://`.
    pub tls: Option<Tls>,
    /// Where keys lie.
    pub keys: Keys,
    /// What is accepted, and how long history is readable.
    pub limits: Limits,
    /// Time.
    pub clock: Clock,
}

impl Settings {
    /// The defaults.
    pub fn new(endpoints: Vec<String>, keys: Keys, clock: Clock) -> Self {
        Self { endpoints, tls: None, keys, limits: Limits::default(), clock }
    }
}

/// A store on an etcd cluster. See the [crate](crate).
#[derive(Debug)]
pub struct EtcdStore {
    inner: Arc<Inner>,
    tasks: Tasks,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) members: Members,
    pub(crate) keys: Keys,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    /// The last revision that any answer named.
    revision: AtomicU64,
    /// Where history begins, as far as was heard.
    compacted: AtomicU64,
}

impl EtcdStore {
    /// Connects, and takes part in compacting the history from now on.
    ///
    /// # Errors
    /// The settings are wrong, or no member answers.
    pub async fn open(settings: Settings) -> Result<Self, Error> {
        let Settings { endpoints, tls, keys, limits, clock } = settings;
        let members = Members::new(&endpoints, tls.as_ref(), clock.clone())?;
        let revision = AtomicU64::new(REVISION_FIRST);
        let inner = Arc::new(Inner { members, keys, limits, clock, revision, compacted: AtomicU64::new(0) });
        inner.current().await?;
        let tasks = Tasks::new("etcd", Shutdown::new());
        tasks.spawn("compaction", compact::run(Arc::clone(&inner)));
        Ok(Self { inner, tasks })
    }

    /// Ends every watch and the part in compactions.
    pub async fn close(&self) {
        self.tasks.stop().await;
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.tasks.shutdown().signal();
    }
}

pub(crate) fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(RECEIVE_BYTES_MAX).max_encoding_message_size(SEND_BYTES_MAX)
}

impl Inner {
    /// Remembers a revision that an answer named.
    pub(crate) fn saw(&self, revision: Revision) -> Revision {
        self.revision.fetch_max(revision, Ordering::AcqRel);
        revision
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision.load(Ordering::Acquire)
    }

    /// Remembers that history begins at `revision` or later.
    pub(crate) fn forgot(&self, revision: Revision) {
        self.compacted.fetch_max(revision, Ordering::AcqRel);
    }

    /// The cluster's revision now, agreed on by a majority.
    pub(crate) async fn current(&self) -> Result<Revision, Error> {
        let request = pb::RangeRequest { key: PROBE.into(), count_only: true, ..pb::RangeRequest::default() };
        let response = self.range(&request).await.map_err(|status| convert::error("read the revision", &status))?;
        Ok(revision_of(response.header.as_ref()))
    }

    pub(crate) async fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let make = |channel| {
            let request = request.clone();
            async move { Ok(kv(channel).range(request).await?.into_inner()) }
        };
        let response = self.members.call(Again::Always, make).await?;
        self.saw(revision_of(response.header.as_ref()));
        Ok(response)
    }

    /// A transaction, and how often it was tried.
    pub(crate) async fn txn(&self, again: Again, request: &pb::TxnRequest) -> Result<(pb::TxnResponse, usize), Status> {
        let tries = AtomicUsize::new(0);
        let make = |channel| {
            tries.fetch_add(1, Ordering::Relaxed);
            let request = request.clone();
            async move { Ok(kv(channel).txn(request).await?.into_inner()) }
        };
        let response = self.members.call(again, make).await?;
        self.saw(revision_of(response.header.as_ref()));
        Ok((response, tries.load(Ordering::Relaxed)))
    }

    fn etcd_key(&self, key: &[u8]) -> Result<Bytes, Error> {
        self.keys
            .to_etcd(key)
            .ok_or_else(|| Error::Invalid(format!("the key {} has no place in etcd", key.escape_ascii())))
    }

    /// The entry of an answer for `key`.
    fn first(&self, key: &Bytes, kvs: Vec<KeyValue>) -> Option<Entry> {
        kvs.into_iter().next().map(|kv| convert::entry(key.clone(), kv))
    }

    /// What is at `key` now, or was at `revision`.
    async fn read(&self, key: &Bytes, revision: Option<Revision>) -> Result<Found, Error> {
        let etcd_key = self.etcd_key(key)?;
        if revision == Some(0) {
            return Err(self.compacted(0).await);
        }
        let request =
            pb::RangeRequest { key: etcd_key, revision: revision.map_or(0, signed), ..pb::RangeRequest::default() };
        match self.range(&request).await {
            Ok(response) => {
                let revision = revision_of(response.header.as_ref());
                Ok(Found { entry: self.first(key, response.kvs), revision })
            }
            Err(status) => Err(self.read_error("read", revision.unwrap_or_default(), &status).await),
        }
    }

    /// The contract's error for a failed read at `requested`.
    async fn read_error(&self, what: &str, requested: Revision, status: &Status) -> Error {
        match status.message() {
            COMPACTED => self.compacted(requested).await,
            FUTURE => match self.current().await {
                Ok(current) => Error::Future { requested, current },
                Err(error) => error,
            },
            _ => convert::error(what, status),
        }
    }

    /// That `requested` is compacted; etcd says to where only on a watch.
    pub(crate) async fn compacted(&self, requested: Revision) -> Error {
        match watch::compacted(self).await {
            Ok(compacted) => {
                self.forgot(compacted);
                Error::Compacted { requested, compacted }
            }
            Err(error) => error,
        }
    }

    /// A conflict with what is at `key` now.
    async fn conflict(&self, key: &Bytes) -> Error {
        match self.read(key, None).await {
            Ok(found) => Error::Conflict { current: found.entry },
            Err(error) => error,
        }
    }

    /// A range of stored keys as one revision has it, in pages.
    async fn pages(&self, range: &Range) -> Result<RangeResult, Status> {
        let (mut key, end) = self
            .keys
            .range_to_etcd(&range.start, &range.end)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let wanted = if range.limit == 0 { usize::MAX } else { range.limit };
        let mut page = PAGE_ENTRIES;
        let mut result = RangeResult { entries: Vec::new(), count: 0, revision: range.revision.unwrap_or(0) };
        let mut is_first = true;
        loop {
            let missing = i64::try_from(wanted - result.entries.len()).unwrap_or(i64::MAX);
            let request = pb::RangeRequest {
                // The empty key stands for all keys in etcd.
                key: if key.is_empty() { Bytes::from_static(b"\0") } else { key.clone() },
                range_end: if end.is_empty() { Bytes::from_static(b"\0") } else { end.clone() },
                limit: page.min(missing),
                revision: signed(result.revision),
                ..pb::RangeRequest::default()
            };
            let response = match self.range(&request).await {
                Err(status) if status.code() == Code::OutOfRange && is_too_large(&status) && page > 1 => {
                    page /= 2;
                    continue;
                }
                response => response?,
            };
            if is_first {
                result.count = usize::try_from(response.count).unwrap_or(0);
                if result.revision == 0 {
                    result.revision = revision_of(response.header.as_ref());
                }
                is_first = false;
            }
            if let Some(last) = response.kvs.last() {
                key = [&last.key[..], b"\0"].concat().into();
            }
            for kv in response.kvs {
                // What others keep below the prefix in their own form is not ours.
                match self.keys.to_stored(&kv.key) {
                    Some(stored) => result.entries.push(convert::entry(stored, kv)),
                    None => result.count = result.count.saturating_sub(1),
                }
            }
            if !response.more || result.entries.len() >= wanted {
                return Ok(result);
            }
        }
    }

    fn leases(channel: Channel) -> LeaseClient<Channel> {
        LeaseClient::new(channel).max_decoding_message_size(RECEIVE_BYTES_MAX)
    }

    /// What etcd knows about a lease.
    async fn lease_status(&self, lease: LeaseId) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        let request = pb::LeaseTimeToLiveRequest { id: signed(lease), keys: true };
        let make = |channel| async move { Ok(Self::leases(channel).lease_time_to_live(request).await?.into_inner()) };
        let found = self.members.call(Again::Always, make).await.map_err(|status| lease_error(lease, &status))?;
        if found.ttl < 0 { Err(Error::NoLease(lease)) } else { Ok(found) }
    }
}

/// tonic's refusal of an answer over the limit.
fn is_too_large(status: &Status) -> bool {
    status.message().contains("message length too large")
}

fn lease_error(lease: LeaseId, status: &Status) -> Error {
    if status.message() == NO_LEASE { Error::NoLease(lease) } else { convert::error("lease", status) }
}

/// The write of a transaction with one.
fn only(response: pb::TxnResponse) -> Option<pb::response_op::Response> {
    response.responses.into_iter().next()?.response
}

#[async_trait]
impl Store for EtcdStore {
    async fn put(&self, key: Bytes, value: Bytes, expect: Expect, lease: Option<LeaseId>) -> Result<Put, Error> {
        let inner = &self.inner;
        inner.limits.check(&key, &value)?;
        let etcd_key = inner.etcd_key(&key)?;
        if expect == Expect::Revision(0) {
            return Err(inner.conflict(&key).await);
        }
        let request = pb::TxnRequest {
            compare: convert::compare(&etcd_key, expect).into_iter().collect(),
            success: vec![convert::put(&etcd_key, value.clone(), lease)],
            failure: vec![convert::get(&etcd_key)],
        };
        // Such a write can be sent twice: what it expects holds once only.
        let is_once = matches!(expect, Expect::Absent | Expect::Revision(_));
        let again = if is_once { Again::Always } else { Again::IfUnsent };
        let (response, tries) = inner.txn(again, &request).await.map_err(|status| {
            lease
                .filter(|_| status.message() == NO_LEASE)
                .map_or_else(|| convert::error("put", &status), Error::NoLease)
        })?;
        let revision = revision_of(response.header.as_ref());
        let (succeeded, answer) = (response.succeeded, only(response));
        if let (true, Some(pb::response_op::Response::ResponsePut(put))) = (succeeded, &answer) {
            let previous = put.prev_kv.clone().map(|kv| convert::entry(key.clone(), kv));
            let entry = Entry {
                key,
                value,
                create_revision: previous.as_ref().map_or(revision, |previous| previous.create_revision),
                mod_revision: revision,
                version: previous.as_ref().map_or(0, |previous| previous.version) + 1,
                lease,
            };
            return Ok(Put { entry, previous });
        }
        let Some(pb::response_op::Response::ResponseRange(range)) = answer else { return Err(garbled("put")) };
        let current = inner.first(&key, range.kvs);
        match current {
            Some(current) if tries > 1 && is_ours(&current, &value, expect, lease) => {
                // An earlier try of this very write has happened.
                let previous = match expect {
                    Expect::Revision(before) => inner.read(&key, Some(before)).await?.entry,
                    _ => None,
                };
                Ok(Put { entry: current, previous })
            }
            current => Err(Error::Conflict { current }),
        }
    }

    async fn delete(&self, key: Bytes, expect: Expect) -> Result<Deleted, Error> {
        let inner = &self.inner;
        let etcd_key = inner.etcd_key(&key)?;
        if matches!(expect, Expect::Revision(0) | Expect::Absent) {
            return Err(inner.conflict(&key).await);
        }
        let request = pb::TxnRequest {
            compare: convert::compare(&etcd_key, expect).into_iter().collect(),
            success: vec![convert::delete(&etcd_key)],
            failure: vec![convert::get(&etcd_key)],
        };
        let (response, _) =
            inner.txn(Again::IfUnsent, &request).await.map_err(|status| convert::error("delete", &status))?;
        let revision = revision_of(response.header.as_ref());
        match only(response) {
            Some(pb::response_op::Response::ResponseDeleteRange(deleted)) => {
                let previous = inner.first(&key, deleted.prev_kvs).ok_or(Error::Conflict { current: None })?;
                Ok(Deleted { revision, previous })
            }
            Some(pb::response_op::Response::ResponseRange(range)) => {
                Err(Error::Conflict { current: inner.first(&key, range.kvs) })
            }
            _ => Err(garbled("delete")),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        commit.check(&self.inner.limits)?;
        crate::commit::run(&self.inner, commit).await
    }

    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Found, Error> {
        self.inner.read(&Bytes::copy_from_slice(key), revision).await
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        if range.revision == Some(0) {
            return Err(self.inner.compacted(0).await);
        }
        let mut restarts = 0;
        loop {
            match self.inner.pages(&range).await {
                Ok(result) => return Ok(result),
                Err(status) if status.message() == COMPACTED && range.revision.is_none() && restarts < RESTARTS_MAX => {
                    restarts += 1;
                }
                Err(status) => {
                    return Err(self.inner.read_error("range", range.revision.unwrap_or_default(), &status).await);
                }
            }
        }
    }

    async fn watch(&self, start: Bytes, end: Bytes, after: Option<Revision>) -> Result<Watch, Error> {
        watch::open(&self.inner, &self.tasks, start, end, after).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        if revision < REVISION_FIRST {
            return Err(self.inner.compacted(revision).await);
        }
        match compact::compact(&self.inner, revision).await {
            Ok(()) => Ok(()),
            Err(status) => match self.inner.read_error("compact", revision, &status).await {
                Error::Compacted { requested, compacted } if requested == compacted => Ok(()),
                error => Err(error),
            },
        }
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease, Error> {
        let seconds = i64::try_from(ttl.as_nanos().div_ceil(1_000_000_000)).unwrap_or(i64::MAX);
        let request = pb::LeaseGrantRequest { ttl: seconds, id: 0 };
        let make = |channel| async move { Ok(Inner::leases(channel).lease_grant(request).await?.into_inner()) };
        let granted = self
            .inner
            .members
            .call(Again::Always, make)
            .await
            .map_err(|status| convert::error("grant a lease", &status))?;
        Ok(Lease { id: unsigned(granted.id), ttl: Duration::from_secs(unsigned(granted.ttl)) })
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Lease, Error> {
        let make = |channel| async move {
            let request = pb::LeaseKeepAliveRequest { id: signed(lease) };
            // The stream stays open until the answer is here.
            let requests = futures::stream::iter([request]).chain(futures::stream::pending());
            let mut answers = Inner::leases(channel).lease_keep_alive(requests).await?.into_inner();
            answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended without an answer"))
        };
        let kept = self.inner.members.call(Again::Always, make).await.map_err(|status| lease_error(lease, &status))?;
        if kept.ttl <= 0 {
            return Err(Error::NoLease(lease));
        }
        Ok(Lease { id: lease, ttl: Duration::from_secs(unsigned(kept.ttl)) })
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        // etcd would give all keys one revision together.
        let mut keys = self.inner.lease_status(lease).await?.keys;
        keys.sort_unstable();
        for key in keys {
            let compare = pb::Compare {
                result: pb::compare::CompareResult::Equal as i32,
                target: pb::compare::CompareTarget::Lease as i32,
                key: key.clone(),
                range_end: Bytes::new(),
                target_union: Some(pb::compare::TargetUnion::Lease(signed(lease))),
            };
            let request =
                pb::TxnRequest { compare: vec![compare], success: vec![convert::delete(&key)], failure: Vec::new() };
            self.inner.txn(Again::Always, &request).await.map_err(|status| lease_error(lease, &status))?;
        }
        let request = pb::LeaseRevokeRequest { id: signed(lease) };
        let make = |channel| async move { Ok(Inner::leases(channel).lease_revoke(request).await?.into_inner()) };
        let revoked =
            self.inner.members.call(Again::Always, make).await.map_err(|status| lease_error(lease, &status))?;
        self.inner.saw(revision_of(revoked.header.as_ref()));
        Ok(())
    }

    async fn lease(&self, lease: LeaseId) -> Result<LeaseStatus, Error> {
        let found = self.inner.lease_status(lease).await?;
        let mut keys: Vec<Bytes> = found.keys.iter().filter_map(|key| self.inner.keys.to_stored(key)).collect();
        keys.sort_unstable();
        Ok(LeaseStatus {
            lease: Lease { id: lease, ttl: Duration::from_secs(unsigned(found.granted_ttl)) },
            remaining: Duration::from_secs(unsigned(found.ttl)),
            keys,
        })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        let make = |channel| async move {
            Ok(Inner::leases(channel).lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner())
        };
        let found = self.inner.members.call(Again::Always, make).await;
        let found = found.map_err(|status| convert::error("list leases", &status))?;
        let mut ids: Vec<LeaseId> = found.leases.iter().map(|lease| unsigned(lease.id)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    async fn check(&self) -> Result<(), Error> {
        self.inner.current().await.map(|_| ())
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn compacted(&self) -> Revision {
        self.inner.compacted.load(Ordering::Acquire)
    }

    fn durability(&self) -> Durability {
        Durability::Quorum
    }
}

/// Whether `current` is what a write with this expectation leaves behind.
fn is_ours(current: &Entry, value: &Bytes, expect: Expect, lease: Option<LeaseId>) -> bool {
    current.value == *value
        && current.lease == lease
        && match expect {
            Expect::Absent => current.version == 1,
            Expect::Revision(before) => current.mod_revision > before && current.create_revision <= before,
            Expect::Any | Expect::Present => false,
        }
}

pub(crate) fn garbled(what: &str) -> Error {
    Error::Unavailable(format!("etcd: {what}: the answer is not one to this request"))
}

/// The commit's writes as etcd's operations; also used to say what a refused one met.
pub(crate) fn write_operation(inner: &Inner, write: &Write) -> Result<pb::RequestOp, Error> {
    let key = inner.etcd_key(write.key())?;
    Ok(match write {
        Write::Put { value, lease, .. } => convert::put(&key, value.clone(), *lease),
        Write::Delete { .. } => convert::delete(&key),
    })
}

pub(crate) fn etcd_key(inner: &Inner, key: &Bytes) -> Result<Bytes, Error> {
    inner.etcd_key(key)
}

pub(crate) fn first(inner: &Inner, key: &Bytes, kvs: Vec<KeyValue>) -> Option<Entry> {
    inner.first(key, kvs)
}
