//! The shim's loop: one `poll` over its processes, streams and connections.
//!
//! Requests are single messages on a `SOCK_SEQPACKET` socket, one text each:
//! `start DIR`, `adopt DIR`, `attach ID` (with the write ends for output and error), `reopen ID`,
//! `close-stdin ID`, `watch`, `stop`. Answers begin with `+` (done) or `-` (the reason why not).
//! A connection that watches gets `exit ID` and `pause`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::container::{Container, Phase};
use crate::spec::{Exited, SandboxSpec, file};
use crate::sys::{
    Attempt, PidFd, check, exit_code_of_status, open, owned, realtime_nanos, receive, send, write_atomically,
};

/// More clients than this are refused: the server needs two, and attaches are short requests.
const CONNECTIONS_MAX: usize = 64;

/// The child signals, as a descriptor.
pub(super) struct Signals(OwnedFd);

impl Signals {
    /// Blocks all signals and makes a descriptor for SIGCHLD.
    pub(super) fn block() -> io::Result<Self> {
        // SAFETY: the sets are initialised before use.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            let fd = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
            Ok(Self(owned(fd.into())))
        }
    }

    fn clear(&self) {
        let mut buffer = [0; size_of::<libc::signalfd_siginfo>() * 4];
        while crate::sys::read(&self.0, &mut buffer).is_ok() {}
    }
}

/// Listens in `run_dir`; its path may be longer than a socket address, so it is reached through a
/// directory handle.
pub(super) fn listen(run_dir: &Path) -> io::Result<OwnedFd> {
    let _ = std::fs::remove_file(run_dir.join(file::SOCKET));
    let dir = open(run_dir, libc::O_PATH | libc::O_DIRECTORY).attempt(|| format!("open {}", run_dir.display()))?;
    // SAFETY: plain values; gives a fresh descriptor.
    let socket = unsafe {
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        owned(check(libc::socket(libc::AF_UNIX, kind, 0))?.into())
    };
    let (address, length) = socket_address(&dir)?;
    // SAFETY: a valid address of the given length.
    unsafe {
        check(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length))?;
        check(libc::listen(socket.as_raw_fd(), 16))?;
    }
    Ok(socket)
}

/// The address of the shim's socket below an open directory.
pub(crate) fn socket_address(dir: &OwnedFd) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let path = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), file::SOCKET);
    // SAFETY: all-zero is a valid address, and leaves the path terminated.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if path.len() >= address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = from as libc::c_char;
    }
    Ok((address, size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

/// After this long without an event a shim lets go of the memory it does not need to wait.
const IDLE_MS: i32 = 1_000;

struct Connection {
    id: u64,
    fd: OwnedFd,
    watches: bool,
}

/// A shim at work.
pub(super) struct Service {
    spec: SandboxSpec,
    signals: Signals,
    listener: OwnedFd,
    pause_pid: i32,
    pause: PidFd,
    /// Whether we can wait for the pause process.
    pause_is_child: bool,
    pause_ended: bool,
    containers: Vec<Container>,
    connections: Vec<Connection>,
    connections_made: u64,
    stopping: bool,
}

/// What a descriptor in the poll set stands for.
#[derive(Clone, Copy)]
enum Token {
    Signals,
    Listener,
    Pause,
    Connection(u64),
    Status(usize),
    Output(usize, usize),
    Spectators(usize),
    Exit(usize),
}

impl Service {
    pub(super) fn new(
        spec: SandboxSpec,
        signals: Signals,
        listener: OwnedFd,
        pause_pid: i32,
        pause: PidFd,
        pause_is_child: bool,
    ) -> Self {
        Self {
            spec,
            signals,
            listener,
            pause_pid,
            pause,
            pause_is_child,
            pause_ended: false,
            containers: Vec::new(),
            connections: Vec::new(),
            connections_made: 0,
            stopping: false,
        }
    }

    /// Serves until told to stop.
    pub(super) fn run(mut self) -> io::Result<()> {
        let own_pids = open(Path::new("/proc/self/ns/pid"), libc::O_RDONLY)?;
        let (mut set, mut tokens) = (Vec::new(), Vec::new());
        let mut timeout = IDLE_MS;
        while !(self.stopping && self.pause_ended) {
            self.collect(&mut set, &mut tokens);
            // SAFETY: the vector is valid for its length.
            match check(unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout) }) {
                Ok(0) => {
                    trim_memory();
                    timeout = -1;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => drop(other.attempt(|| "poll".into())?),
            }
            timeout = IDLE_MS;
            // Indices stay valid during the round: containers are only forgotten after it.
            for (entry, token) in set.iter().zip(&tokens) {
                if entry.revents != 0 {
                    self.handle(*token, &own_pids);
                }
            }
            self.containers
                .retain(|container| !matches!(container.phase, Phase::Ended) || !container.spectators.is_empty());
        }
        Ok(())
    }

    fn collect(&self, set: &mut Vec<libc::pollfd>, tokens: &mut Vec<Token>) {
        set.clear();
        tokens.clear();
        let mut add = |fd: RawFd, events, token| {
            set.push(libc::pollfd { fd, events, revents: 0 });
            tokens.push(token);
        };
        for (index, container) in self.containers.iter().enumerate() {
            if let Phase::Starting { status, .. } = &container.phase {
                add(status.as_raw_fd(), libc::POLLIN, Token::Status(index));
            }
            let may_read = container.may_read();
            for (number, stream) in container.streams.iter().enumerate() {
                if let (Some(stream), true) = (stream, may_read) {
                    add(stream.fd.as_raw_fd(), libc::POLLIN, Token::Output(index, number));
                }
            }
            for spectator in &container.spectators {
                for (number, end) in spectator.ends.iter().enumerate() {
                    if let Some(end) = end {
                        // Without output to write only a broken pipe is of interest.
                        let events = if spectator.waits(number) { libc::POLLOUT } else { 0 };
                        add(end.as_raw_fd(), events, Token::Spectators(index));
                    }
                }
            }
            if !container.child && !matches!(container.phase, Phase::Ended) {
                add(container.pidfd.as_raw_fd(), libc::POLLIN, Token::Exit(index));
            }
        }
        if !self.pause_is_child && !self.pause_ended {
            add(self.pause.as_raw_fd(), libc::POLLIN, Token::Pause);
        }
        add(self.signals.0.as_raw_fd(), libc::POLLIN, Token::Signals);
        for connection in &self.connections {
            add(connection.fd.as_raw_fd(), libc::POLLIN, Token::Connection(connection.id));
        }
        add(self.listener.as_raw_fd(), libc::POLLIN, Token::Listener);
    }

    fn handle(&mut self, token: Token, own_pids: &OwnedFd) {
        match token {
            Token::Signals => {
                self.signals.clear();
                self.reap();
            }
            Token::Listener => self.accept(),
            Token::Pause => self.pause_end(self.pause.exit_status(self.pause_pid)),
            Token::Connection(id) => self.request(id, own_pids),
            Token::Status(index) => self.advance_start(index),
            Token::Output(index, number) => {
                let container = &mut self.containers[index];
                // FIFOs of a container that never opened them, or whose last process is gone,
                // are at their end all the time; its exit is what ends the stream for us.
                if !container.pump(number) && !matches!(container.phase, Phase::Starting { .. }) {
                    container.close_stream(number);
                }
            }
            Token::Spectators(index) => self.containers[index].flush_or_drop_spectators(),
            Token::Exit(index) => {
                let status = self.containers[index].pidfd.exit_status(self.containers[index].pid);
                self.container_end(index, status.map_or(UNKNOWN_EXIT_CODE, exit_code_of_status));
            }
        }
    }

    fn accept(&mut self) {
        // SAFETY: null addresses are allowed; gives a fresh descriptor.
        let fd = unsafe {
            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            check(libc::accept4(self.listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags))
                .map(|fd| owned(fd.into()))
        };
        if let Ok(fd) = fd
            && self.connections.len() < CONNECTIONS_MAX
        {
            self.connections_made += 1;
            self.connections.push(Connection { id: self.connections_made, fd, watches: false });
        }
    }

    fn request(&mut self, id: u64, own_pids: &OwnedFd) {
        let Some(connection) = self.connections.iter().find(|connection| connection.id == id) else { return };
        let mut message = [0; 4_096];
        let (count, fds) = match receive(&connection.fd, &mut message) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok((0, _)) | Err(_) => return self.connections.retain(|connection| connection.id != id),
            Ok(received) => received,
        };
        let text = String::from_utf8_lossy(&message[..count]).into_owned();
        let (verb, argument) = text.split_once(' ').unwrap_or((&text, ""));
        let result = match verb {
            "start" => match Container::start(Path::new(argument), &self.pause, own_pids, id) {
                Ok(container) => {
                    self.containers.push(container);
                    return; // answered when exec succeeds or fails
                }
                Err(error) => Err(error),
            },
            "adopt" => Container::adopt(Path::new(argument)).map(|container| self.containers.push(container)),
            "attach" => return self.attach(id, argument, fds),
            "reopen" => self.find(argument).and_then(Container::reopen_log),
            "close-stdin" => self.find(argument).map(|container| container.stdin = None),
            "watch" => {
                for connection in self.connections.iter_mut().filter(|connection| connection.id == id) {
                    connection.watches = true;
                }
                Ok(())
            }
            "stop" => {
                self.stopping = true;
                let _ = self.pause.signal(libc::SIGKILL);
                Ok(())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("unknown request {verb:?}"))),
        };
        self.answer(id, result.map(|()| Vec::new()).map_err(|error| error.to_string()), &[]);
    }

    fn find(&mut self, id: &str) -> io::Result<&mut Container> {
        let found = self
            .containers
            .iter_mut()
            .find(|container| container.io.id == id && !matches!(container.phase, Phase::Ended));
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no running container {id}")))
    }

    fn attach(&mut self, connection: u64, id: &str, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let ends = [fds.next(), fds.next()];
        let result = self.find(id).and_then(|container| {
            container.attach(ends)?;
            container.terminal.as_ref().map(OwnedFd::try_clone).transpose()
        });
        match result {
            Ok(Some(terminal)) => self.answer(connection, Ok(Vec::new()), &[terminal.as_raw_fd()]),
            Ok(None) => self.answer(connection, Ok(Vec::new()), &[]),
            Err(error) => self.answer(connection, Err(error.to_string()), &[]),
        }
    }

    fn answer(&mut self, id: u64, result: Result<Vec<u8>, String>, fds: &[RawFd]) {
        let Some(connection) = self.connections.iter().find(|connection| connection.id == id) else { return };
        let mut message = Vec::new();
        match result {
            Ok(bytes) => {
                message.push(b'+');
                message.extend(bytes);
            }
            Err(text) => {
                message.push(b'-');
                message.extend(text.into_bytes());
            }
        }
        let _ = send(&connection.fd, &message, fds);
    }

    fn advance_start(&mut self, index: usize) {
        let Phase::Starting { connection, .. } = self.containers[index].phase else { return };
        let Some(answer) = self.containers[index].advance_start() else { return };
        if answer.is_err() {
            let container = &mut self.containers[index];
            let _ = container.pidfd.signal(libc::SIGKILL);
            container.phase = Phase::Ended;
        }
        self.answer(connection, answer, &[]);
    }

    /// Waits for every dead child: ours, and orphans of containers that share our processes.
    fn reap(&mut self) {
        loop {
            let mut status = 0;
            // Peek first: the start of a process can only be recorded while it is not reaped.
            // SAFETY: a valid siginfo buffer.
            let pid = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
                if check(libc::waitid(libc::P_ALL, 0, &raw mut info, flags)).is_err() {
                    return;
                }
                info.si_pid()
            };
            if pid == 0 {
                return;
            }
            let index = self.containers.iter().position(|container| {
                container.pid == pid && container.child && !matches!(container.phase, Phase::Ended)
            });
            if let Some(index) = index {
                self.advance_start(index);
            }
            // SAFETY: a valid int.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            if let Some(index) = index
                && matches!(self.containers[index].phase, Phase::Running)
            {
                self.container_end(index, exit_code_of_status(status));
            }
            if pid == self.pause_pid && self.pause_is_child {
                self.pause_end(Some(status));
            }
        }
    }

    fn container_end(&mut self, index: usize, code: i32) {
        let container = &mut self.containers[index];
        if let Err(error) = container.end(code) {
            let _ =
                crate::sys::write(&io::stderr(), format!("record exit of {}: {error}\n", container.io.id).as_bytes());
        }
        let message = format!("exit {}", container.io.id);
        self.notify(&message);
    }

    fn pause_end(&mut self, status: Option<i32>) {
        if self.pause_ended {
            return;
        }
        self.pause_ended = true;
        let code = status.map_or(UNKNOWN_EXIT_CODE, exit_code_of_status);
        let exited = Exited { code, at: realtime_nanos(), reason: String::new(), message: String::new() };
        if let Ok(bytes) = serde_json::to_vec(&exited) {
            let _ = write_atomically(&self.spec.state_dir.join(file::EXIT), &bytes);
        }
        self.notify("pause");
    }

    fn notify(&mut self, message: &str) {
        // A watcher that does not read is cut; it connects again and looks at the files.
        self.connections
            .retain(|connection| !connection.watches || send(&connection.fd, message.as_bytes(), &[]).is_ok());
    }
}

impl Container {
    /// Writes to spectators and drops those that hung up.
    fn flush_or_drop_spectators(&mut self) {
        for spectator in &mut self.spectators {
            for end in &mut spectator.ends {
                let hung_up = end.as_ref().is_some_and(|fd| {
                    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 };
                    // SAFETY: one valid pollfd.
                    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 && poll.revents & libc::POLLERR != 0 }
                });
                if hung_up {
                    *end = None;
                }
            }
        }
        self.flush_spectators();
    }
}

/// What containerd reports when it cannot know.
const UNKNOWN_EXIT_CODE: i32 = 255;

/// Gives freed memory back: what parsing needed is not needed while containers run.
fn trim_memory() {
    // SAFETY: no memory of ours is involved.
    unsafe { libc::malloc_trim(0) };
    crate::sys::forget_program();
}
