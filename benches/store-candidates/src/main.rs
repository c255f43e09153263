//! Measures what an acknowledged, durable write costs: our log against fjall and redb.
//!
//! `cargo run --release -- DIRECTORY SECONDS ROUNDS`
//!
//! Every candidate gets the same: closed-loop writers, 1 KB values over 20,000 keys, one
//! committer that takes what waits (at most 1,024), decides each write against the key's last
//! revision, and makes the batch durable with one `fdatasync` before it answers. The libraries
//! store the value under (key, revision) and the key's last revision in a second table; ours
//! keeps its whole index, history and watch registry. Nothing is compacted on either side except
//! what an engine does by itself. Then the store is dropped and opened again until every key's
//! last value can be read.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fjall::PersistMode;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use skiff_base::{Clock, Random};
use skiff_store::embedded::{EmbeddedStore, Options};
use skiff_store::{Expect, Range, Store};
use tokio::sync::oneshot;

const VALUE_BYTES: usize = 1_024;
const KEYS: u64 = 20_000;
const BATCH_MAX: usize = 1_024;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("a directory on the disk to measure"));
    let seconds: u64 = arguments.next().map_or(5, |text| text.parse().expect("seconds"));
    let rounds: usize = arguments.next().map_or(3, |text| text.parse().expect("rounds"));
    println!("engine  writers   writes/s  p50 ms  p99 ms  max ms  cpu us/write  disk/value  reopen ms  keys/s reopen");
    for _ in 0..rounds {
        for writers in [1, 64] {
            for engine in ["skiff", "fjall", "redb"] {
                let path = directory.join(format!("candidate-{engine}"));
                let _ = std::fs::remove_dir_all(&path);
                std::fs::create_dir_all(&path).expect("create the directory");
                measure(engine, &path, writers, Duration::from_secs(seconds));
                std::fs::remove_dir_all(&path).expect("remove the directory");
            }
        }
    }
}

fn measure(engine: &str, path: &Path, writers: usize, duration: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let cpu = cpu_time();
    let begin = Instant::now();
    let mut latencies = match engine {
        "skiff" => runtime.block_on(skiff(path, writers, duration)),
        "fjall" => runtime.block_on(library(Fjall::open(path), writers, duration)),
        _ => runtime.block_on(library(Redb::open(path), writers, duration)),
    };
    let elapsed = begin.elapsed();
    let cpu = cpu_time() - cpu;
    latencies.sort_unstable();
    let count = latencies.len();
    let at = |share: f64| latencies[((count - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let disk = bytes_in(path) as f64 / (count * VALUE_BYTES) as f64;
    let begin = Instant::now();
    let keys = match engine {
        "skiff" => runtime.block_on(async { Skiff::open(path).range(Range::default()).await.expect("range").count }),
        "fjall" => Fjall::open(path).read_all(),
        _ => Redb::open(path).read_all(),
    };
    let reopen = begin.elapsed();
    println!(
        "{engine:7} {writers:7} {:10.0} {:7.2} {:7.2} {:7.1} {:13.1} {disk:11.2} {:10.0} {:14.0}",
        count as f64 / elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0),
        cpu.as_secs_f64() * 1e6 / count as f64,
        reopen.as_secs_f64() * 1e3,
        keys as f64 / reopen.as_secs_f64(),
    );
}

fn key(writer: usize, step: u64) -> String {
    // Every writer has keys of its own, spread over the whole range.
    let number = (step.wrapping_mul(7_919) % (KEYS / 64)) * 64 + writer as u64;
    format!("c0ffee/registry/core/pods/namespace-{}/application-{number:08}", number % 50)
}

fn value(step: u64) -> Vec<u8> {
    // Not compressible, as little of an object is after its field names: fjall compresses.
    let mut state = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(VALUE_BYTES);
    while bytes.len() < VALUE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

struct Skiff;

impl Skiff {
    fn open(path: &Path) -> EmbeddedStore {
        EmbeddedStore::open(path, Options::new(Clock::system(), Random::system())).expect("open")
    }
}

async fn skiff(path: &Path, writers: usize, duration: Duration) -> Vec<Duration> {
    let store = Arc::new(Skiff::open(path));
    let writing = store.clone();
    let latencies = run(writers, duration, move |key, value| {
        let store = writing.clone();
        async move {
            store.put(key.into(), value.into(), Expect::Any, None).await.expect("put");
        }
    })
    .await;
    store.close().await;
    latencies
}

/// A library under a committer.
trait Library: Send + 'static {
    fn commit(&mut self, batch: &[(String, Vec<u8>, u64)]);
}

async fn library(mut library: impl Library, writers: usize, duration: Duration) -> Vec<Duration> {
    type Request = (String, Vec<u8>, oneshot::Sender<u64>);
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Request>(4_096);
    let committer = std::thread::spawn(move || {
        let mut last: HashMap<String, u64> = HashMap::new();
        let mut revision = 1;
        let mut requests = Vec::new();
        while receiver.blocking_recv_many(&mut requests, BATCH_MAX) > 0 {
            let mut replies = Vec::with_capacity(requests.len());
            let mut batch = Vec::with_capacity(requests.len());
            for (key, value, reply) in requests.drain(..) {
                revision += 1;
                last.insert(key.clone(), revision);
                replies.push((reply, revision));
                batch.push((key, value, revision));
            }
            library.commit(&batch);
            for (reply, revision) in replies {
                let _ = reply.send(revision);
            }
        }
    });
    let latencies = run(writers, duration, move |key, value| {
        let sender = sender.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            sender.send((key, value, reply)).await.expect("the committer lives");
            answer.await.expect("an answer");
        }
    })
    .await;
    committer.join().expect("the committer ends");
    latencies
}

async fn run<F>(
    writers: usize,
    duration: Duration,
    put: impl Fn(String, Vec<u8>) -> F + Clone + Send + 'static,
) -> Vec<Duration>
where
    F: Future<Output = ()> + Send + 'static,
{
    let is_over = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let (is_over, put) = (is_over.clone(), put.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            for step in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let begin = Instant::now();
                put(key(writer, step), value(step)).await;
                latencies.push(begin.elapsed());
            }
            latencies
        });
    }
    tokio::time::sleep(duration).await;
    is_over.store(true, Ordering::Relaxed);
    tasks.join_all().await.concat()
}

struct Fjall {
    database: fjall::Database,
    values: fjall::Keyspace,
    index: fjall::Keyspace,
}

impl Fjall {
    fn open(path: &Path) -> Self {
        let database = fjall::Database::builder(path).open().expect("open");
        let keyspace = |name| database.keyspace(name, fjall::KeyspaceCreateOptions::default).expect("keyspace");
        let (values, index) = (keyspace("values"), keyspace("index"));
        Self { database, values, index }
    }

    fn read_all(&self) -> usize {
        let mut count = 0;
        for guard in self.index.iter() {
            let (key, revision) = guard.into_inner().expect("read");
            let name = [key.as_ref(), revision.as_ref()].concat();
            count += usize::from(self.values.get(name).expect("read").is_some());
        }
        count
    }
}

impl Library for Fjall {
    fn commit(&mut self, batch: &[(String, Vec<u8>, u64)]) {
        let mut write = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, value, revision) in batch {
            let revision = revision.to_be_bytes();
            write.insert(&self.values, [key.as_bytes(), &revision].concat(), value.as_slice());
            write.insert(&self.index, key.as_str(), revision);
        }
        write.commit().expect("commit");
    }
}

const VALUES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("values");
const INDEX: TableDefinition<'_, &str, u64> = TableDefinition::new("index");

struct Redb(redb::Database);

impl Redb {
    fn open(path: &Path) -> Self {
        Self(redb::Database::create(path.join("redb")).expect("open"))
    }

    fn read_all(&self) -> usize {
        let read = self.0.begin_read().expect("read");
        let values = read.open_table(VALUES).expect("table");
        let index = read.open_table(INDEX).expect("table");
        let has_value = |entry: redb::AccessGuard<'_, &str>, revision: redb::AccessGuard<'_, u64>| {
            values.get((entry.value(), revision.value())).expect("read").is_some()
        };
        index.iter().expect("read").flatten().filter_map(|(key, revision)| has_value(key, revision).then_some(())).count()
    }
}

impl Library for Redb {
    fn commit(&mut self, batch: &[(String, Vec<u8>, u64)]) {
        let write = self.0.begin_write().expect("begin");
        {
            let mut values = write.open_table(VALUES).expect("table");
            let mut index = write.open_table(INDEX).expect("table");
            for (key, value, revision) in batch {
                values.insert((key.as_str(), *revision), value.as_slice()).expect("insert");
                index.insert(key.as_str(), *revision).expect("insert");
            }
        }
        write.commit().expect("commit");
    }
}

fn bytes_in(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).expect("list").flatten();
    entries
        .map(|entry| {
            let data = entry.metadata().expect("metadata");
            if data.is_dir() { bytes_in(&entry.path()) } else { data.len() }
        })
        .sum()
}

fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is valid for a write of one rusage, which the call fills.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
