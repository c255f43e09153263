//! Names of the rest of the world: asked of the host's name servers, kept for a short time.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use parking_lot::Mutex;
use skiff_base::{Clock, Random};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

use super::{Counters, PORT};

/// One server's time to answer; resolvers in pods give up after five seconds.
const SERVER_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Every server is asked this often.
const ROUNDS: usize = 2;
/// As many as the C library takes.
const SERVERS_MAX: usize = 3;
/// How often the host's list of servers is looked at again.
const SERVERS_RECHECK: Duration = Duration::from_secs(5);
/// Answers kept; the oldest to expire makes room.
const CACHE_ENTRIES_MAX: usize = 4_096;
/// Answers are kept no longer, as with upstream's default.
const CACHE_SECONDS_MAX: u32 = 30;
/// A datagram's largest payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Asks upstream servers. Runs in the process's own namespace, the host's.
pub(super) struct Forwarder {
    servers: Servers,
    cache: Mutex<Cache>,
    clock: Clock,
    random: Random,
    counters: Arc<Counters>,
}

type Question = (Name, RecordType, bool);

impl Forwarder {
    /// Servers are read from `resolv_conf`; `ours` are addresses that lead back to us.
    pub(super) fn new(
        resolv_conf: PathBuf,
        ours: Vec<IpAddr>,
        clock: Clock,
        random: Random,
        counters: Arc<Counters>,
    ) -> Self {
        let servers = Servers { path: resolv_conf, ours, known: Mutex::new((None, Vec::new())) };
        Self { servers, cache: Mutex::default(), clock, random, counters }
    }

    /// The answer kept for this question, its lifetimes reduced by its age.
    pub(super) fn cached(&self, query: &Message) -> Option<Message> {
        let found = self.cache.lock().get(&question(query)?, self.clock.instant())?;
        Counters::count(&self.counters.cached);
        Some(found)
    }

    /// Asks one server after the other. None when nobody answers.
    pub(super) async fn ask(&self, query: &Message) -> Option<Message> {
        Counters::count(&self.counters.forwarded);
        let servers = self.servers.current(self.clock.instant());
        for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
            match tokio::time::timeout(SERVER_TIMEOUT, self.exchange(*server, query)).await {
                Ok(Ok(answer)) if answer.metadata.response_code != ResponseCode::ServFail => {
                    self.keep(query, &answer);
                    return Some(answer);
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%server, %error, "name server failed"),
                Err(_) => tracing::debug!(%server, "name server did not answer in time"),
            }
        }
        Counters::count(&self.counters.failed);
        None
    }

    /// The records of another name, for the end of an alias.
    pub(super) async fn resolve(&self, query: &Message, target: Name) -> Option<Message> {
        let mut other = Message::new(query.metadata.id, MessageType::Query, OpCode::Query);
        other.metadata.recursion_desired = true;
        let kind = query.queries.first()?.query_type();
        other.add_query(Query::query(target, kind));
        match self.cached(&other) {
            Some(answer) => Some(answer),
            None => self.ask(&other).await,
        }
    }

    async fn exchange(&self, server: SocketAddr, query: &Message) -> std::io::Result<Message> {
        let mut query = query.clone();
        query.metadata.id = self.random.below(1 << 16) as u16;
        let bytes = query.to_vec().map_err(invalid)?;
        let local: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::from([0_u16; 8]) };
        // A socket of its own gives every query an unpredictable port.
        let socket = UdpSocket::bind((local, 0)).await?;
        socket.connect(server).await?;
        socket.send(&bytes).await?;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let length = socket.recv(&mut buffer).await?;
            match Message::from_vec(&buffer[..length]) {
                Ok(answer) if answers(&query, &answer) => {
                    if answer.metadata.truncation {
                        return self.exchange_tcp(server, &query, &bytes).await;
                    }
                    return Ok(answer);
                }
                // Somebody else's answer, late or forged: wait for ours.
                _ => {}
            }
        }
    }

    async fn exchange_tcp(&self, server: SocketAddr, query: &Message, bytes: &[u8]) -> std::io::Result<Message> {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(bytes.len()).map_err(invalid)?;
        stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
        let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut buffer).await?;
        let answer = Message::from_vec(&buffer).map_err(invalid)?;
        if answers(query, &answer) { Ok(answer) } else { Err(invalid("the answer is to another question")) }
    }

    fn keep(&self, query: &Message, answer: &Message) {
        let lifetime = match answer.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => lifetime_seconds(answer),
            _ => None,
        };
        if let (Some(question), Some(seconds @ 1..)) = (question(query), lifetime) {
            let now = self.clock.instant();
            self.cache.lock().put(question, answer.clone(), now, now + Duration::from_secs(u64::from(seconds)));
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, error)
}

fn answers(query: &Message, answer: &Message) -> bool {
    answer.metadata.id == query.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == query.queries
}

fn question(query: &Message) -> Option<Question> {
    let asked = query.queries.first()?;
    let with_signatures = query.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    Some((asked.name().to_lowercase(), asked.query_type(), with_signatures))
}

/// The shortest lifetime of the records; of an empty answer what its zone says (RFC 2308).
fn lifetime_seconds(answer: &Message) -> Option<u32> {
    let negative = |ttl: u32, data: &RData| match data {
        RData::SOA(start) => Some(start.minimum.min(ttl)),
        _ => None,
    };
    let shortest = if answer.answers.is_empty() {
        answer.authorities.iter().find_map(|it| negative(it.ttl, &it.data))
    } else {
        answer.answers.iter().map(|it| it.ttl).min()
    };
    shortest.map(|seconds| seconds.min(CACHE_SECONDS_MAX))
}

#[derive(Default)]
struct Cache {
    entries: HashMap<Question, Kept>,
    /// The same by expiry; the number keeps equal times apart.
    order: BTreeSet<(Instant, u64)>,
    names: HashMap<u64, Question>,
    next: u64,
}

struct Kept {
    answer: Message,
    since: Instant,
    until: Instant,
    number: u64,
}

impl Cache {
    fn get(&self, question: &Question, now: Instant) -> Option<Message> {
        let kept = self.entries.get(question).filter(|kept| kept.until > now)?;
        let age = u32::try_from((now - kept.since).as_secs()).unwrap_or(u32::MAX);
        let mut answer = kept.answer.clone();
        let records = answer.answers.iter_mut().chain(&mut answer.authorities).chain(&mut answer.additionals);
        for record in records {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(answer)
    }

    fn put(&mut self, question: Question, answer: Message, since: Instant, until: Instant) {
        self.remove(&question);
        while self.entries.len() >= CACHE_ENTRIES_MAX {
            let Some((_, number)) = self.order.pop_first() else { break };
            if let Some(oldest) = self.names.remove(&number) {
                self.entries.remove(&oldest);
            }
        }
        let number = self.next;
        self.next += 1;
        self.order.insert((until, number));
        self.names.insert(number, question.clone());
        self.entries.insert(question, Kept { answer, since, until, number });
    }

    fn remove(&mut self, question: &Question) {
        if let Some(kept) = self.entries.remove(question) {
            self.order.remove(&(kept.until, kept.number));
            self.names.remove(&kept.number);
        }
    }
}

struct Servers {
    path: PathBuf,
    ours: Vec<IpAddr>,
    known: Mutex<(Option<Instant>, Vec<SocketAddr>)>,
}

impl Servers {
    fn current(&self, now: Instant) -> Vec<SocketAddr> {
        let mut known = self.known.lock();
        if known.0.is_none_or(|checked| now - checked >= SERVERS_RECHECK) {
            *known = (Some(now), self.read(&self.path));
        }
        known.1.clone()
    }

    fn read(&self, path: &Path) -> Vec<SocketAddr> {
        match std::fs::read_to_string(path) {
            Ok(text) => name_servers(&text, &self.ours),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no list of upstream name servers");
                Vec::new()
            }
        }
    }
}

/// The `nameserver` lines, without those that lead back to us: asking ourselves would go round
/// until every slot is taken. `ADDRESS#PORT`, as some resolvers write, names another port.
fn name_servers(text: &str, ours: &[IpAddr]) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next()).flatten()?;
        let (address, port) = address.split_once('#').unwrap_or((address, ""));
        let port = if port.is_empty() { PORT } else { port.parse().ok()? };
        Some(SocketAddr::new(address.parse().ok()?, port))
    });
    servers.filter(|server| !ours.contains(&server.ip())).take(SERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_addresses_are_no_upstream() {
        let text = "# comment\nsearch lan\nnameserver 10.89.0.2\nnameserver 192.0.2.53\nnameserver 127.0.0.1#5353\nnameserver x\n";
        let servers = name_servers(text, &["10.89.0.2".parse().unwrap()]);
        assert_eq!(servers, ["192.0.2.53:53".parse().unwrap(), "127.0.0.1:5353".parse().unwrap()]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_cache_ages_and_stays_within_its_bound() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let question = |number: usize| (Name::from_ascii(format!("n{number}.")).unwrap(), RecordType::A, false);
        let mut answer = Message::response(1, OpCode::Query);
        answer.add_answer(hickory_proto::rr::Record::from_rdata(
            Name::from_ascii("n.").unwrap(),
            20,
            RData::A(hickory_proto::rr::rdata::A::new(1, 2, 3, 4)),
        ));
        for number in 0..CACHE_ENTRIES_MAX + 10 {
            cache.put(question(number), answer.clone(), now, now + Duration::from_secs(20 + number as u64));
        }
        assert_eq!((cache.entries.len(), cache.order.len(), cache.names.len()), (4_096, 4_096, 4_096));
        assert!(cache.get(&question(0), now).is_none());
        let kept = cache.get(&question(50), now + Duration::from_secs(7)).unwrap();
        assert_eq!(kept.answers[0].ttl, 13);
        assert!(cache.get(&question(50), now + Duration::from_secs(70)).is_none());
    }
}
