//! Sockets: datagrams and streams in, answers out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::{Message, ResponseCode};
use skiff_base::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::forward::Forwarder;
use super::wire::{self, Request, Transport};
use super::{Counters, Zone};

/// Queries that wait for upstream at once; more are told to try again.
const FORWARDED_MAX: usize = 512;
/// TCP clients at once.
const STREAMS_MAX: usize = 128;
/// A TCP client that says nothing for this long is let go (RFC 7766 suggests seconds).
const STREAM_IDLE: Duration = Duration::from_secs(10);
const DATAGRAM_BYTES_MAX: usize = 4_096;
/// Tasks that read one UDP socket, so that a second core can help.
const READERS: usize = 2;

/// Answers questions; shared by all sockets.
pub(super) struct Server {
    pub(super) zone: Arc<ArcSwap<Zone>>,
    pub(super) forwarder: Forwarder,
    pub(super) counters: Arc<Counters>,
    waiting: Arc<Semaphore>,
}

/// What to do with a request.
enum Step {
    Send(Vec<u8>),
    Forward(Box<Message>),
    Finish(Box<(Message, super::Answer)>),
    Ignore,
}

impl Server {
    pub(super) fn new(zone: Arc<ArcSwap<Zone>>, forwarder: Forwarder, counters: Arc<Counters>) -> Self {
        Self { zone, forwarder, counters, waiting: Arc::new(Semaphore::new(FORWARDED_MAX)) }
    }

    /// Serves a datagram socket and a listener until the group ends.
    pub(super) fn serve(self: &Arc<Self>, datagrams: UdpSocket, streams: TcpListener, tasks: &Tasks) {
        let datagrams = Arc::new(datagrams);
        for _ in 0..READERS {
            tasks.spawn("udp", self.clone().serve_datagrams(datagrams.clone(), tasks.clone()));
        }
        tasks.spawn("tcp", self.clone().serve_streams(streams, tasks.clone()));
    }

    async fn serve_datagrams(self: Arc<Self>, socket: Arc<UdpSocket>, tasks: Tasks) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // An earlier answer could not be delivered; the socket itself is fine.
                    tracing::debug!(%error, "DNS client went away");
                    continue;
                }
            };
            match self.step(&buffer[..length], Transport::Udp) {
                Step::Ignore => {}
                Step::Send(bytes) => reply(&socket, &bytes, client).await,
                step => match self.waiting.clone().try_acquire_owned() {
                    Err(_) => {
                        Counters::count(&self.counters.overloaded);
                        reply(&socket, &overloaded(step), client).await;
                    }
                    Ok(permit) => {
                        let (server, socket) = (self.clone(), socket.clone());
                        tasks.spawn("forward", async move {
                            let bytes = server.wait(step, Transport::Udp).await;
                            reply(&socket, &bytes, client).await;
                            drop(permit);
                        });
                    }
                },
            }
        }
    }

    async fn serve_streams(self: Arc<Self>, listener: TcpListener, tasks: Tasks) {
        let permits = Arc::new(Semaphore::new(STREAMS_MAX));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    tasks.spawn("stream", async move {
                        let _ = server.serve_stream(stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of descriptors, usually: give others time to close some.
                    tracing::warn!(%error, "DNS stream not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve_stream(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let read = async {
                let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
                stream.read_exact(&mut bytes).await?;
                Ok::<_, std::io::Error>(bytes)
            };
            let Ok(bytes) = tokio::time::timeout(STREAM_IDLE, read).await else { return Ok(()) };
            let answer = match self.step(&bytes?, Transport::Tcp) {
                Step::Ignore => return Ok(()),
                Step::Send(bytes) => bytes,
                step => match self.waiting.try_acquire() {
                    Ok(_permit) => self.wait(step, Transport::Tcp).await,
                    Err(_) => overloaded(step),
                },
            };
            let length = u16::try_from(answer.len()).unwrap_or(0).to_be_bytes();
            let framed = [&length, &answer[..]].concat();
            match tokio::time::timeout(STREAM_IDLE, stream.write_all(&framed)).await {
                Ok(written) => written?,
                Err(_) => return Ok(()),
            }
        }
    }

    /// Answers what can be answered at once.
    fn step(&self, bytes: &[u8], transport: Transport) -> Step {
        Counters::count(&self.counters.queries);
        let query = match wire::read(bytes) {
            Request::Query(query) => query,
            Request::Refused(bytes) => {
                Counters::count(&self.counters.malformed);
                return Step::Send(bytes);
            }
            Request::Noise => {
                Counters::count(&self.counters.malformed);
                return Step::Ignore;
            }
        };
        let question = &query.queries[0];
        match self.zone.load().lookup(question.name(), question.query_type()) {
            Some(answer) => {
                Counters::count(&self.counters.answered);
                if answer.code == ResponseCode::NXDomain {
                    Counters::count(&self.counters.missing);
                }
                if answer.chase.is_some() {
                    return Step::Finish(Box::new((*query, answer)));
                }
                let answer = wire::answer(&query, answer);
                Step::Send(wire::write(&query, answer, transport))
            }
            None => match self.forwarder.cached(&query) {
                Some(kept) => Step::Send(wire::write(&query, wire::relay(&query, &kept), transport)),
                None => Step::Forward(query),
            },
        }
    }

    /// Answers what upstream must be asked for.
    async fn wait(&self, step: Step, transport: Transport) -> Vec<u8> {
        match step {
            Step::Forward(query) => {
                let answer = match self.forwarder.ask(&query).await {
                    Some(upstream) => wire::relay(&query, &upstream),
                    None => wire::failure(&query, ResponseCode::ServFail),
                };
                wire::write(&query, answer, transport)
            }
            Step::Finish(both) => {
                let (query, mut answer) = *both;
                let target = answer.chase.take();
                let upstream = match target {
                    Some(target) => self.forwarder.resolve(&query, target).await,
                    None => None,
                };
                // Without upstream the alias alone is still true.
                answer.records.extend(upstream.map(|it| it.answers).unwrap_or_default());
                let answer = wire::answer(&query, answer);
                wire::write(&query, answer, transport)
            }
            Step::Send(bytes) => bytes,
            Step::Ignore => Vec::new(),
        }
    }
}

fn overloaded(step: Step) -> Vec<u8> {
    match step {
        Step::Forward(query) => refusal(&query),
        Step::Finish(both) => refusal(&both.0),
        Step::Send(_) | Step::Ignore => Vec::new(),
    }
}

fn refusal(query: &Message) -> Vec<u8> {
    wire::write(query, wire::failure(query, ResponseCode::ServFail), Transport::Udp)
}

async fn reply(socket: &UdpSocket, bytes: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, client).await {
        tracing::debug!(%client, %error, "DNS answer not sent");
    }
}
