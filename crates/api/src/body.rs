//! Bodies in and out: whole bytes or a stream, with or without HTTP around them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::BodyExt;

use crate::errors::{ApiError, ApiResult};

/// A request body may have this many bytes, as upstream allows.
pub const REQUEST_BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// The stream behind a body broke.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(pub String);

/// The body of an answer.
pub enum Body {
    /// All of it; `None` once it has been sent.
    Whole(Option<Bytes>),
    /// Whole watch events, as many as are ready together, or whatever a proxied server sends.
    Stream(BoxStream<'static, Result<Bytes, BodyError>>),
}

impl Body {
    /// Nothing.
    pub const fn empty() -> Self {
        Self::Whole(None)
    }

    /// The chunks as a stream, for callers in the same process.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes, BodyError>> {
        match self {
            Self::Whole(bytes) => Box::pin(futures::stream::iter(bytes.map(Ok))),
            Self::Stream(stream) => stream,
        }
    }

    /// Keeps `held` until all of a stream has been sent.
    #[must_use]
    pub(crate) fn holding(self, held: impl Send + 'static) -> Self {
        match self {
            Self::Whole(bytes) => Self::Whole(bytes),
            Self::Stream(stream) => Self::Stream(Box::pin(stream.map(move |chunk| {
                let _held = &held;
                chunk
            }))),
        }
    }

    /// All chunks together.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn collect(self) -> Result<Bytes, BodyError> {
        match self {
            Self::Whole(bytes) => Ok(bytes.unwrap_or_default()),
            Self::Stream(mut stream) => {
                let mut all = BytesMut::new();
                while let Some(chunk) = stream.next().await {
                    all.extend_from_slice(&chunk?);
                }
                Ok(all.freeze())
            }
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(Some(bytes.into()))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Whole(Some(Bytes::from_static(text.as_bytes())))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(http_body::Frame::data(bytes)))),
            Self::Stream(stream) => {
                stream.as_mut().poll_next(cx).map(|chunk| chunk.map(|chunk| chunk.map(http_body::Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(bytes) => http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => http_body::SizeHint::default(),
        }
    }
}

/// The body of a request, read only once it is known who sends it.
pub enum RequestBody {
    /// From the same process.
    Whole(Bytes),
    /// From the network.
    Incoming(hyper::body::Incoming),
}

impl RequestBody {
    /// Nothing.
    pub const fn empty() -> Self {
        Self::Whole(Bytes::new())
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// 413 when it is larger than [`REQUEST_BODY_BYTES_MAX`], 400 when it breaks off.
    pub async fn read(self) -> ApiResult<Bytes> {
        let mut incoming = match self {
            Self::Whole(bytes) if bytes.len() > REQUEST_BODY_BYTES_MAX => {
                return Err(ApiError::too_large(REQUEST_BODY_BYTES_MAX));
            }
            Self::Whole(bytes) => return Ok(bytes),
            Self::Incoming(incoming) => incoming,
        };
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| ApiError::bad_request(format!("read request body: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if rest.len() + first.as_ref().map_or(0, Bytes::len) + data.len() > REQUEST_BODY_BYTES_MAX {
                return Err(ApiError::too_large(REQUEST_BODY_BYTES_MAX));
            }
            match &first {
                None => first = Some(data),
                Some(head) => {
                    if rest.is_empty() {
                        rest.extend_from_slice(head);
                        first = Some(Bytes::new());
                    }
                    rest.extend_from_slice(&data);
                }
            }
        }
        Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
    }
}
