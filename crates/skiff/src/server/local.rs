//! The way from a component to the API server of the same process: a call, not a connection.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use skiff_api::{ApiServer, Local, UserInfo};
use skiff_client::{Body, Counted, Endpoint, TransportError};

/// What metrics call the server of this process.
const HOST: &str = "localhost";

/// An [`Endpoint`] with an identity attached.
pub struct LocalEndpoint(Local);

impl LocalEndpoint {
    /// Requests of `user` in `groups`.
    pub fn of(server: &Arc<ApiServer>, user: &str, groups: &[&str]) -> Arc<dyn Endpoint> {
        let endpoint = Arc::new(Self(server.local(UserInfo::new(user, groups))));
        Counted::over(endpoint, HOST, server.metrics())
    }
}

#[async_trait]
impl Endpoint for LocalEndpoint {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let attempt = format!("{} {}", request.method(), request.uri());
        let response = self.0.call(request).await;
        Ok(response.map(|body| -> Body {
            let chunks = body.into_stream();
            Box::pin(chunks.map(move |chunk| {
                chunk.map_err(|error| TransportError { attempt: attempt.clone(), cause: error.to_string() })
            }))
        }))
    }
}
