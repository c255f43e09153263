//! Leases.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use skiff_store::Error;
use tonic::{Request, Response, Status, Streaming};

use super::{Served, not_here, status};
use crate::convert::{signed, unsigned};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::lease_server::Lease;

/// etcd's bound of a lease's life, in seconds.
const TTL_MAX: i64 = 9_000_000_000;

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Lease for Served {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        if request.id != 0 {
            return Err(not_here("leases whose ID the client chooses"));
        }
        if request.ttl > TTL_MAX {
            return Err(Status::out_of_range("etcdserver: too large lease TTL"));
        }
        let ttl = Duration::from_secs(unsigned(request.ttl).max(1));
        let lease = self.store().grant(ttl).await.map_err(status)?;
        Ok(Response::new(pb::LeaseGrantResponse {
            header: self.header(self.store().revision()),
            id: signed(lease.id),
            ttl: seconds(lease.ttl),
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        self.store().revoke(unsigned(request.into_inner().id)).await.map_err(status)?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: self.header(self.store().revision()) }))
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let store = self.facade.store.clone();
        let head = self.header(0).unwrap_or_default();
        let answers = request.into_inner().then(move |request| {
            let store = store.clone();
            async move {
                let id = request?.id;
                let ttl = match store.keep_alive(unsigned(id)).await {
                    Ok(lease) => seconds(lease.ttl),
                    // As etcd says that it has ended.
                    Err(Error::NoLease(_)) => 0,
                    Err(error) => return Err(status(error)),
                };
                let header = Some(pb::ResponseHeader { revision: signed(store.revision()), ..head });
                Ok(pb::LeaseKeepAliveResponse { header, id, ttl })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let header = self.header(self.store().revision());
        let answer = match self.store().lease(unsigned(request.id)).await {
            Ok(found) => {
                let keys = found.keys.iter().filter(|_| request.keys);
                pb::LeaseTimeToLiveResponse {
                    header,
                    id: request.id,
                    ttl: seconds(found.remaining),
                    granted_ttl: seconds(found.lease.ttl),
                    keys: keys.filter_map(|key| self.facade.keys.to_etcd(key)).collect(),
                }
            }
            Err(Error::NoLease(_)) => {
                pb::LeaseTimeToLiveResponse { header, id: request.id, ttl: -1, ..Default::default() }
            }
            Err(error) => return Err(status(error)),
        };
        Ok(Response::new(answer))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let leases = self.store().leases().await.map_err(status)?;
        let leases = leases.into_iter().map(|id| pb::LeaseStatus { id: signed(id) }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.header(self.store().revision()), leases }))
    }
}
