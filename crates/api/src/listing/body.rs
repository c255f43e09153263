//! A list as chunks that are made when the client has room for them.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use parking_lot::Mutex;
use skiff_object::protobuf::envelope;
use tokio::sync::oneshot;

use super::encode::Encoder;
use super::objects::Objects;
use crate::body::{Body, BodyError};
use crate::errors::{ApiError, ApiResult};
use crate::server::ApiServer;

/// A chunk ends with the object that takes it beyond this: some TLS records, so that what every chunk costs is spread
/// over many objects.
const CHUNK_BYTES: usize = 64 * 1024;

/// Makes the bytes of a list.
pub(super) struct Producer {
    encoder: Encoder,
    objects: Objects,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Items,
    End,
}

impl Producer {
    pub(super) fn new(encoder: Encoder, objects: Objects) -> Self {
        Self { encoder, objects, stage: Stage::Head }
    }

    pub(super) fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Appends up to about a chunk, perhaps nothing; whether there may be more.
    fn more(&mut self, out: &mut BytesMut) -> ApiResult<bool> {
        if self.stage == Stage::Head {
            self.encoder.head(out);
            self.stage = Stage::Items;
        }
        if self.stage == Stage::Items {
            let (encoder, begin) = (&mut self.encoder, out.len());
            let more = self.objects.each(|item| {
                encoder.item(out, item)?;
                let is_full = out.len() - begin >= CHUNK_BYTES;
                Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            if more {
                return Ok(true);
            }
            self.encoder.tail(out);
            self.stage = Stage::End;
        }
        Ok(false)
    }

    /// Appends until there are more than `bytes_max`; whether that is all.
    pub(super) async fn fill(&mut self, out: &mut BytesMut, bytes_max: usize) -> ApiResult<bool> {
        while self.more(out)? {
            if out.len() > bytes_max {
                return Ok(false);
            }
            tokio::task::yield_now().await;
        }
        Ok(true)
    }

    /// Begins a protobuf list whose length `objects`, the same once more, say.
    pub(super) async fn begin_sized(&mut self, mut objects: Objects) -> ApiResult<BytesMut> {
        let mut head = BytesMut::new();
        self.encoder.head(&mut head);
        self.stage = Stage::Items;
        let (mut length, mut more) = (head.len(), true);
        while more {
            // Most lengths are remembered; one that is not costs as much as the object itself.
            let mut encoded = 0;
            more = objects.each(|item| {
                let bytes = self.encoder.protobuf_length(item)?;
                length += bytes;
                encoded += bytes;
                Ok(if encoded < CHUNK_BYTES * 16 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            tokio::task::yield_now().await;
        }
        let mut out = BytesMut::from(&self.encoder.envelope_head(length)[..]);
        out.extend_from_slice(&head);
        Ok(out)
    }
}

/// What a body that is being read holds, and its deadline takes away.
struct Held {
    producer: Option<Producer>,
    is_over: bool,
}

struct Streaming {
    held: Arc<Mutex<Held>>,
    /// What is there already.
    first: BytesMut,
    gzip: Option<GzEncoder<Vec<u8>>>,
    /// Tells the deadline that the body is gone.
    _alive: oneshot::Sender<()>,
}

/// The rest of a list as a body, which must be read within the time of a request.
pub(super) fn stream(server: &ApiServer, producer: Producer, first: BytesMut, gzip: bool) -> Body {
    let held = Arc::new(Mutex::new(Held { producer: Some(producer), is_over: false }));
    let (alive, gone) = oneshot::channel::<()>();
    let (taken, clock, longest) = (Arc::clone(&held), server.clock().clone(), server.config.limits.request_timeout);
    server.config.tasks.spawn("list-deadline", async move {
        tokio::select! {
            biased;
            _ = gone => {}
            () = clock.sleep(longest) => {
                let mut held = taken.lock();
                held.is_over = true;
                held.producer = None;
            }
        }
    });
    let gzip = gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
    let state = Streaming { held, first, gzip, _alive: alive };
    let chunks = futures::stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        match state.next().await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(state))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Body::Stream(chunks.boxed())
}

impl Streaming {
    /// The next chunk; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let mut producer = {
            let mut held = self.held.lock();
            if held.is_over {
                return Err(BodyError("the list was not read within the time of a request".into()));
            }
            let Some(producer) = held.producer.take() else { return Ok(None) };
            producer
        };
        let mut out = std::mem::take(&mut self.first);
        loop {
            let broken = |error: ApiError| BodyError(error.message);
            let more = producer.more(&mut out).map_err(broken)?;
            if !more && producer.encoder.is_protobuf() {
                out.extend_from_slice(envelope::END);
            }
            let chunk = self.compressed(&mut out, !more).map_err(|error| BodyError(error.to_string()))?;
            if !chunk.is_empty() || !more {
                let mut held = self.held.lock();
                held.producer = Some(producer).filter(|_| more && !held.is_over);
                return Ok(Some(chunk).filter(|chunk| !chunk.is_empty()));
            }
            tokio::task::yield_now().await;
        }
    }

    /// What can be sent of `out`; with compression that may be nothing yet.
    fn compressed(&mut self, out: &mut BytesMut, is_last: bool) -> std::io::Result<Bytes> {
        let Some(encoder) = &mut self.gzip else { return Ok(out.split().freeze()) };
        encoder.write_all(out)?;
        out.clear();
        if is_last {
            encoder.try_finish()?;
        }
        Ok(std::mem::take(encoder.get_mut()).into())
    }
}
