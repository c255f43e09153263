//! Watch streams: lines of events, whatever chunks they arrive in.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Body, Error, Result, TransportError, View};

/// The longest event accepted. Objects are bounded at 3 MiB by the server; the rest is room for
/// encodings. A longer line means the peer speaks something else.
pub const WATCH_LINE_BYTES_MAX: usize = 16 << 20;

/// The annotation that marks the end of the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One event with its object still as JSON.
#[derive(Clone, Debug)]
pub enum RawEvent {
    /// The object exists (created, or part of the initial state, or newly selected).
    Added(Bytes),
    /// The object changed.
    Modified(Bytes),
    /// The object is gone (or no longer selected); its last state.
    Deleted(Bytes),
    /// Everything up to `resource_version` has been sent.
    Bookmark {
        /// The version to resume from.
        resource_version: String,
        /// Whether the initial state is complete with this bookmark.
        initial_events_end: bool,
    },
    /// The watch ended with an error.
    Error(Box<Status>),
}

/// One event of a typed watch.
#[derive(Clone, Debug)]
pub enum WatchEvent<K> {
    /// The object exists (created, or part of the initial state, or newly selected).
    Added(K),
    /// The object changed.
    Modified(K),
    /// The object is gone (or no longer selected); its last state.
    Deleted(K),
    /// Everything up to `resource_version` has been sent.
    Bookmark {
        /// The version to resume from.
        resource_version: String,
        /// Whether the initial state is complete with this bookmark.
        initial_events_end: bool,
    },
}

/// Splits a body into lines of bounded length.
pub(crate) struct Lines {
    body: Body,
    attempt: String,
    buffer: BytesMut,
    searched: usize,
}

impl Lines {
    /// The lines of `body`; `attempt` names the request in errors.
    pub(crate) fn new(body: Body, attempt: String) -> Self {
        Self { body, attempt, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line without its end; `None` at the end of the body. An unfinished last line is an
    /// error: the stream was cut.
    ///
    /// # Errors
    /// [`TransportError`] when the stream breaks or a line is too long.
    pub(crate) async fn next(&mut self) -> std::result::Result<Option<Bytes>, TransportError> {
        loop {
            if let Some(line) = self.take_line() {
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.buffer.len() > WATCH_LINE_BYTES_MAX {
                return Err(self.error("a line is longer than 16 MiB"));
            }
            match self.body.next().await {
                Some(Ok(chunk)) => {
                    // In-process watches mostly send one whole event per chunk: hand it on uncopied.
                    if self.buffer.is_empty() && ends_one_line(&chunk) {
                        return Ok(Some(chunk.slice(..chunk.len() - 1)));
                    }
                    self.buffer.extend_from_slice(&chunk);
                }
                Some(Err(error)) => return Err(error),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(self.error("the stream ended within a line")),
            }
        }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        let at = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        match at {
            Some(at) => {
                let mut line = self.buffer.split_to(self.searched + at + 1);
                line.truncate(line.len() - 1);
                self.searched = 0;
                Some(line.freeze())
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }

    fn error(&self, cause: &str) -> TransportError {
        TransportError { attempt: self.attempt.clone(), cause: cause.to_owned() }
    }
}

fn ends_one_line(chunk: &Bytes) -> bool {
    chunk.len() > 1 && chunk.iter().position(|byte| *byte == b'\n') == Some(chunk.len() - 1)
}

/// A watch whose objects are still JSON.
pub struct RawWatch {
    lines: Lines,
}

impl RawWatch {
    pub(crate) fn new(body: Body, attempt: String) -> Self {
        Self { lines: Lines::new(body, attempt) }
    }

    /// The next event; `None` when the server ended the watch.
    ///
    /// # Errors
    /// [`Error::Transport`] when the stream breaks, [`Error::Codec`] when a line is no event.
    pub async fn next(&mut self) -> Result<Option<RawEvent>> {
        let Some(line) = self.lines.next().await? else { return Ok(None) };
        decode_event(&line).map(Some).map_err(|cause| Error::Codec { attempt: self.lines.attempt.clone(), cause })
    }
}

/// A watch of one kind.
pub struct Watch<K> {
    raw: RawWatch,
    kind: std::marker::PhantomData<fn() -> K>,
}

impl<K: View> Watch<K> {
    pub(crate) fn new(raw: RawWatch) -> Self {
        Self { raw, kind: std::marker::PhantomData }
    }

    /// The same watch with its objects as JSON.
    pub fn into_raw(self) -> RawWatch {
        self.raw
    }

    /// The next event; `None` when the server ended the watch.
    ///
    /// # Errors
    /// As [`RawWatch::next`]; an error event becomes [`Error::Api`].
    pub async fn next(&mut self) -> Result<Option<WatchEvent<K>>> {
        let Some(event) = self.raw.next().await? else { return Ok(None) };
        let attempt = &self.raw.lines.attempt;
        let decode = |bytes: &Bytes| K::decode(bytes).map_err(|cause| Error::Codec { attempt: attempt.clone(), cause });
        Ok(Some(match event {
            RawEvent::Added(object) => WatchEvent::Added(decode(&object)?),
            RawEvent::Modified(object) => WatchEvent::Modified(decode(&object)?),
            RawEvent::Deleted(object) => WatchEvent::Deleted(decode(&object)?),
            RawEvent::Bookmark { resource_version, initial_events_end } => {
                WatchEvent::Bookmark { resource_version, initial_events_end }
            }
            RawEvent::Error(status) => return Err(Error::Api { attempt: attempt.clone(), status }),
        }))
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    event: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

fn decode_event(line: &Bytes) -> std::result::Result<RawEvent, String> {
    let parsed: Line<'_> = serde_json::from_slice(line).map_err(|error| format!("no watch event: {error}"))?;
    let object = || line.slice_ref(parsed.object.get().as_bytes());
    Ok(match parsed.event {
        "ADDED" => RawEvent::Added(object()),
        "MODIFIED" => RawEvent::Modified(object()),
        "DELETED" => RawEvent::Deleted(object()),
        "BOOKMARK" => {
            let bookmark: crate::PartialObject =
                serde_json::from_str(parsed.object.get()).map_err(|error| format!("no bookmark: {error}"))?;
            let annotations = bookmark.metadata.annotations.unwrap_or_default();
            RawEvent::Bookmark {
                resource_version: bookmark.metadata.resource_version.unwrap_or_default(),
                initial_events_end: annotations.get(INITIAL_EVENTS_END).is_some_and(|value| value == "true"),
            }
        }
        "ERROR" => RawEvent::Error(Box::new(
            serde_json::from_str(parsed.object.get()).map_err(|error| format!("no status: {error}"))?,
        )),
        other => return Err(format!("unknown watch event type {other:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&'static str]) -> Lines {
        let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        Lines::new(futures::stream::iter(chunks).boxed(), "GET /x".into())
    }

    #[tokio::test]
    async fn lines_come_whole_from_any_chunks() {
        for chunks in [&["a\nbc\nd\n"][..], &["a\n", "bc\n", "d\n"], &["a", "\nb", "c\nd", "\n"]] {
            let mut lines = lines(chunks);
            for expected in ["a", "bc", "d"] {
                assert_eq!(lines.next().await.unwrap().unwrap(), expected);
            }
            assert!(lines.next().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn a_cut_line_is_an_error() {
        let mut lines = lines(&["a\nb"]);
        lines.next().await.unwrap();
        assert!(lines.next().await.is_err());
    }

    #[test]
    fn the_end_of_the_initial_events_is_recognised() {
        let line = Bytes::from_static(
            br#"{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}},"spec":{"containers":null}}}"#,
        );
        let event = decode_event(&line).unwrap();
        assert!(
            matches!(event, RawEvent::Bookmark { resource_version, initial_events_end: true } if resource_version == "7")
        );
    }
}
