//! A list in the client's form, one object after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{BufMut, BytesMut};
use skiff_kinds::Kind;
use skiff_object::time::Time;
use skiff_object::{Map, Tree, json, protobuf};

use crate::errors::ApiResult;
use crate::negotiate::{Form, Format, Projection};
use crate::respond::{self, ListMeta};
use crate::server::ApiServer;
use crate::storage::{Item, Stored};
use crate::table;

/// Writes one list.
pub(super) struct Encoder {
    kind: Arc<dyn Kind>,
    form: Form,
    /// Ages are measured from here.
    now: Time,
    meta: ListMeta,
    is_first: bool,
    indent: Option<respond::Indent>,
    /// What is written before it is indented.
    scratch: BytesMut,
}

impl Encoder {
    pub(super) fn new(server: &ApiServer, kind: &Arc<dyn Kind>, form: Form, meta: &ListMeta) -> Self {
        Self {
            kind: Arc::clone(kind),
            form,
            now: Time::from_nanos(server.clock().now().as_nanos()),
            meta: meta.clone(),
            is_first: true,
            indent: form.pretty.then(respond::Indent::default),
            scratch: BytesMut::new(),
        }
    }

    /// Kind and version of the list.
    fn names(&self) -> (&str, &str) {
        let facts = self.kind.facts();
        match self.form.projection {
            Projection::Object => (facts.list_kind.as_str(), facts.api_version.as_str()),
            Projection::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1"),
            Projection::Table(_) => ("Table", "meta.k8s.io/v1"),
        }
    }

    /// What stands before the first object. In protobuf that is the content of the envelope only.
    pub(super) fn head(&mut self, out: &mut BytesMut) {
        let meta = self.meta.to_tree();
        if self.form.format == Format::Protobuf {
            let ty = respond::type_named("v1", "ListMeta");
            let meta = ty.map(|ty| protobuf::encode(&meta, skiff_kinds::schema(), ty)).unwrap_or_default();
            return field(out, 1, &meta);
        }
        let (kind, api_version) = self.names();
        let mut head = Map::new();
        head.insert("kind", kind);
        head.insert("apiVersion", api_version);
        head.insert("metadata", meta);
        let items = match self.form.projection {
            Projection::Table(_) => {
                head.insert("columnDefinitions", table::column_definitions(self.kind.as_ref()));
                &b",\"rows\":["[..]
            }
            _ => b",\"items\":[",
        };
        let mut json = json::encode_untyped(&Tree::Map(head));
        json.pop();
        json.extend_from_slice(items);
        self.put(out, &json);
    }

    /// What stands after the last object; nothing in protobuf, where it is the envelope's.
    pub(super) fn tail(&mut self, out: &mut BytesMut) {
        if self.form.format != Format::Protobuf {
            self.put(out, b"]}");
        }
    }

    /// The next object.
    pub(super) fn item(&mut self, out: &mut BytesMut, item: &Item) -> ApiResult<()> {
        if self.form.format == Format::Protobuf {
            let encoded = self.protobuf(item)?;
            field(out, 2, &encoded);
            return Ok(());
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let written = if self.indent.is_some() { &mut scratch } else { &mut *out };
        if !std::mem::take(&mut self.is_first) {
            written.put_u8(b',');
        }
        self.json(written, &item.stored)?;
        if let Some(indent) = &mut self.indent {
            indent.push(&scratch, out);
            scratch.clear();
        }
        self.scratch = scratch;
        Ok(())
    }

    fn json(&self, out: &mut BytesMut, stored: &Stored) -> ApiResult<()> {
        let kind = self.kind.as_ref();
        let is_custom = kind.custom().is_some();
        match self.form.projection {
            // The objects of a list say what they are only where a client cannot know it.
            Projection::Object if respond::is_stored_form(kind) => stored.write_json(out, false),
            Projection::Object => {
                let mut object = respond::served(kind, stored)?;
                if !is_custom {
                    ["kind", "apiVersion"].iter().for_each(|key| drop(object.ensure_map().remove(key)));
                }
                out.extend_from_slice(&json::encode(&object, kind.schema(), kind.facts().ty));
            }
            Projection::Metadata => {
                let object = respond::metadata_only(&respond::served(kind, stored)?, "PartialObjectMetadata");
                out.extend_from_slice(&respond::encode(
                    &object,
                    respond::type_named("meta.k8s.io/v1", "PartialObjectMetadata"),
                    skiff_kinds::schema(),
                    Form { pretty: false, ..self.form },
                ));
            }
            Projection::Table(include) => {
                let row = table::row(kind, &respond::served(kind, stored)?, include, self.now);
                out.extend_from_slice(&json::encode_untyped(&row));
            }
        }
        Ok(())
    }

    fn protobuf(&self, item: &Item) -> ApiResult<Vec<u8>> {
        let kind = self.kind.as_ref();
        let object = respond::served(kind, &item.stored)?;
        let encoded = match (self.form.projection, respond::type_named("meta.k8s.io/v1", "PartialObjectMetadata")) {
            (Projection::Metadata, Some(ty)) => {
                let object = respond::metadata_only(&object, "PartialObjectMetadata");
                protobuf::encode(&object, skiff_kinds::schema(), ty)
            }
            _ => protobuf::encode(&object, kind.schema(), kind.facts().ty),
        };
        if let Some(known) = self.known_length(item) {
            known.store(u32::try_from(encoded.len()).unwrap_or(0), Ordering::Relaxed);
        }
        Ok(encoded)
    }

    /// Where the length of an object in protobuf is remembered.
    fn known_length<'a>(&self, item: &'a Item) -> Option<&'a std::sync::atomic::AtomicU32> {
        let is_whole = self.form.projection == Projection::Object;
        respond::is_stored_form(self.kind.as_ref()).then(|| &item.lengths[usize::from(!is_whole)])
    }

    /// How many bytes the object will take in a protobuf list.
    pub(super) fn protobuf_length(&self, item: &Item) -> ApiResult<usize> {
        let known = self.known_length(item).map_or(0, |length| length.load(Ordering::Relaxed) as usize);
        let length = if known > 0 { known } else { self.protobuf(item)?.len() };
        Ok(1 + varint_length(length) + length)
    }

    /// The envelope before `length` bytes of content.
    pub(super) fn envelope_head(&self, length: usize) -> Vec<u8> {
        let (kind, api_version) = self.names();
        protobuf::envelope::begin(api_version, kind, length)
    }

    /// Content in its envelope.
    pub(super) fn envelope(&self, content: &[u8]) -> Vec<u8> {
        let (kind, api_version) = self.names();
        protobuf::envelope::encode(api_version, kind, content)
    }

    pub(super) fn is_protobuf(&self) -> bool {
        self.form.format == Format::Protobuf
    }

    fn put(&mut self, out: &mut BytesMut, json: &[u8]) {
        match &mut self.indent {
            Some(indent) => indent.push(json, out),
            None => out.extend_from_slice(json),
        }
    }
}

fn varint_length(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Appends a length-delimited field.
fn field(out: &mut BytesMut, number: u8, value: &[u8]) {
    out.put_u8(number << 3 | 2);
    let mut length = value.len();
    while length >= 0x80 {
        out.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_fields_are_foretold() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut out = BytesMut::new();
            field(&mut out, 2, &vec![0; length]);
            assert_eq!(out.len(), 1 + varint_length(length) + length);
        }
    }
}
