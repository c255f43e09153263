//! Watch events on the wire: one JSON line, or one length-prefixed protobuf message.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use skiff_kinds::Kind;
use skiff_object::time::Time;
use skiff_object::{Tree, protobuf};

use crate::errors::ApiResult;
use crate::negotiate::{Form, Format, Projection};
use crate::respond::{self, View};
use crate::server::ApiServer;
use crate::storage::Stored;
use crate::table::{self, Style};

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// An object that was not there, or did not match.
    Added,
    /// An object that was there.
    Modified,
    /// An object that is gone, or no longer matches.
    Deleted,
    /// How far the watch is.
    Bookmark,
    /// The end, with its reason.
    Error,
}

impl EventType {
    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// Encodes the events of one watch.
pub struct Frames {
    kind: Arc<dyn Kind>,
    form: Form,
    /// Whether the next Table still has to bring its columns.
    columns: bool,
    /// Tells the frames of one version (and of one definition) from those of others.
    api_version: Arc<str>,
}

impl Frames {
    /// For a kind, in a form.
    pub fn new(kind: Arc<dyn Kind>, form: Form) -> Self {
        // Frames are kept beyond a change of the definition, which changes what objects look like.
        let version = kind.facts().api_version.as_str();
        let api_version = match kind.custom() {
            Some(custom) => format!("{version} {}", custom.revision()).into(),
            None => version.into(),
        };
        Self { kind, form: Form { pretty: false, ..form }, columns: true, api_version }
    }

    /// How objects are shown now.
    pub fn view(&self, server: &ApiServer) -> Now {
        Now(Time::from_nanos(server.clock().now().as_nanos()))
    }

    /// An event about an object, encoded once for all watchers that want the same.
    pub fn shared(&mut self, event: EventType, stored: &Stored, now: Now, encoded: &Encoded) -> ApiResult<Bytes> {
        if self.columns && matches!(self.form.projection, Projection::Table(_)) {
            // The first table of a watch brings the columns.
            return self.object(event, stored, now);
        }
        let key = Key { revision: stored.revision, event, form: self.form, api_version: Arc::clone(&self.api_version) };
        if let Some(found) = encoded.get(&key) {
            return Ok(found);
        }
        let frame = self.object(event, stored, now)?;
        encoded.put(key, frame.clone());
        Ok(frame)
    }

    /// An event about an object.
    pub fn object(&mut self, event: EventType, stored: &Stored, now: Now) -> ApiResult<Bytes> {
        let view = View { kind: self.kind.as_ref(), form: self.line_form(), now: now.0 };
        let bytes = match self.form.projection {
            Projection::Table(include) => {
                let object = respond::served(self.kind.as_ref(), stored)?;
                let columns = std::mem::take(&mut self.columns);
                let version = stored.revision.to_string();
                let style = Style { include, columns, version: &version, now: now.0 };
                let table = table::of(self.kind.as_ref(), &[object], style);
                respond::encode(&table, None, self.kind.schema(), view.form)
            }
            _ => respond::object_bytes(view, stored)?,
        };
        Ok(self.frame(event, &bytes))
    }

    /// How far the watch is; `initial` says that the initial events are complete.
    pub fn bookmark(&mut self, revision: u64, initial: bool, now: Now) -> Bytes {
        let facts = self.kind.facts();
        let mut object = Tree::map();
        object.set(&["kind"], facts.kind.as_str());
        object.set(&["apiVersion"], facts.api_version.as_str());
        object.set(&["metadata", "resourceVersion"], revision.to_string());
        if initial {
            object.set(&["metadata", "annotations", "k8s.io/initial-events-end"], "true");
        }
        let form = self.line_form();
        let bytes = match form.projection {
            Projection::Object => respond::encode(&object, Some(facts.ty), self.kind.schema(), form),
            Projection::Metadata => respond::encode(
                &respond::metadata_only(&object, "PartialObjectMetadata"),
                respond::type_named("meta.k8s.io/v1", "PartialObjectMetadata"),
                skiff_kinds::schema(),
                form,
            ),
            Projection::Table(include) => {
                let columns = std::mem::take(&mut self.columns);
                let style = Style { include, columns, version: &revision.to_string(), now: now.0 };
                let table = table::of(self.kind.as_ref(), &[object], style);
                respond::encode(&table, None, self.kind.schema(), form)
            }
        };
        self.frame(EventType::Bookmark, &bytes)
    }

    /// The end, with its reason.
    pub fn status(&self, status: &Tree) -> Bytes {
        let form = Form { projection: Projection::Object, ..self.line_form() };
        let bytes = respond::encode(status, respond::type_named("v1", "Status"), skiff_kinds::schema(), form);
        self.frame(EventType::Error, &bytes)
    }

    /// YAML has no stream form: such a watch speaks JSON.
    fn line_form(&self) -> Form {
        match self.form.format {
            Format::Yaml => Form { format: Format::Json, ..self.form },
            _ => self.form,
        }
    }

    fn frame(&self, event: EventType, object: &[u8]) -> Bytes {
        if self.form.format == Format::Protobuf {
            return protobuf::envelope::watch_frame(event.as_str(), object).into();
        }
        let mut out = BytesMut::with_capacity(object.len() + 40);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(event.as_str().as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        out.extend_from_slice(object.trim_ascii_end());
        out.extend_from_slice(b"}\n");
        out.freeze()
    }
}

/// The moment that ages are measured from.
#[derive(Clone, Copy)]
pub struct Now(Time);

/// What a frame is of.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    revision: u64,
    event: EventType,
    form: Form,
    api_version: Arc<str>,
}

/// Frames that are kept for other watchers. They all deliver within moments of each other, so few
/// are enough.
const ENCODED_MAX: usize = 256;

/// Watch events of one collection that were just encoded.
#[derive(Default)]
pub struct Encoded(Mutex<(HashMap<Key, Bytes>, VecDeque<Key>)>);

impl Encoded {
    fn get(&self, key: &Key) -> Option<Bytes> {
        self.0.lock().0.get(key).cloned()
    }

    fn put(&self, key: Key, frame: Bytes) {
        let (frames, order) = &mut *self.0.lock();
        if frames.insert(key.clone(), frame).is_none() {
            order.push_back(key);
        }
        while order.len() > ENCODED_MAX {
            if let Some(oldest) = order.pop_front() {
                frames.remove(&oldest);
            }
        }
    }
}
