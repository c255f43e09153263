//! `k8s\0` and `runtime.Unknown`: what carries a message and says which kind it is.

use crate::decode::DecodeError;
use crate::protobuf::wire::{Fields, Layout, Value, malformed, put_bytes, put_message, put_tag, put_varint};

/// What every protobuf body begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// An opened envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The `apiVersion` of the object.
    pub api_version: &'a str,
    /// The `kind` of the object.
    pub kind: &'a str,
    /// The message.
    pub raw: &'a [u8],
    /// How `raw` is compressed; empty for not at all, which is all there is.
    pub content_encoding: &'a str,
    /// What `raw` is; empty for protobuf.
    pub content_type: &'a str,
}

/// Opens a body.
///
/// # Errors
/// When it is no envelope, or its content is encoded in a way we do not know.
pub fn decode(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let Some(body) = bytes.strip_prefix(MAGIC) else {
        return Err(DecodeError::Syntax(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".to_owned(),
        ));
    };
    let mut envelope = Envelope::default();
    let mut fields = Fields::new(body);
    while let Some((number, value)) = fields.next()? {
        let Value::Bytes(value) = value else { continue };
        match number {
            1 => {
                let mut names = Fields::new(value);
                while let Some((number, value)) = names.next()? {
                    match (number, value) {
                        (1, Value::Bytes(value)) => envelope.api_version = text(value)?,
                        (2, Value::Bytes(value)) => envelope.kind = text(value)?,
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = value,
            3 => envelope.content_encoding = text(value)?,
            4 => envelope.content_type = text(value)?,
            _ => {}
        }
    }
    if !envelope.content_encoding.is_empty() {
        return Err(malformed(&format!("unknown content encoding {:?}", envelope.content_encoding)));
    }
    Ok(envelope)
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| malformed("a name that is not UTF-8"))
}

/// Puts a message into an envelope.
pub fn encode(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = begin(api_version, kind, raw.len());
    out.reserve_exact(raw.len() + END.len());
    out.extend_from_slice(raw);
    out.extend_from_slice(END);
    out
}

/// What stands in an envelope before a message of `raw_bytes` bytes; [`END`] stands after it.
pub fn begin(api_version: &str, kind: &str, raw_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAGIC.len() + api_version.len() + kind.len() + 24);
    out.extend_from_slice(MAGIC);
    put_message(&mut out, 1, |out| {
        put_bytes(out, 1, api_version.as_bytes());
        put_bytes(out, 2, kind.as_bytes());
    });
    put_tag(&mut out, 2, Layout::Bytes);
    put_varint(&mut out, raw_bytes as u64);
    out
}

/// Neither content encoding nor content type, as Go writes them.
pub const END: &[u8] = &[3 << 3 | 2, 0, 4 << 3 | 2, 0];

/// One event of a watch: its length in four bytes, then a `WatchEvent` around an object in its
/// envelope.
pub fn watch_frame(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    put_bytes(&mut out, 1, event_type.as_bytes());
    put_message(&mut out, 2, |out| put_bytes(out, 1, object));
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}
