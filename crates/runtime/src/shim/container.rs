//! A container as its shim sees it: process, streams, log, spectators.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::log::Framer;
use crate::init;
use crate::spec::{ContainerIo, Exited, Identity, PidNamespace, Started, file};
use crate::sys::{
    Attempt, Cloned, PidFd, clone_process, open, read, realtime_nanos, receive, set_nonblocking, setns, socket_pair,
    start_time, write, write_atomically,
};

/// How far a start has come.
pub(super) enum Phase {
    /// Between clone and exec; the answer goes to this connection.
    Starting {
        status: OwnedFd,
        identity: Option<Identity>,
        connection: u64,
    },
    Running,
    /// Dead; kept until its spectators have read everything.
    Ended,
}

pub(super) struct Container {
    pub(super) io: ContainerIo,
    state_dir: PathBuf,
    pub(super) pid: i32,
    pub(super) pidfd: PidFd,
    /// Whether we can wait for it.
    pub(super) child: bool,
    pub(super) phase: Phase,
    /// Standard output and standard error; a terminal is output only.
    pub(super) streams: [Option<Stream>; 2],
    log: Option<File>,
    /// Keeps the container's standard input from ending.
    pub(super) stdin: Option<OwnedFd>,
    /// The terminal's master, for spectators.
    pub(super) terminal: Option<OwnedFd>,
    pub(super) spectators: Vec<Spectator>,
    /// What the container wrote before its one client came (`stdinOnce`). `kubectl run -i` attaches
    /// when it sees the pod running; by then a short command may have said all it has to say.
    unseen: Option<[VecDeque<u8>; 2]>,
}

pub(super) struct Stream {
    pub(super) fd: OwnedFd,
    framer: Framer,
}

/// An attached client: where copies of the output go.
pub(super) struct Spectator {
    pub(super) ends: [Option<OwnedFd>; 2],
    pending: [VecDeque<u8>; 2],
}

/// The part of the specification that the shim reads.
#[derive(Deserialize)]
struct OnlyIo {
    io: ContainerIo,
}

/// What one read takes; also bounds what a spectator has pending, since the container is not read
/// while somebody is behind.
const READ_BYTES: usize = 16 * 1024;

impl Container {
    /// Starts the container whose state is in `state_dir`.
    pub(super) fn start(state_dir: &Path, pause: &PidFd, own_pids: &OwnedFd, connection: u64) -> io::Result<Self> {
        let io = read_io(state_dir)?;
        let (ours, theirs) = socket_pair()?;
        set_nonblocking(&ours)?;
        let (streams, stdin) = open_streams(&io)?;
        let unseen = io.stdin_once.then(Default::default);
        let log = open_log(&io)?;
        let group = io.cgroup.as_deref().map(|dir| open(dir, libc::O_PATH | libc::O_DIRECTORY)).transpose()?;
        let mut flags = 0;
        match &io.pid_namespace {
            PidNamespace::Container => flags = libc::CLONE_NEWPID,
            PidNamespace::Node => {}
            PidNamespace::Pod => setns(pause, libc::CLONE_NEWPID).attempt(|| "join the pod's processes".into())?,
            PidNamespace::Target(pid, started) => {
                let target = PidFd::open(*pid, *started).attempt(|| "find the target container".into())?;
                setns(&target, libc::CLONE_NEWPID).attempt(|| "join the target's processes".into())?;
            }
        }
        // SAFETY: the shim has one thread.
        let cloned = unsafe { clone_process(flags, group.as_ref()) };
        if let Ok(Cloned::Child) = cloned {
            drop(ours);
            init::container::run(&state_dir.join(file::SPEC), pause, &theirs);
        }
        // Only children were meant to be elsewhere.
        setns(own_pids, libc::CLONE_NEWPID)?;
        let Cloned::Parent(pid, pidfd) = cloned.attempt(|| "clone".into())? else { unreachable!("handled above") };
        Ok(Self {
            io,
            state_dir: state_dir.to_path_buf(),
            pid,
            pidfd,
            child: true,
            phase: Phase::Starting { status: ours, identity: None, connection },
            streams,
            log,
            stdin,
            terminal: None,
            spectators: Vec::new(),
            unseen,
        })
    }

    /// Takes over a running container from a shim that died.
    pub(super) fn adopt(state_dir: &Path) -> io::Result<Self> {
        let io = read_io(state_dir)?;
        let started = std::fs::read(state_dir.join(file::STARTED))?;
        let started: Started = serde_json::from_slice(&started).map_err(io::Error::other)?;
        let pidfd = PidFd::open(started.pid, started.start_time)?;
        let (streams, stdin) = open_streams(&io)?;
        let log = open_log(&io)?;
        Ok(Self {
            io,
            state_dir: state_dir.to_path_buf(),
            pid: started.pid,
            pidfd,
            child: false,
            phase: Phase::Running,
            streams,
            log,
            stdin,
            terminal: None,
            spectators: Vec::new(),
            unseen: None,
        })
    }

    /// Takes what the starting process has sent. Gives the answer once there is one.
    pub(super) fn advance_start(&mut self) -> Option<Result<Vec<u8>, String>> {
        let Phase::Starting { status, identity, .. } = &mut self.phase else { return None };
        let mut message = [0; 4_096];
        loop {
            let (count, mut fds) = match receive(status, &mut message) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => return Some(Err(error.to_string())),
            };
            match message[..count].first() {
                Some(b'T') => {
                    self.terminal = fds.pop();
                    self.streams[0] = self.terminal.as_ref().and_then(|master| {
                        set_nonblocking(master).ok()?;
                        Some(Stream { fd: master.try_clone().ok()?, framer: Framer::new("stdout") })
                    });
                }
                Some(b'E') => return Some(Err(String::from_utf8_lossy(&message[1..count]).into_owned())),
                Some(_) => *identity = serde_json::from_slice(&message[..count]).ok(),
                None => {
                    // The end: exec has closed the socket, or the process died before it.
                    let Some(identity) = identity.take() else {
                        return Some(Err("the container's process died while it was set up".into()));
                    };
                    return Some(self.record_start(identity).map_err(|error| error.to_string()));
                }
            }
        }
    }

    fn record_start(&mut self, identity: Identity) -> io::Result<Vec<u8>> {
        let started = Started {
            pid: self.pid,
            // The process may have ended already, but it is not reaped before this.
            start_time: start_time(self.pid)?,
            at: realtime_nanos(),
            identity: Some(identity),
        };
        let bytes = serde_json::to_vec(&started).map_err(io::Error::other)?;
        write_atomically(&self.state_dir.join(file::STARTED), &bytes)?;
        self.phase = Phase::Running;
        Ok(bytes)
    }

    /// Reads what a stream has and passes it on. Gives false at the stream's end.
    pub(super) fn pump(&mut self, index: usize) -> bool {
        let mut buffer = [0; READ_BYTES];
        let Some(stream) = &mut self.streams[index] else { return false };
        let count = match read(&stream.fd, &mut buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            // A terminal whose last user has gone answers EIO.
            Err(_) => return false,
        };
        let bytes = &buffer[..count];
        if let Some(log) = &mut self.log {
            let mut records = Vec::with_capacity(count + 64);
            stream.framer.push(bytes, realtime_nanos(), &mut records);
            // A full disk loses log lines; it must not stop the container.
            let _ = log.write_all(&records);
        }
        for spectator in &mut self.spectators {
            spectator.pending[index].extend(bytes);
        }
        if let Some(unseen) = &mut self.unseen {
            let unseen = &mut unseen[index];
            unseen.extend(bytes);
            unseen.drain(..unseen.len().saturating_sub(UNSEEN_BYTES_MAX));
        }
        self.flush_spectators();
        true
    }

    /// Whether output may be read: somebody who is behind stops the flow, as with a terminal.
    pub(super) fn may_read(&self) -> bool {
        self.spectators.iter().all(|spectator| spectator.pending.iter().all(VecDeque::is_empty))
    }

    /// Writes what spectators take; those whose pipe is broken leave.
    pub(super) fn flush_spectators(&mut self) {
        for spectator in &mut self.spectators {
            spectator.flush();
        }
        let ended = matches!(self.phase, Phase::Ended);
        self.spectators.retain(|spectator| {
            let open = spectator.ends.iter().any(Option::is_some);
            open && !(ended && spectator.pending.iter().all(VecDeque::is_empty))
        });
    }

    /// Adds a spectator.
    pub(super) fn attach(&mut self, ends: [Option<OwnedFd>; 2]) -> io::Result<()> {
        for end in ends.iter().flatten() {
            set_nonblocking(end)?;
        }
        let mut spectator = Spectator { ends, pending: self.unseen.take().unwrap_or_default() };
        spectator.flush();
        self.spectators.push(spectator);
        Ok(())
    }

    /// Opens the log again after it was renamed.
    pub(super) fn reopen_log(&mut self) -> io::Result<()> {
        self.log = open_log(&self.io)?;
        Ok(())
    }

    /// Records the end: the rest of the output, then the exit code.
    pub(super) fn end(&mut self, code: i32) -> io::Result<()> {
        for index in 0..2 {
            // What is in the pipe now is all that counts: a process that outlives the container's
            // first one (with the node's processes) may hold it open for ever.
            for _ in 0..PIPE_READS_MAX {
                let before = self.spectators.iter().map(|spectator| spectator.pending[index].len()).sum::<usize>();
                if !self.has_output(index) || !self.pump(index) || before > PENDING_BYTES_MAX {
                    break;
                }
            }
            self.close_stream(index);
        }
        self.log = None;
        self.stdin = None;
        self.terminal = None;
        self.unseen = None;
        self.phase = Phase::Ended;
        self.flush_spectators();
        let exited = Exited { code, at: realtime_nanos(), reason: String::new(), message: String::new() };
        let bytes = serde_json::to_vec(&exited).map_err(io::Error::other)?;
        write_atomically(&self.state_dir.join(file::EXIT), &bytes)
    }

    /// Ends a stream; a line without an end is logged as it is.
    pub(super) fn close_stream(&mut self, index: usize) {
        if let (Some(mut stream), Some(log)) = (self.streams[index].take(), &mut self.log) {
            let mut records = Vec::new();
            stream.framer.finish(realtime_nanos(), &mut records);
            let _ = log.write_all(&records);
        }
    }

    fn has_output(&self, index: usize) -> bool {
        self.streams[index].as_ref().is_some_and(|stream| {
            let mut poll = libc::pollfd { fd: stream.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd.
            unsafe { libc::poll(&raw mut poll, 1, 0) == 1 && poll.revents & libc::POLLIN != 0 }
        })
    }
}

/// A pipe of the largest size (1 MiB) needs this many reads.
const PIPE_READS_MAX: usize = 1024 * 1024 / READ_BYTES;
/// Of what the first client of a container may have missed, so much is kept of each stream.
const UNSEEN_BYTES_MAX: usize = 64 * 1024;
/// What a spectator who does not read may make us keep at the end.
const PENDING_BYTES_MAX: usize = 1024 * 1024;

impl Spectator {
    /// Whether output for stream `index` waits.
    pub(super) fn waits(&self, index: usize) -> bool {
        !self.pending[index].is_empty()
    }

    fn flush(&mut self) {
        for (end, pending) in self.ends.iter_mut().zip(&mut self.pending) {
            while let Some(fd) = end.as_ref() {
                let (first, _) = pending.as_slices();
                if first.is_empty() {
                    break;
                }
                match write(fd, first) {
                    Ok(count) => drop(pending.drain(..count)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => *end = None,
                }
            }
            if end.is_none() || pending.is_empty() {
                *pending = VecDeque::new();
            }
        }
    }
}

fn read_io(state_dir: &Path) -> io::Result<ContainerIo> {
    let path = state_dir.join(file::SPEC);
    let bytes = std::fs::read(&path).attempt(|| format!("read {}", path.display()))?;
    let only: OnlyIo = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    Ok(only.io)
}

type Opened = ([Option<Stream>; 2], Option<OwnedFd>);

fn open_streams(io: &ContainerIo) -> io::Result<Opened> {
    if io.tty {
        return Ok(([None, None], None));
    }
    let fifo = |name: &str, flags| {
        let path = io.run_dir.join(name);
        open(&path, flags | libc::O_NONBLOCK).attempt(|| format!("open {}", path.display()))
    };
    let stream = |name| Ok::<_, io::Error>(Some(Stream { fd: fifo(name, libc::O_RDONLY)?, framer: Framer::new(name) }));
    let stdin = if io.stdin { Some(fifo("stdin", libc::O_RDWR)?) } else { None };
    Ok(([stream("stdout")?, stream("stderr")?], stdin))
}

fn open_log(io: &ContainerIo) -> io::Result<Option<File>> {
    let Some(path) = &io.log_path else { return Ok(None) };
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    file.attempt(|| format!("open log {}", path.display())).map(Some)
}
