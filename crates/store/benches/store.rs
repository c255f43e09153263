//! What the store and its watch cache cost: `cargo bench -p skiff-store`.
//!
//! Durable puts at 1 and 64 writers, ranges, watch fan-out to 1,000 watchers, the index; and before these,
//! measured once and printed: CPU per write, memory per object, and the time to open a store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use skiff_base::{Clock, Random, Shutdown, Tasks};
use skiff_store::cache::{Cache, Scope, Wanted};
use skiff_store::embedded::{EmbeddedStore, Options};
use skiff_store::memory::MemoryStore;
use skiff_store::{Entry, Expect, Range, Store};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

const VALUE_BYTES: usize = 1_024;
const WATCHERS: usize = 1_000;

fn main() {
    // First: what is measured of the process's memory must not stand on what others freed.
    if std::env::args().any(|argument| argument == "--bench") {
        figures();
    }
    let mut criterion =
        Criterion::default().sample_size(10).measurement_time(Duration::from_secs(3)).configure_from_args();
    puts(&mut criterion);
    ranges(&mut criterion);
    fan_out(&mut criterion);
    index(&mut criterion);
    criterion.final_summary();
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, Options::new(Clock::system(), Random::system())).expect("open")
}

fn key(number: usize) -> Bytes {
    format!("c0ffee/registry/core/pods/namespace-{}/application-{number:08}", number % 50).into()
}

fn value(number: usize) -> Bytes {
    vec![number as u8; VALUE_BYTES].into()
}

async fn put(store: &dyn Store, number: usize) {
    store.put(key(number), value(number), Expect::Any, None).await.expect("put");
}

/// `count` puts by `writers` tasks.
async fn put_all(store: &Arc<EmbeddedStore>, tasks: &Tasks, writers: usize, count: usize) {
    let (done, mut all) = mpsc::channel::<()>(1);
    for writer in 0..writers {
        let (store, done) = (store.clone(), done.clone());
        tasks.spawn("writer", async move {
            for number in (writer..count).step_by(writers) {
                put(store.as_ref(), number).await;
            }
            drop(done);
        });
    }
    drop(done);
    let _ = all.recv().await;
}

fn puts(criterion: &mut Criterion) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let directory = TempDir::new_in(".").expect("a directory on a disk");
    let store = Arc::new(open(directory.path()));
    let tasks = Tasks::new("bench", Shutdown::new());
    let mut group = criterion.benchmark_group("durable put");
    for (writers, count) in [(1, 100), (64, 6_400)] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{writers} writers"), |bencher| {
            bencher.iter(|| runtime.block_on(put_all(&store, &tasks, writers, count)));
        });
    }
    group.finish();
    runtime.block_on(store.close());
}

fn ranges(criterion: &mut Criterion) {
    let runtime = runtime();
    let store = MemoryStore::new(Clock::system());
    runtime.block_on(async {
        for number in 0..10_000 {
            put(&store, number).await;
        }
    });
    let mut group = criterion.benchmark_group("range");
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("10,000 entries", |bencher| {
        bencher.iter(|| runtime.block_on(store.range(Range::default())).expect("range").entries.len());
    });
    group.finish();
}

/// One core: the store, the cache and all watchers on one thread.
fn fan_out(criterion: &mut Criterion) {
    const CHANGES: usize = 200;
    let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
    let _entered = runtime.enter();
    let store = Arc::new(MemoryStore::new(Clock::system()));
    let tasks = Tasks::new("bench", Shutdown::new());
    let cache = Cache::new(store.clone(), "c0ffee/".into(), Entry::clone, Clock::system(), &tasks);
    let (sender, mut delivered) = mpsc::channel::<()>(WATCHERS);
    runtime.block_on(async {
        for _ in 0..WATCHERS {
            let mut watcher = cache.watch(Scope::prefix(b"c0ffee/"), 1).await.expect("watch");
            let sender = sender.clone();
            tasks.spawn("watcher", async move {
                for count in 1.. {
                    watcher.next().await.expect("a change");
                    if count % CHANGES == 0 {
                        sender.send(()).await.expect("the bench goes on");
                    }
                }
            });
        }
    });
    let mut group = criterion.benchmark_group("watch fan-out");
    group.throughput(Throughput::Elements((WATCHERS * CHANGES) as u64));
    group.bench_function("1,000 watchers", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                for number in 0..CHANGES {
                    put(store.as_ref(), number).await;
                    // One by one, the hard case: every change wakes every watcher.
                    tokio::task::yield_now().await;
                }
                for _ in 0..WATCHERS {
                    delivered.recv().await;
                }
            });
        });
    });
    group.finish();
}

/// Snapshots, and what is found by an index, of 100,000 items.
fn index(criterion: &mut Criterion) {
    const ITEMS: usize = 100_000;
    let runtime = runtime();
    let _entered = runtime.enter();
    let store = Arc::new(MemoryStore::new(Clock::system()));
    let tasks = Tasks::new("bench", Shutdown::new());
    let labels = |entry: &Entry, tell: &mut dyn FnMut(&str, &str)| {
        let number = entry.create_revision.to_string();
        tell("own", &number);
        tell("app", &number[number.len().saturating_sub(2)..]);
    };
    let cache = Cache::with_labels(store.clone(), "c0ffee/".into(), Entry::clone, labels, Clock::system(), &tasks);
    let wanted = |key: &str, value: &str| [Wanted::Label { key: key.into(), values: vec![value.into()] }];
    let snapshot = runtime.block_on(async {
        for number in 0..ITEMS {
            put(store.as_ref(), number).await;
        }
        let snapshot = cache.current().await.expect("a snapshot");
        while cache.candidates(&snapshot, &wanted("own", "none")).is_none() {
            tokio::task::yield_now().await;
        }
        snapshot
    });
    let mut group = criterion.benchmark_group("watch cache of 100,000");
    group.bench_function("snapshot", |bencher| bencher.iter(|| runtime.block_on(cache.current()).expect("a snapshot")));
    for (name, key, value) in [("nothing", "own", "none"), ("one", "own", "777"), ("a hundredth", "app", "77")] {
        let wanted = wanted(key, value);
        group.bench_function(format!("find {name}"), |bencher| bencher.iter(|| cache.candidates(&snapshot, &wanted)));
    }
    group.finish();
}

/// What is a single number.
fn figures() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let directory = TempDir::new_in(".").expect("a directory on a disk");
    let tasks = Tasks::new("bench", Shutdown::new());
    const OBJECTS: usize = 200_000;
    let store = Arc::new(open(directory.path()));
    let before = (resident_bytes(), cpu_time());
    let begin = Clock::system().instant();
    runtime.block_on(put_all(&store, &tasks, 256, OBJECTS));
    println!(
        "{OBJECTS} durable creates by 256 writers: {:.0}/s, {:.1} us CPU each",
        OBJECTS as f64 / begin.elapsed().as_secs_f64(),
        (cpu_time() - before.1).as_secs_f64() * 1e6 / OBJECTS as f64
    );
    let encoded = OBJECTS * (key(0).len() + VALUE_BYTES);
    let ratio = |now: usize| (now - before.0) as f64 / encoded as f64;
    println!("memory: {:.2} of the encoded size in the store", ratio(resident_bytes()));
    let cache = Cache::new(store.clone(), "c0ffee/".into(), Entry::clone, Clock::system(), &tasks);
    runtime.block_on(cache.current()).expect("list");
    println!("memory: {:.2} of the encoded size in store and watch cache", ratio(resident_bytes()));
    runtime.block_on(store.close());
    drop((cache, store));
    let begin = Clock::system().instant();
    let store = open(directory.path());
    println!("opened in {:.0} ms: {:?}", begin.elapsed().as_secs_f64() * 1e3, store.recovery());
    runtime.block_on(store.close());
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    // USER_HZ is 100 on every Linux that Rust runs on.
    Duration::from_millis(ticks * 10)
}
