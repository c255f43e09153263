//! Lists on the wire: objects of a snapshot, encoded as the client reads them.
//!
//! A list that is not short is never whole in memory, neither as objects nor as bytes. What a reader holds, however
//! slow it is, is the snapshot (a reference to what others share) and one chunk; and the snapshot no longer than a
//! request may take.
//!
//! Map: [`objects`] (which objects, in order), [`encode`] (one object after the other in the client's form), [`body`]
//! (chunks, compression, the deadline).

mod body;
mod encode;
pub(crate) mod objects;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use skiff_kinds::Kind;
use skiff_object::{json, yaml};

use self::body::Producer;
use self::encode::Encoder;
pub(crate) use self::objects::Objects;
use crate::audit;
use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::negotiate::{Form, Format};
use crate::respond::{self, ListMeta};
use crate::server::ApiServer;

/// Shorter lists are sent whole, with their length. It is also what an answer must have for it to be compressed.
const WHOLE_BYTES_MAX: usize = respond::GZIP_BYTES_MIN;

/// Answers with a list.
///
/// # Errors
/// When an object cannot be decoded.
pub(crate) async fn respond(
    server: &ApiServer,
    call: &Call,
    (kind, form): (&Arc<dyn Kind>, Form),
    objects: Objects,
    meta: ListMeta,
) -> ApiResult<Response<Body>> {
    let encoder = |form| Encoder::new(server, kind, form, &meta);
    if form.format == Format::Yaml {
        let json = Form { format: Format::Json, pretty: false, ..form };
        let mut whole = BytesMut::new();
        Producer::new(encoder(json), objects).fill(&mut whole, usize::MAX).await?;
        let tree = json::decode_untyped(&whole).map_err(|error| ApiError::internal(error.to_string()))?;
        return Ok(respond::whole(StatusCode::OK, yaml::encode_untyped(&tree), form.content_type()));
    }
    let is_recorded = call.trail.recording.get().is_some_and(|recording| recording.wants_response());
    let whole_max = if is_recorded { audit::OBJECT_BYTES_MAX } else { WHOLE_BYTES_MAX };
    let mut producer = Producer::new(encoder(form), objects.clone());
    let mut first = BytesMut::new();
    let is_whole = producer.fill(&mut first, whole_max).await?;
    if form.format == Format::Protobuf {
        if is_whole {
            let whole = producer.encoder().envelope(&first);
            return Ok(respond::whole(StatusCode::OK, whole, form.content_type()));
        }
        // The envelope says first how long the list is.
        producer = Producer::new(encoder(form), objects.clone());
        first = producer.begin_sized(objects).await?;
    }
    if is_whole {
        return Ok(respond::whole(StatusCode::OK, first.freeze(), form.content_type()));
    }
    let encodings = call.headers.get(header::ACCEPT_ENCODING);
    let gzip = respond::accepts_gzip(encodings);
    let mut response = respond::whole(StatusCode::OK, Bytes::new(), form.content_type());
    if gzip {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    *response.body_mut() = body::stream(server, producer, first, gzip);
    Ok(response)
}
