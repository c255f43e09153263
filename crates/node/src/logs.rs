//! Container logs: lines `<time> <stream> <F|P> <text>`, read with the options of `kubectl logs`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use skiff_base::{Clock, Timestamp};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader, SeekFrom};
use tokio::sync::mpsc;

/// What a reader asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) follow: bool,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
    pub(crate) limit_bytes: Option<u64>,
    /// `Stdout`, `Stderr`, or both when `None`.
    pub(crate) stream: Option<String>,
}

/// How a log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// The container runtime's.
    Cri,
    /// Plain lines: the log of a component.
    Plain,
}

/// The block in which the end of a log is searched for lines.
const TAIL_BLOCK: u64 = 64 << 10;
/// The longest line that is kept together.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// How long a follower waits before it looks again when the kernel cannot tell it of changes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One line as the runtime wrote it.
struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    text: &'a [u8],
    /// The line goes on in the next record.
    partial: bool,
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tag = parts.next()?;
    if !matches!(stream, "stdout" | "stderr") {
        return None;
    }
    Some(Line { time, stream, text: parts.next()?, partial: tag.starts_with(b"P") })
}

/// The text of one record, for termination messages.
pub(crate) fn content_of(record: &str) -> Option<String> {
    let line = parse(record.as_bytes())?;
    let text = String::from_utf8_lossy(line.text).into_owned();
    Some(if line.partial { text.trim_end_matches('\n').to_owned() } else { text })
}

/// Sends what `options` ask of the log at `path` to `out`, until its end, or forever when
/// following: until `ended` resolves and everything written by then has been sent.
pub(crate) async fn read(
    path: PathBuf,
    format: Format,
    options: Options,
    clock: Clock,
    ended: impl Future<Output = ()> + Send,
    out: mpsc::Sender<io::Result<Bytes>>,
) {
    let mut reader = Reader { format, left: options.limit_bytes, options, out, mid_line: false };
    if let Err(error) = reader.run(&path, &clock, ended).await {
        drop(reader.out.send(Err(error)).await);
    }
}

struct Reader {
    format: Format,
    options: Options,
    left: Option<u64>,
    out: mpsc::Sender<io::Result<Bytes>>,
    mid_line: bool,
}

impl Reader {
    async fn run(&mut self, path: &Path, clock: &Clock, ended: impl Future<Output = ()> + Send) -> io::Result<()> {
        let mut file = BufReader::new(File::open(path).await?);
        if let Some(lines) = self.options.tail_lines {
            let from = tail_offset(file.get_mut(), lines).await?;
            file.seek(SeekFrom::Start(from)).await?;
        }
        let mut changes = self.options.follow.then(|| Changes::of(path));
        let mut ended = std::pin::pin!(ended);
        let mut last = !self.options.follow;
        let mut line = Vec::new();
        loop {
            let read = (&mut file).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
            let complete = line.ends_with(b"\n") || line.len() as u64 >= LINE_BYTES_MAX;
            if complete || (read == 0 && last && !line.is_empty()) {
                if !self.line(&line).await {
                    return Ok(());
                }
                line.clear();
                continue;
            }
            if read > 0 {
                continue;
            }
            if last {
                return Ok(());
            }
            if let Some(rotated) = reopened(path, file.get_ref()).await {
                file = BufReader::new(rotated);
                continue;
            }
            let Some(changes) = &mut changes else { return Ok(()) };
            tokio::select! {
                biased;
                () = self.out.closed() => return Ok(()),
                () = changes.next(clock) => {}
                // What was written before the end is still to be read.
                () = &mut ended => last = true,
            }
        }
    }

    /// Sends one line; false when nothing more is wanted.
    async fn line(&mut self, raw: &[u8]) -> bool {
        let bytes = match self.format {
            Format::Plain => raw.to_vec(),
            Format::Cri => match parse(raw).and_then(|line| self.shape(&line)) {
                Some(bytes) => bytes,
                None => return true,
            },
        };
        let mut bytes = Bytes::from(bytes);
        if let Some(left) = &mut self.left {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
        }
        let more = self.left != Some(0);
        self.out.send(Ok(bytes)).await.is_ok() && more
    }

    fn shape(&mut self, line: &Line<'_>) -> Option<Vec<u8>> {
        if let Some(wanted) = self.options.stream.as_deref()
            && !wanted.eq_ignore_ascii_case(line.stream)
        {
            return None;
        }
        if let Some(since) = self.options.since {
            let time: k8s_openapi::jiff::Timestamp = line.time.parse().ok()?;
            if i128::from(since.as_nanos()) > time.as_nanosecond() {
                return None;
            }
        }
        let mut out = Vec::with_capacity(line.text.len() + 32);
        if self.options.timestamps && !self.mid_line {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        let text = if line.partial { line.text.strip_suffix(b"\n").unwrap_or(line.text) } else { line.text };
        out.extend_from_slice(text);
        self.mid_line = line.partial;
        Some(out)
    }
}

/// The log at `path` when it is no longer the open file: it was rotated.
async fn reopened(path: &Path, open: &File) -> Option<File> {
    use std::os::unix::fs::MetadataExt;
    let current = tokio::fs::metadata(path).await.ok()?;
    let held = open.metadata().await.ok()?;
    if (current.ino(), current.dev()) == (held.ino(), held.dev()) {
        return None;
    }
    File::open(path).await.ok()
}

/// Where the last `lines` lines begin.
async fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let length = file.metadata().await?.len();
    let mut end = length;
    let mut found = 0;
    while end > 0 {
        let begin = end.saturating_sub(TAIL_BLOCK);
        let mut block = vec![0; usize::try_from(end - begin).unwrap_or(0)];
        file.seek(SeekFrom::Start(begin)).await?;
        file.read_exact(&mut block).await?;
        for (index, byte) in block.iter().enumerate().rev() {
            let at = begin + index as u64;
            // The line end that closes the file begins no line.
            if *byte == b'\n' && at + 1 != length {
                found += 1;
                if found == lines {
                    return Ok(at + 1);
                }
            }
        }
        end = begin;
    }
    Ok(if lines == 0 { length } else { 0 })
}

/// Changes of a file and of its name, as the kernel tells them.
enum Changes {
    /// An inotify descriptor reads like a pipe.
    Watched(tokio::net::unix::pipe::Receiver),
    /// The machine has no inotify instance left.
    Unwatched,
}

impl Changes {
    fn of(path: &Path) -> Self {
        Self::watch(path).unwrap_or(Self::Unwatched)
    }

    fn watch(path: &Path) -> io::Result<Self> {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify
            .add_watch(path, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF)?;
        if let Some(dir) = path.parent() {
            inotify.add_watch(dir, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
        }
        Ok(Self::Watched(tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(inotify.into())?))
    }

    async fn next(&mut self, clock: &Clock) {
        match self {
            Self::Watched(inotify) => {
                let mut events = [0; 4096];
                if inotify.readable().await.is_ok() {
                    while inotify.try_read(&mut events).is_ok_and(|read| read > 0) {}
                }
            }
            Self::Unwatched => clock.sleep(LOOK_AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:00.000000001Z stdout F one\n\
                       2026-01-01T00:00:01.000000001Z stderr P tw\n\
                       2026-01-01T00:00:01.000000002Z stderr F o\n\
                       2026-01-01T00:00:02.000000001Z stdout F three\n";

    async fn check(options: Options, want: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (out, mut lines) = mpsc::channel(16);
        read(path, Format::Cri, options, Clock::system(), std::future::pending(), out).await;
        let mut got = Vec::new();
        while let Some(chunk) = lines.recv().await {
            got.extend_from_slice(&chunk.unwrap());
        }
        assert_eq!(String::from_utf8(got).unwrap(), want);
    }

    #[tokio::test]
    async fn logs_are_cut_and_filtered_as_asked() {
        let none = Options::default;
        check(none(), "one\ntwo\nthree\n").await;
        check(Options { tail_lines: Some(1), ..none() }, "three\n").await;
        check(Options { tail_lines: Some(0), ..none() }, "").await;
        check(Options { limit_bytes: Some(5), ..none() }, "one\nt").await;
        check(Options { stream: Some("Stderr".into()), ..none() }, "two\n").await;
        check(Options { since: Some(Timestamp::from_secs(1_767_225_602)), ..none() }, "three\n").await;
        check(Options { timestamps: true, tail_lines: Some(1), ..none() }, "2026-01-01T00:00:02.000000001Z three\n")
            .await;
    }

    #[tokio::test]
    async fn a_follower_sees_new_lines_and_rotation_and_ends_with_the_container() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "2026-01-01T00:00:00Z stdout F a\n").unwrap();
        let (out, mut lines) = mpsc::channel(16);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let options = Options { follow: true, ..Options::default() };
        let ended = async move { drop(ended.await) };
        let reading = read(path.clone(), Format::Cri, options, Clock::system(), ended, out);
        let writing = async move {
            assert_eq!(lines.recv().await.unwrap().unwrap(), "a\n");
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(b"2026-01-01T00:00:00Z stdout F b\n").unwrap();
            assert_eq!(lines.recv().await.unwrap().unwrap(), "b\n");
            std::fs::rename(&path, path.with_extension("1")).unwrap();
            std::fs::write(&path, "2026-01-01T00:00:00Z stdout F c\n").unwrap();
            assert_eq!(lines.recv().await.unwrap().unwrap(), "c\n");
            end.send(()).unwrap();
            assert!(lines.recv().await.is_none());
        };
        tokio::join!(reading, writing);
    }
}
