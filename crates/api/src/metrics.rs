//! `/metrics`.

use http::Response;

use crate::body::Body;
use crate::routes;
use crate::server::ApiServer;

/// Answers `/metrics`.
pub fn answer(_server: &ApiServer) -> Response<Body> {
    routes::no_such_page()
}
