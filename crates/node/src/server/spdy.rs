//! SPDY/3.1, the server's side: what older `kubectl` speaks for exec and attach, and every one
//! for port-forward (there within WebSocket messages).
//!
//! Flow control windows are ignored in both directions, as the other implementations that
//! Kubernetes clients use do; back-pressure is the connection's own.

use std::collections::BTreeMap;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Streams of one connection at a time: four per exec, two per forwarded connection.
const STREAMS_MAX: usize = 2_048;
/// Chunks a slow stream may hold before its connection waits for it.
const STREAM_BUFFER: usize = 64;
/// The largest frame taken and the largest header block after decompression.
const FRAME_BYTES_MAX: usize = 1 << 20;
const HEADER_BYTES_MAX: usize = 64 << 10;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const STATUS_REFUSED_STREAM: u32 = 3;

/// A stream the client opened.
pub(super) struct Stream {
    pub(super) headers: Vec<(String, String)>,
    /// What the client sends; ends when it closes its side.
    pub(super) input: mpsc::Receiver<Bytes>,
    pub(super) output: Output,
}

impl Stream {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.as_str())
    }
}

/// The sending side of a stream.
#[derive(Clone)]
pub(super) struct Output {
    id: u32,
    frames: mpsc::Sender<Frame>,
}

impl Output {
    /// Sends `data`; false when the connection is gone.
    pub(super) async fn send(&self, data: Bytes) -> bool {
        self.frames.send(Frame::Data { id: self.id, data, end: false }).await.is_ok()
    }

    /// Closes this side.
    pub(super) async fn end(&self) -> bool {
        self.frames.send(Frame::Data { id: self.id, data: Bytes::new(), end: true }).await.is_ok()
    }
}

enum Frame {
    Data { id: u32, data: Bytes, end: bool },
    Reply { id: u32 },
    Reset { id: u32, status: u32 },
    Pong { id: u32 },
}

/// Serves one connection over `io`: streams arrive at `accepted`. Ends when the client leaves or
/// nobody accepts streams any more.
pub(super) async fn serve<S>(io: S, accepted: mpsc::Sender<Stream>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (reader, writer) = tokio::io::split(io);
    let (frames, outgoing) = mpsc::channel(STREAM_BUFFER);
    let mut connection = Connection { reader, inflate: Inflate::default(), streams: BTreeMap::new(), frames, accepted };
    tokio::select! {
        biased;
        result = write_frames(writer, outgoing) => result,
        result = connection.read_frames() => result,
    }
}

struct Connection<R> {
    reader: R,
    inflate: Inflate,
    streams: BTreeMap<u32, mpsc::Sender<Bytes>>,
    frames: mpsc::Sender<Frame>,
    accepted: mpsc::Sender<Stream>,
}

impl<R: AsyncRead + Unpin> Connection<R> {
    async fn read_frames(&mut self) -> io::Result<()> {
        loop {
            let mut head = [0; 8];
            match self.reader.read_exact(&mut head).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
            let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let flags = head[4];
            let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
            if length > FRAME_BYTES_MAX {
                return Err(invalid("a frame is longer than 1 MiB"));
            }
            let mut body = vec![0; length];
            self.reader.read_exact(&mut body).await?;
            let body = Bytes::from(body);
            if word & 0x8000_0000 == 0 {
                self.data(word, flags, body).await;
            } else if !self.control((word & 0xffff) as u16, word >> 16 & 0x7fff, flags, body).await? {
                return Ok(());
            }
        }
    }

    async fn data(&mut self, id: u32, flags: u8, body: Bytes) {
        if let Some(stream) = self.streams.get(&id)
            && !body.is_empty()
            && stream.send(body).await.is_err()
        {
            // Nobody reads this stream any more; what still comes is dropped.
            self.streams.remove(&id);
        }
        if flags & FLAG_FIN != 0 {
            self.streams.remove(&id);
        }
    }

    /// Takes a control frame; false at the connection's end.
    async fn control(&mut self, kind: u16, version: u32, flags: u8, mut body: Bytes) -> io::Result<bool> {
        if version != u32::from(VERSION) {
            return Err(invalid("a frame of another SPDY version"));
        }
        let need = match kind {
            SYN_STREAM => 10,
            RST_STREAM => 8,
            PING => 4,
            _ => 0,
        };
        if body.len() < need {
            return Err(invalid("a control frame is too short"));
        }
        match kind {
            SYN_STREAM => {
                let id = body.get_u32() & 0x7fff_ffff;
                body.advance(6);
                let headers = self.inflate.headers(&body)?;
                return self.open(id, flags, headers).await;
            }
            RST_STREAM => drop(self.streams.remove(&(body.get_u32() & 0x7fff_ffff))),
            PING => {
                let id = body.get_u32();
                // Even numbers would be answers to pings of ours.
                if id % 2 == 1 {
                    return Ok(self.frames.send(Frame::Pong { id }).await.is_ok());
                }
            }
            // Header blocks share one compression state, so even unused ones are read.
            8 if body.len() >= 4 => drop(self.inflate.headers(&body[4..])?),
            GOAWAY => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    async fn open(&mut self, id: u32, flags: u8, headers: Vec<(String, String)>) -> io::Result<bool> {
        if self.streams.len() >= STREAMS_MAX || id.is_multiple_of(2) || self.streams.contains_key(&id) {
            return Ok(self.frames.send(Frame::Reset { id, status: STATUS_REFUSED_STREAM }).await.is_ok());
        }
        let (sender, input) = mpsc::channel(STREAM_BUFFER);
        if flags & FLAG_FIN == 0 {
            self.streams.insert(id, sender);
        }
        if self.frames.send(Frame::Reply { id }).await.is_err() {
            return Ok(false);
        }
        let output = Output { id, frames: self.frames.clone() };
        Ok(self.accepted.send(Stream { headers, input, output }).await.is_ok())
    }
}

async fn write_frames<W: AsyncWrite + Unpin>(mut writer: W, mut frames: mpsc::Receiver<Frame>) -> io::Result<()> {
    let mut deflate = Deflate::new()?;
    while let Some(frame) = frames.recv().await {
        let mut out = BytesMut::new();
        match frame {
            Frame::Data { id, data, end } => {
                out.put_u32(id & 0x7fff_ffff);
                put_length(&mut out, if end { FLAG_FIN } else { 0 }, data.len());
                out.extend_from_slice(&data);
            }
            Frame::Reply { id } => {
                let block = deflate.no_headers()?;
                put_control(&mut out, SYN_REPLY, 4 + block.len());
                out.put_u32(id);
                out.extend_from_slice(&block);
            }
            Frame::Reset { id, status } => {
                put_control(&mut out, RST_STREAM, 8);
                out.put_u32(id);
                out.put_u32(status);
            }
            Frame::Pong { id } => {
                put_control(&mut out, PING, 4);
                out.put_u32(id);
            }
        }
        writer.write_all(&out).await?;
        writer.flush().await?;
    }
    writer.shutdown().await
}

fn put_control(out: &mut BytesMut, kind: u16, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(out, 0, length);
}

fn put_length(out: &mut BytesMut, flags: u8, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX) & 0x00ff_ffff;
    out.put_u32(u32::from(flags) << 24 | length);
}

fn invalid(cause: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY: {cause}"))
}

/// The dictionary both sides' compression starts with (SPDY/3, section 2.6.10.1).
fn dictionary() -> Vec<u8> {
    const NAMES: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
        accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
        content-length content-location content-md5 content-range content-type date etag expect expires from host \
        if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards \
        pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding \
        upgrade user-agent vary via warning www-authenticate method get status";
    const MORE: [&str; 8] = ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"];
    const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
        203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
        403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
        Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
        chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
        text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut out = Vec::with_capacity(1_423);
    for word in NAMES.split_whitespace().chain(MORE) {
        out.put_u32(u32::try_from(word.len()).unwrap_or(0));
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(TAIL.as_bytes());
    out
}

struct Inflate(Decompress);

impl Default for Inflate {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflate {
    fn headers(&mut self, block: &[u8]) -> io::Result<Vec<(String, String)>> {
        let mut text = self.inflate(block)?;
        let number = |text: &mut Bytes| -> io::Result<usize> {
            if text.len() < 4 {
                return Err(invalid("a header block is cut"));
            }
            Ok(text.get_u32() as usize)
        };
        let count = number(&mut text)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let mut string = || -> io::Result<String> {
                let length = number(&mut text)?;
                if length > text.len() {
                    return Err(invalid("a header block is cut"));
                }
                String::from_utf8(text.split_to(length).to_vec()).map_err(|_| invalid("a header is not UTF-8"))
            };
            headers.push((string()?, string()?));
        }
        Ok(headers)
    }

    fn inflate(&mut self, block: &[u8]) -> io::Result<Bytes> {
        let mut out = Vec::with_capacity(1_024);
        let mut rest = block;
        loop {
            if out.len() == out.capacity() {
                if out.len() >= HEADER_BYTES_MAX {
                    return Err(invalid("a header block is too long"));
                }
                out.reserve(out.len().max(1_024));
            }
            let (before_in, before_out) = (self.0.total_in(), out.len());
            match self.0.decompress_vec(rest, &mut out, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    let taken = usize::try_from(self.0.total_in() - before_in).unwrap_or(0);
                    rest = &rest[taken.min(rest.len())..];
                    self.0.set_dictionary(&dictionary()).map_err(|_| invalid("another compression dictionary"))?;
                    continue;
                }
                Err(error) => return Err(invalid(&error.to_string())),
            }
            let taken = usize::try_from(self.0.total_in() - before_in).unwrap_or(0);
            rest = &rest[taken.min(rest.len())..];
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(Bytes::from(out));
            }
            if taken == 0 && out.len() == before_out && out.len() < out.capacity() {
                return Err(invalid("a header block does not decompress"));
            }
        }
    }
}

struct Deflate(Compress);

impl Deflate {
    fn new() -> io::Result<Self> {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&dictionary()).map_err(|error| invalid(&error.to_string()))?;
        Ok(Self(compress))
    }

    /// The block of an answer, which carries no headers.
    fn no_headers(&mut self) -> io::Result<Vec<u8>> {
        self.block(&[0; 4])
    }

    fn block(&mut self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(plain.len() + 64);
        self.0.compress_vec(plain, &mut out, FlushCompress::Sync).map_err(|error| invalid(&error.to_string()))?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_standard_one() {
        let text = dictionary();
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in &text {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!((text.len(), b << 16 | a), (1_423, 0xe3c6_a7c2));
    }

    fn syn(deflate: &mut Deflate, id: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(text.len() as u32);
            plain.extend_from_slice(text.as_bytes());
        }
        let block = deflate.block(&plain).unwrap();
        let mut out = BytesMut::new();
        put_control(&mut out, SYN_STREAM, 10 + block.len());
        out.put_u32(id);
        out.put_u32(0);
        out.put_u16(0);
        out.extend_from_slice(&block);
        out.to_vec()
    }

    #[tokio::test]
    async fn streams_open_carry_data_both_ways_and_close() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (accepted, mut streams) = mpsc::channel(4);
        let serving = serve(server, accepted);
        let driving = async move {
            let mut deflate = Deflate::new().unwrap();
            client.write_all(&syn(&mut deflate, 1, &[("streamtype", "error")])).await.unwrap();
            client.write_all(&syn(&mut deflate, 3, &[("streamtype", "data"), ("port", "80")])).await.unwrap();
            client.write_all(&[0, 0, 0, 3, FLAG_FIN, 0, 0, 2, b'h', b'i']).await.unwrap();
            assert_eq!(streams.recv().await.unwrap().header("streamType"), "error");
            let mut data = streams.recv().await.unwrap();
            assert_eq!(data.header("Port"), "80");
            assert_eq!(data.input.recv().await.unwrap(), "hi");
            assert!(data.input.recv().await.is_none());
            assert!(data.output.send("yo".into()).await);
            assert!(data.output.end().await);
            let mut seen = Vec::new();
            while !seen.ends_with(&[0, 0, 0, 3, FLAG_FIN, 0, 0, 0]) {
                let mut byte = [0];
                client.read_exact(&mut byte).await.unwrap();
                seen.push(byte[0]);
            }
            assert!(seen.windows(10).any(|window| window == [0, 0, 0, 3, 0, 0, 0, 2, b'y', b'o']));
            drop(client);
        };
        let (result, ()) = tokio::join!(serving, driving);
        result.unwrap();
    }

    #[tokio::test]
    async fn nonsense_ends_the_connection_with_an_error() {
        for bytes in [&[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0][..], &[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], &[0xff; 16]] {
            let (mut client, server) = tokio::io::duplex(1 << 10);
            let (accepted, _streams) = mpsc::channel(4);
            client.write_all(bytes).await.unwrap();
            drop(client);
            assert!(serve(server, accepted).await.is_err());
        }
    }
}
