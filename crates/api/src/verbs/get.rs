//! `get`

use http::{Response, StatusCode};

use super::Subject;
use crate::body::Body;
use crate::chain::Call;
use crate::custom;
use crate::errors::{ApiError, ApiResult};
use crate::request::options;
use crate::respond;
use crate::server::ApiServer;

/// Reads one object: the stored bytes, with their version.
pub async fn get(server: &ApiServer, call: &Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let form = subject.form(call)?;
    let wanted = options::parse_version(&options::first(&call.query, "resourceVersion").unwrap_or_default())?;
    let store = &server.config.store;
    if let Some(version) = wanted.filter(|version| *version > store.revision()) {
        // Another server may have written it: ask before saying that it is in the future.
        store.check().await.map_err(|error| ApiError::unavailable(error.to_string()))?;
        if version > store.revision() {
            return Err(ApiError::future_version(version, store.revision()));
        }
    }
    let stored = subject.collection.get(&subject.namespace, &subject.name).await?.ok_or_else(|| subject.not_found())?;
    let stored = custom::convert::served_one(server, subject.kind.as_ref(), stored).await?;
    respond::object(StatusCode::OK, subject.view(server, form), &stored)
}
