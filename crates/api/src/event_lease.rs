//! Leases for objects that are forgotten after a while, shared by many writes.

use std::time::Duration;

use skiff_store::LeaseId;

use crate::errors::{ApiError, ApiResult};
use crate::server::ApiServer;

/// Objects written within this time of each other share a lease, so that a busy cluster does not
/// make one lease for each event.
pub(crate) const SHARE: Duration = Duration::from_secs(60);

/// A lease that new objects may still join.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    id: LeaseId,
    until: tokio::time::Instant,
}

impl ApiServer {
    /// A lease that ends `ttl` from now or up to [`SHARE`] later.
    pub(crate) async fn event_lease(&self, ttl: Duration) -> ApiResult<Option<LeaseId>> {
        let now = self.clock().instant();
        if let Some(shared) = self.shared_lease.lock().as_ref().filter(|shared| shared.until > now) {
            return Ok(Some(shared.id));
        }
        let lease = self.config.store.grant(ttl + SHARE).await.map_err(ApiError::internal)?;
        *self.shared_lease.lock() = Some(Shared { id: lease.id, until: now + SHARE });
        Ok(Some(lease.id))
    }
}
