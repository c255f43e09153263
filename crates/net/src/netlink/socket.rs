//! A netlink socket: one request at a time, acknowledged by the kernel.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout, SndBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, recv, send, setsockopt,
    socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{Attributes, Message};
use crate::error::{Cause, NetError, Result};

/// The kernel answers at once; a silence this long means the answer was lost.
const ANSWER_SECONDS_MAX: i64 = 30;
/// One datagram of a dump. The kernel sizes its parts to the reader's buffer, up to 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
const MESSAGE_ERROR: u16 = libc::NLMSG_ERROR as u16;
const MESSAGE_DONE: u16 = libc::NLMSG_DONE as u16;

/// Which part of the kernel a socket speaks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nf_tables and conntrack.
    Netfilter,
}

/// A socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
    send_buffer_bytes: usize,
}

/// A received message.
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: Protocol) -> Result<Self> {
        let what = || format!("{protocol:?}");
        let fail = |errno| NetError::errno("open netlink socket", what(), errno);
        let kind = match protocol {
            Protocol::Route => SockProtocol::NetlinkRoute,
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, kind).map_err(fail)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(fail)?;
        connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(fail)?;
        setsockopt(&fd, ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS_MAX)).map_err(fail)?;
        // Dumps of large tables and acknowledgements of large batches must not overflow.
        let _ = setsockopt(&fd, RcvBufForce, &(4 << 20));
        extended_acknowledgements(&fd).map_err(fail)?;
        Ok(Self { fd, sequence: 1, buffer: vec![0; RECEIVE_BYTES], send_buffer_bytes: 0 })
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request(
        &mut self,
        mut message: Message,
        attempt: &'static str,
        object: impl FnOnce() -> String,
    ) -> Result<()> {
        message.add_flags(libc::NLM_F_ACK as u16);
        let sequence = self.next_sequence();
        let outcome = self.send(&message.finish(sequence)).and_then(|()| self.acknowledged(sequence));
        outcome.map_err(|cause| NetError::new(attempt, object(), cause))
    }

    /// Sends a dump request and hands every message of the answer to `each` (type, payload).
    pub(crate) fn dump(
        &mut self,
        mut message: Message,
        attempt: &'static str,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<()> {
        message.add_flags(libc::NLM_F_DUMP as u16);
        let sequence = self.next_sequence();
        let run = || -> std::result::Result<(), Cause> {
            self.send(&message.finish(sequence))?;
            loop {
                let mut done = None;
                self.receive(|message| {
                    if message.sequence != sequence || done.is_some() {
                        return;
                    }
                    match message.kind {
                        MESSAGE_DONE => done = Some(Ok(())),
                        MESSAGE_ERROR => done = Some(outcome(message.payload)),
                        kind => each(kind, message.payload),
                    }
                })?;
                if let Some(done) = done {
                    return done;
                }
            }
        };
        run().map_err(|cause| NetError::new(attempt, "", cause))
    }

    /// Sends one request that answers with one message and hands it to `each`.
    pub(crate) fn get<T>(
        &mut self,
        mut message: Message,
        attempt: &'static str,
        object: impl FnOnce() -> String,
        each: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        message.add_flags(libc::NLM_F_ACK as u16);
        let sequence = self.next_sequence();
        let mut value = None;
        let run = || -> std::result::Result<(), Cause> {
            self.send(&message.finish(sequence))?;
            loop {
                let mut done = None;
                self.receive(|message| {
                    if message.sequence != sequence {
                        return;
                    }
                    match message.kind {
                        MESSAGE_ERROR => done = Some(outcome(message.payload)),
                        _ => value = each(message.payload),
                    }
                })?;
                if let Some(done) = done {
                    return done;
                }
            }
        };
        run().map_err(|cause| NetError::new(attempt, object(), cause))?;
        Ok(value)
    }

    /// Reserves `count` sequence numbers and gives the first.
    pub(crate) fn reserve(&mut self, count: u32) -> u32 {
        if self.sequence > u32::MAX - count - 2 {
            self.sequence = 1;
        }
        let first = self.sequence;
        self.sequence += count;
        first
    }

    /// Sends `bytes` as one datagram, with a send buffer that can hold it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::result::Result<(), Cause> {
        let wanted = bytes.len() * 2 + 64 * 1024;
        if wanted > 128 * 1024 && wanted > self.send_buffer_bytes {
            setsockopt(&self.fd, SndBufForce, &wanted).map_err(kernel)?;
            self.send_buffer_bytes = wanted;
        }
        loop {
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(kernel(errno)),
            }
        }
    }

    /// Receives one datagram and hands over each message in it.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(Received<'_>)) -> std::result::Result<(), Cause> {
        let length = loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => break length,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(kernel(errno)),
            }
        };
        let mut rest = &self.buffer[..length];
        while let Some(header) = rest.get(..16) {
            let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let Some(payload) = rest.get(16..size) else { break };
            each(Received {
                kind: u16::from_ne_bytes([header[4], header[5]]),
                sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
                payload,
            });
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }

    fn next_sequence(&mut self) -> u32 {
        self.reserve(1)
    }

    fn acknowledged(&mut self, sequence: u32) -> std::result::Result<(), Cause> {
        loop {
            let mut done = None;
            self.receive(|message| {
                if message.sequence == sequence && message.kind == MESSAGE_ERROR {
                    done = Some(outcome(message.payload));
                }
            })?;
            if let Some(done) = done {
                return done;
            }
        }
    }
}

/// Reads an `NLMSG_ERROR` payload: zero is success; extended acknowledgements add words.
pub(crate) fn outcome(payload: &[u8]) -> std::result::Result<(), Cause> {
    let code = payload.get(..4).map_or(0, |bytes| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    if code == 0 {
        return Ok(());
    }
    const MESSAGE_TEXT: u16 = 1;
    // With NETLINK_CAP_ACK only the header of the refused message (16 bytes) is echoed.
    let detail = payload.get(20..).and_then(|rest| Attributes::new(rest).find(MESSAGE_TEXT)).map(super::text);
    Err(Cause::Kernel { errno: Errno::from_raw(-code), detail })
}

fn kernel(errno: Errno) -> Cause {
    Cause::Kernel { errno, detail: None }
}

fn extended_acknowledgements(fd: &OwnedFd) -> std::result::Result<(), Errno> {
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        // SAFETY: `fd` is an open socket, the value is an int that outlives the call.
        let result = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        Errno::result(result)?;
    }
    Ok(())
}
