//! Connections of clients that name a path as their authority.
//!
//! gRPC clients in Go, `etcdctl` among them, send the socket's path as `:authority`, which is no
//! authority at all (RFC 3986), and the HTTP/2 crate refuses such requests. Nothing here looks at
//! the authority, so each one is replaced by a letter while the bytes come in. The other side's
//! compression table (RFC 7541) then holds a longer value than ours, which is safe: entries are
//! counted from the newest, and we only ever drop later than the client expects.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

/// What every client sends first.
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// `:authority` in the static table.
const AUTHORITY: usize = 1;
/// A string of one letter, not compressed.
const REPLACEMENT: [u8; 2] = [1, b's'];

/// Frames are at most this large unless we ask for larger ones, which we do not.
const FRAME_BYTES_MAX: usize = 1 << 14;

/// A connection with every authority replaced.
pub(super) struct Tolerant {
    stream: UnixStream,
    state: State,
    /// Bytes that were looked at.
    ready: Vec<u8>,
    /// How many of them were handed on.
    taken: usize,
    /// Bytes of a frame that is not complete.
    partial: Vec<u8>,
}

#[derive(Clone, Copy)]
enum State {
    /// So many bytes are passed on as they are.
    Pass(usize),
    FrameHeader,
    /// The payload of a HEADERS frame of this length.
    Headers(usize),
}

impl Tolerant {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, state: State::Pass(PREFACE_BYTES), ready: Vec::new(), taken: 0, partial: Vec::new() }
    }

    /// Looks at bytes that came in.
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                State::Pass(count) => {
                    let (head, tail) = bytes.split_at(count.min(bytes.len()));
                    self.ready.extend_from_slice(head);
                    bytes = tail;
                    let left = count - head.len();
                    self.state = if left == 0 { State::FrameHeader } else { State::Pass(left) };
                }
                State::FrameHeader => {
                    bytes = self.fill(bytes, FRAME_HEADER_BYTES);
                    if self.partial.len() == FRAME_HEADER_BYTES {
                        self.begin_frame();
                    }
                }
                State::Headers(length) => {
                    bytes = self.fill(bytes, FRAME_HEADER_BYTES + length);
                    if self.partial.len() == FRAME_HEADER_BYTES + length {
                        let frame = std::mem::take(&mut self.partial);
                        self.ready.extend(replaced(&frame).unwrap_or(frame));
                        self.state = State::FrameHeader;
                    }
                }
            }
        }
    }

    fn fill<'a>(&mut self, bytes: &'a [u8], until: usize) -> &'a [u8] {
        let (head, tail) = bytes.split_at((until - self.partial.len()).min(bytes.len()));
        self.partial.extend_from_slice(head);
        tail
    }

    fn begin_frame(&mut self) {
        let length =
            usize::from(self.partial[0]) << 16 | usize::from(self.partial[1]) << 8 | usize::from(self.partial[2]);
        // A frame that is too large is refused behind us.
        if self.partial[3] == HEADERS && length > 0 && length <= FRAME_BYTES_MAX {
            self.state = State::Headers(length);
            return;
        }
        self.ready.append(&mut self.partial);
        self.state = if length == 0 { State::FrameHeader } else { State::Pass(length) };
    }
}

/// The frame with its authority replaced; `None` if it has none of its own, or makes no sense.
fn replaced(frame: &[u8]) -> Option<Vec<u8>> {
    let flags = frame[4];
    let mut at = FRAME_HEADER_BYTES;
    at += usize::from(flags & PADDED != 0);
    at += if flags & PRIORITY != 0 { 5 } else { 0 };
    let padding = if flags & PADDED != 0 { usize::from(*frame.get(FRAME_HEADER_BYTES)?) } else { 0 };
    let fields = Fields { bytes: frame.get(..frame.len().checked_sub(padding)?)?, at };
    let (begin, end) = fields.authority()?;
    let mut out = [&frame[..begin], &REPLACEMENT, &frame[end..]].concat();
    let length = out.len() - FRAME_HEADER_BYTES;
    out[..3].copy_from_slice(&[(length >> 16) as u8, (length >> 8) as u8, length as u8]);
    Some(out)
}

/// The header fields of a frame, as far as they have to be understood.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    /// Where the value of a literal `:authority` is, its length included.
    fn authority(mut self) -> Option<(usize, usize)> {
        while let Some(first) = self.bytes.get(self.at).copied() {
            let prefix = match first {
                // Indexed, and a new size of the table.
                0x80.. => {
                    self.number(7)?;
                    continue;
                }
                0x20..0x40 => {
                    self.number(5)?;
                    continue;
                }
                0x40.. => 6,
                _ => 4,
            };
            let name = self.number(prefix)?;
            if name == 0 {
                self.string()?;
            }
            let begin = self.at;
            self.string()?;
            if name == AUTHORITY {
                return Some((begin, self.at));
            }
        }
        None
    }

    fn string(&mut self) -> Option<()> {
        let length = self.number(7)?;
        self.at = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        Some(())
    }

    /// A number that begins in the low `bits` of the next byte.
    fn number(&mut self, bits: u32) -> Option<usize> {
        let mask = (1_usize << bits) - 1;
        let mut number = usize::from(self.next()?) & mask;
        if number < mask {
            return Some(number);
        }
        for shift in [0, 7, 14] {
            let byte = self.next()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }
}

impl AsyncRead for Tolerant {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.taken == this.ready.len() {
            this.ready.clear();
            this.taken = 0;
            let mut space = [0; 8 << 10];
            let mut buffer = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.take(buffer.filled());
        }
        let bytes = &this.ready[this.taken..];
        let count = bytes.len().min(out.remaining());
        out.put_slice(&bytes[..count]);
        this.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tolerant {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Tolerant {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    /// Feeds the bytes in pieces of every size.
    fn check(frames: &[Vec<u8>], expected: &[Vec<u8>]) {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let sent = [&preface[..], &frames.concat()].concat();
        let expected = [&preface[..], &expected.concat()].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _guard = runtime.enter();
        for size in 1..sent.len() {
            let mut tolerant = Tolerant::new(UnixStream::pair().unwrap().0);
            sent.chunks(size).for_each(|chunk| tolerant.take(chunk));
            assert_eq!(tolerant.ready, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_path_is_replaced_and_everything_else_stays() {
        let path = b"\x83\x86\x41\x05/sock\x40\x01a\x01b";
        let letter = b"\x83\x86\x41\x01s\x40\x01a\x01b";
        let settings = frame(4, 0, &[]);
        let data = frame(0, 0, b"\x41\x05/sock");
        check(
            &[settings.clone(), frame(1, 4, path), data.clone(), frame(1, 4, b"\x83\xbe")],
            &[settings, frame(1, 4, letter), data, frame(1, 4, b"\x83\xbe")],
        );
        // Padding and priority come before the fields, padding also behind them.
        let dressed = |fields: &[u8]| frame(1, 0x2c, &[b"\x02\0\0\0\0\x10", fields, b"\0\0"].concat());
        check(&[dressed(path)], &[dressed(letter)]);
    }

    #[test]
    fn nonsense_is_passed_on() {
        for payload in [&b"\x41\x7f/sock"[..], b"\x41", b"\x41\xff\xff\xff\xff\xff", b"\x40\x01a", b"\x7f\xff\xff\xff"]
        {
            let nonsense = frame(1, 4, payload);
            check(std::slice::from_ref(&nonsense), std::slice::from_ref(&nonsense));
        }
        let padded = frame(1, 0x8, b"\xff");
        check(std::slice::from_ref(&padded), std::slice::from_ref(&padded));
    }
}
