//! The one seam between a component and the API server.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{Request, Response};

/// A response body: one chunk for an object, whole events for a watch.
pub type Body = BoxStream<'static, Result<Bytes, TransportError>>;

/// The request did not reach the server or its answer did not come back whole. Errors that the
/// server answers are ordinary responses with a `Status` body.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {cause}")]
pub struct TransportError {
    /// What was attempted, on what: `GET /api/v1/nodes at 127.0.0.1:6443`.
    pub attempt: String,
    /// Why it failed.
    pub cause: String,
}

/// Sends API requests with an identity of its own: a direct call in the same process, or TLS.
///
/// The URI carries path and query only. The caller sets `Accept` and `Content-Type`.
#[async_trait]
pub trait Endpoint: Send + Sync + 'static {
    /// Sends one request and gives the response as soon as its head is known. Dropping the body
    /// ends a watch.
    ///
    /// # Errors
    /// [`TransportError`] when no response head arrived.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError>;
}
