//! `/openapi/v2` and `/openapi/v3`.

use std::sync::Arc;

use http::Response;

use crate::body::Body;
use crate::chain::Call;
use crate::errors::ApiResult;
use crate::routes;
use crate::server::ApiServer;

/// Answers a path below `/openapi/`.
///
/// # Errors
/// When the client accepts no form that we have.
pub fn answer(_server: &Arc<ApiServer>, _call: &Call, _path: &str) -> ApiResult<Response<Body>> {
    Ok(routes::no_such_page())
}
