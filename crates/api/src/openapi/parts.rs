//! Documents in parts that are compressed one by one and put together without being touched again.
//!
//! A deflate stream may be cut where its compressor was flushed with nothing carried over, and the checksum of two
//! texts is made from theirs. So a document of a thousand definitions is made anew, when one of them changes, by
//! compressing one part and copying the others.

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use sha2::{Digest, Sha512};

use crate::errors::{ApiError, ApiResult};

/// The header of a gzip file without name and time (RFC 1952), of an unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// A last, empty block (RFC 1951).
const DEFLATE_END: [u8; 2] = [3, 0];

/// A part of a document.
pub(super) struct Part {
    digest: [u8; 64],
    checksum: crc32fast::Hasher,
    length: usize,
    deflated: Bytes,
}

/// A whole document.
pub(super) struct Joined {
    /// Upper case hexadecimal, as upstream's: the same for the same parts only.
    pub(super) etag: String,
    /// The document as a gzip file.
    pub(super) compressed: Bytes,
    /// How long the document is.
    pub(super) length: usize,
}

impl Part {
    pub(super) fn new(bytes: &[u8]) -> ApiResult<Self> {
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(bytes);
        let mut deflated = Vec::with_capacity(bytes.len() / 8 + 64);
        let mut compressor = Compress::new(Compression::fast(), false);
        let failure =
            |error: &dyn std::fmt::Display| ApiError::internal(format!("compress an OpenAPI document: {error}"));
        loop {
            let rest = &bytes[usize::try_from(compressor.total_in()).unwrap_or(0).min(bytes.len())..];
            compressor.compress_vec(rest, &mut deflated, FlushCompress::Full).map_err(|error| failure(&error))?;
            // Room that is left says that the flush is complete.
            if compressor.total_in() == bytes.len() as u64 && deflated.len() < deflated.capacity() {
                break;
            }
            deflated.reserve(deflated.len() + 64);
        }
        deflated.shrink_to_fit();
        let digest = Sha512::digest(bytes).into();
        Ok(Self { digest, checksum, length: bytes.len(), deflated: deflated.into() })
    }
}

/// Puts parts together.
pub(super) fn join<'a>(parts: impl Iterator<Item = &'a Part> + Clone) -> Joined {
    let size: usize = parts.clone().map(|part| part.deflated.len()).sum();
    let mut out = BytesMut::with_capacity(size + 32);
    out.extend_from_slice(&GZIP_HEADER);
    let (mut checksum, mut length, mut digest) = (crc32fast::Hasher::new(), 0, Sha512::new());
    for part in parts {
        out.extend_from_slice(&part.deflated);
        checksum.combine(&part.checksum);
        length += part.length;
        digest.update(part.digest);
    }
    out.extend_from_slice(&DEFLATE_END);
    out.put_u32_le(checksum.finalize());
    out.put_u32_le(length as u32);
    Joined { etag: super::hex(&digest.finalize()), compressed: out.freeze(), length }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn parts_make_one_file() {
        let texts: Vec<Vec<u8>> =
            (0..40_usize).map(|number| format!("{number},").repeat(number * number * 7).into_bytes()).collect();
        let parts: Vec<Part> = texts.iter().map(|text| Part::new(text).unwrap()).collect();
        let joined = join(parts.iter());
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&joined.compressed[..]).read_to_end(&mut read).unwrap();
        assert_eq!(read, texts.concat());
        assert_eq!(joined.length, read.len());
        assert_eq!(joined.etag, join(parts.iter()).etag);
        assert_ne!(joined.etag, join(parts.iter().rev()).etag);
    }
}
