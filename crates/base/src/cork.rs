//! Many small writes become few large ones.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is held back at most: four TLS records of full size.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// What is kept allocated while nothing is held back.
const IDLE_BYTES_MAX: usize = 16 * 1024;

/// Holds written bytes back until a flush that no write preceded, or until there are many.
///
/// HTTP/2 flushes after every frame; over TLS each flush would be a record and a system call of
/// its own. The first flush after a write therefore only wakes the task, and the next one, which
/// comes when the task has nothing more to write, is carried out. This is only for users that
/// flush each time they are polled, as an HTTP/2 connection does.
pub struct Corked<S> {
    inner: S,
    held: Vec<u8>,
    /// How much of `held` is written.
    written: usize,
    /// Whether something was written since the last flush was asked for.
    is_fresh: bool,
    is_transparent: bool,
}

impl<S> Corked<S> {
    /// Wraps `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner, held: Vec::new(), written: 0, is_fresh: false, is_transparent: false }
    }

    /// Wraps `inner` without holding anything back, for users that flush only once.
    pub fn transparent(inner: S) -> Self {
        Self { is_transparent: true, ..Self::new(inner) }
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.held[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.written = 0;
        self.held.clear();
        self.held.shrink_to(IDLE_BYTES_MAX);
        Poll::Ready(Ok(()))
    }

    /// Makes room for `wanted` more bytes, unless so much fits at once.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<()>> {
        if !self.held.is_empty() && self.held.len() + wanted > HELD_BYTES_MAX {
            ready!(self.poll_drain(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_transparent {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        }
        ready!(self.poll_room(cx, buf.len()))?;
        let count = buf.len().min(HELD_BYTES_MAX);
        self.held.extend_from_slice(&buf[..count]);
        self.is_fresh = true;
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_transparent {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        }
        ready!(self.poll_room(cx, bufs.iter().map(|buf| buf.len()).sum()))?;
        let before = self.held.len();
        for buf in bufs {
            let count = buf.len().min(HELD_BYTES_MAX.saturating_sub(self.held.len()));
            self.held.extend_from_slice(&buf[..count]);
        }
        self.is_fresh = true;
        Poll::Ready(Ok(self.held.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.is_fresh) {
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn the_second_flush_sends_everything_at_once() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut near = Corked::new(near);
        for _ in 0..3 {
            let count = poll_fn(|cx| Pin::new(&mut near).poll_write(cx, b"abc")).await.unwrap();
            assert_eq!(count, 3);
            poll_fn(|cx| Pin::new(&mut near).poll_flush(cx)).await.unwrap();
        }
        poll_fn(|cx| Pin::new(&mut near).poll_flush(cx)).await.unwrap();
        let mut read = [0; 32];
        assert_eq!(far.read(&mut read).await.unwrap(), 9);
    }

    #[tokio::test]
    async fn more_than_is_held_goes_through_in_order() {
        let (near, mut far) = tokio::io::duplex(4096);
        let bytes: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
        let expected = bytes.clone();
        let mut near = Corked::new(near);
        let (_, read) = tokio::join!(
            async move {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let count = poll_fn(|cx| Pin::new(&mut near).poll_write(cx, rest)).await.unwrap();
                    rest = &rest[count..];
                }
                poll_fn(|cx| Pin::new(&mut near).poll_shutdown(cx)).await.unwrap();
            },
            async move {
                let mut read = Vec::new();
                far.read_to_end(&mut read).await.unwrap();
                read
            }
        );
        assert_eq!(read, expected);
    }
}
