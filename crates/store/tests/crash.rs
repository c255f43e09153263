//! What the embedded engine keeps when the power, the process or the disk fails.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use skiff_base::{Clock, Random, Timestamp};
use skiff_store::embedded::simulated_disk::SimulatedDisk;
use skiff_store::embedded::{EmbeddedStore, OpenError, Options};
use skiff_store::suite::Subject;
use skiff_store::{Error, Expect, Range, Revision, Store};
use tempfile::TempDir;

const WRITERS: usize = 16;

fn options(snapshot_log_bytes_min: u64) -> Options {
    let clock = Clock::simulated(Timestamp::from_secs(1_000));
    Options { snapshot_log_bytes_min, log_ahead_bytes: 2_000, ..Options::new(clock, Random::seeded(9)) }
}

fn open(disk: &SimulatedDisk, snapshot_log_bytes_min: u64) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open_on(Arc::new(disk.clone()), options(snapshot_log_bytes_min))
}

/// What writers know: of each key the last acknowledged value and the one under way.
#[derive(Clone, Debug, Default)]
struct Known {
    acknowledged: u64,
    under_way: u64,
    revision: Revision,
}

type Ledger = Mutex<BTreeMap<String, Known>>;

/// Writes rising numbers under one key until the store refuses.
async fn write_until_failure(store: &EmbeddedStore, ledger: &Ledger, writer: usize, on_ack: impl Fn(&str, &Known)) {
    for step in 0.. {
        let key = format!("{writer}/{}", step % 5);
        let known = ledger.lock().entry(key.clone()).or_default().clone();
        let value = known.acknowledged.max(known.under_way) + 1;
        ledger.lock().entry(key.clone()).or_default().under_way = value;
        let bytes = Bytes::from(format!("{value:0width$}", width = 20 + writer * 37));
        match store.put(key.clone().into(), bytes, Expect::Any, None).await {
            Ok(put) => {
                assert!(put.entry.mod_revision > known.revision, "revisions grow");
                let known = Known { acknowledged: value, under_way: value, revision: put.entry.mod_revision };
                on_ack(&key, &known);
                ledger.lock().insert(key, known);
            }
            Err(Error::Unavailable(_)) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Nothing acknowledged is missing; then the ledger is brought to what was found.
async fn verify(store: &EmbeddedStore, ledger: &Ledger) {
    let all = store.range(Range::default()).await.unwrap();
    let found: BTreeMap<String, (u64, Revision)> = all
        .entries
        .iter()
        .map(|entry| {
            let value: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
            (String::from_utf8(entry.key.to_vec()).unwrap(), (value, entry.mod_revision))
        })
        .collect();
    let mut ledger = ledger.lock();
    for (key, known) in ledger.iter_mut() {
        let (value, revision) = found.get(key).copied().unwrap_or_default();
        assert!(value >= known.acknowledged, "{key} was acknowledged at {} and is {value}", known.acknowledged);
        assert!(value <= known.under_way, "{key} was never written as {value}");
        assert!(revision >= known.revision && store.revision() >= known.revision, "revisions only grow");
        *known = Known { acknowledged: value, under_way: known.under_way, revision };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_moment_loses_nothing_acknowledged() {
    let seed = Random::system().next_u64();
    println!("seed {seed}");
    let random = Random::seeded(seed);
    for case in 0..15 {
        println!("case {case}");
        let ledger = Ledger::default();
        let mut disk = SimulatedDisk::new();
        for _ in 0..6 {
            disk.cut_power_after(random.below(400));
            let Ok(store) = open(&disk, 4_000) else {
                disk = disk.after_power_cut(&random);
                continue;
            };
            verify(&store, &ledger).await;
            join_all((0..WRITERS).map(|writer| write_until_failure(&store, &ledger, writer, |_, _| {}))).await;
            disk = disk.after_power_cut(&random);
        }
        let store = open(&disk, 4_000).unwrap();
        verify(&store, &ledger).await;
    }
}

/// After each acknowledged operation the power may be cut, and the store is as it was.
struct PowerCutSubject {
    disk: SimulatedDisk,
    random: Random,
    store: Arc<EmbeddedStore>,
}

#[async_trait]
impl Subject for PowerCutSubject {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn reopen(&mut self) {
        self.disk = self.disk.after_power_cut(&self.random);
        self.store = Arc::new(open(&self.disk, 600).unwrap());
    }
}

skiff_store::suite!(contract_with_power_cuts, || async {
    let disk = SimulatedDisk::new();
    let store = Arc::new(open(&disk, 600).unwrap());
    PowerCutSubject { disk, random: Random::system(), store }
});

const SEGMENT: &str = "0000000000000001.log";

/// A disk with three batches, and where each ends in the log.
async fn three_batches(log_ahead_bytes: u64) -> (SimulatedDisk, [usize; 3]) {
    let disk = SimulatedDisk::new();
    let options = Options { log_ahead_bytes, ..options(1 << 20) };
    let store = EmbeddedStore::open_on(Arc::new(disk.clone()), options).unwrap();
    let mut ends = [0; 3];
    for (batch, end) in ends.iter_mut().enumerate() {
        let value = Bytes::from(vec![b'a' + batch as u8; 20 + batch]);
        store.put(format!("k{batch}").into(), value, Expect::Absent, None).await.unwrap();
        // A value ends a frame, and no value ends with a zero.
        disk.tamper(SEGMENT, |bytes| {
            *end = (bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1).next_multiple_of(8);
        });
    }
    store.close().await;
    (disk, ends)
}

async fn keys(store: &EmbeddedStore) -> usize {
    store.range(Range::default()).await.unwrap().count
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_dropped_and_reported() {
    let (disk, [_, start, end]) = three_batches(0).await;
    let (disk_ahead, ends) = three_batches(4_096).await;
    assert_eq!(ends[1..], [start, end]);
    for (disk, cut) in (start..end).flat_map(|cut| [(&disk, cut), (&disk_ahead, cut)]) {
        let torn = disk.copy();
        let is_ahead = torn.bytes() > end;
        assert!(torn.tamper(SEGMENT, |bytes| if is_ahead { bytes[cut..].fill(0) } else { bytes.truncate(cut) }));
        let store = open(&torn, 1 << 20).unwrap();
        let dropped = store.recovery().dropped.clone();
        // Frames are padded to eight bytes; one that lacks nothing else is whole.
        let found = keys(&store).await;
        assert!(found == 2 || (found == 3 && end - cut < 8), "cut at {cut}");
        if let Some(dropped) = dropped {
            assert_eq!((dropped.file.as_str(), dropped.offset), (SEGMENT, start as u64));
            // Zeros at the end of what is left cannot be told from those that were there.
            assert!(dropped.bytes <= (cut - start) as u64 && found == 2);
        }
        let put = store.put("after".into(), "v".into(), Expect::Absent, None).await.unwrap();
        assert_eq!(put.entry.mod_revision, found as u64 + 2, "the revision of a dropped write is free");
        store.close().await;
        assert_eq!(keys(&open(&torn, 1 << 20).unwrap()).await, found + 1);
    }
}

#[tokio::test]
async fn damage_at_any_byte_is_dropped_at_the_end_and_an_error_before() {
    let (disk, [_, start, end]) = three_batches(0).await;
    for position in 0..end {
        let damaged = disk.copy();
        assert!(damaged.tamper(SEGMENT, |bytes| bytes[position] ^= 0x55));
        match open(&damaged, 1 << 20) {
            // Padding and reserved bytes carry nothing.
            Ok(store) if store.recovery().dropped.is_none() => assert_eq!(keys(&store).await, 3, "at {position}"),
            Ok(store) => {
                assert!(position >= start, "acknowledged writes were dropped for damage at {position}");
                assert_eq!(keys(&store).await, 2);
            }
            Err(OpenError::Corrupt { file, offset, .. }) => {
                assert!(position < start && file == SEGMENT && offset <= position as u64, "at {position}");
                assert_eq!(damaged.bytes(), end, "nothing is changed");
            }
            Err(error) => panic!("at {position}: {error}"),
        }
    }
}

#[tokio::test]
async fn damage_in_a_snapshot_or_a_missing_file_is_an_error() {
    let disk = SimulatedDisk::new();
    let store = open(&disk, 300).unwrap();
    for index in 0..20 {
        store.put(format!("k{index}").into(), vec![7; 50].into(), Expect::Absent, None).await.unwrap();
    }
    store.close().await;
    let files = skiff_store::embedded::disk::Disk::list(&disk).unwrap();
    let snapshot = files.iter().find(|name| name.ends_with(".snapshot")).expect("a snapshot was written");
    let mut length = 0;
    assert!(disk.tamper(snapshot, |bytes| length = bytes.len()));
    for position in 0..length {
        let damaged = disk.copy();
        damaged.tamper(snapshot, |bytes| bytes[position] ^= 0x55);
        match open(&damaged, 300) {
            Ok(store) => assert_eq!(keys(&store).await, 20, "at {position}"),
            Err(error) => assert!(error.to_string().starts_with(snapshot.as_str()), "at {position}: {error}"),
        }
    }
    for name in files {
        let damaged = disk.copy();
        skiff_store::embedded::disk::Disk::remove(&damaged, &name).unwrap();
        let opened = open(&damaged, 300);
        assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "without {name}: {opened:?}");
    }
}

#[tokio::test]
async fn a_newer_format_is_named() {
    let (disk, _) = three_batches(0).await;
    disk.tamper(SEGMENT, |bytes| bytes[8] = 3);
    let error = open(&disk, 300).unwrap_err().to_string();
    assert!(error.contains("its format has version 3, this program reads up to version 2"), "{error}");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_recovers() {
    let disk = SimulatedDisk::new();
    let options = Options { log_ahead_bytes: 0, ..options(2_000) };
    let store = EmbeddedStore::open_on(Arc::new(disk.clone()), options).unwrap();
    let put = |key: &'static str, size: usize| store.put(key.into(), vec![7; size].into(), Expect::Any, None);
    put("a", 100).await.unwrap();
    disk.limit_bytes(Some(disk.bytes() + 150));
    for _ in 0..3 {
        assert!(matches!(put("b", 500).await, Err(Error::Unavailable(_))));
        assert_eq!(store.get(b"b", None).await.unwrap().entry, None);
    }
    assert_eq!(put("c", 20).await.unwrap().entry.mod_revision, 3, "a small write still fits");
    assert!(matches!(put("b", 2_500).await, Err(Error::Unavailable(_))));
    disk.limit_bytes(None);
    assert_eq!(put("b", 2_500).await.unwrap().entry.mod_revision, 4);
    put("d", 1).await.unwrap();
    let image = disk.after_power_cut(&Random::seeded(1));
    let store = open(&image, 2_000).unwrap();
    assert_eq!((keys(&store).await, store.revision()), (4, 5));
}

#[tokio::test]
async fn a_failed_sync_stops_all_writes_until_the_store_is_opened_again() {
    let disk = SimulatedDisk::new();
    let store = open(&disk, 1 << 20).unwrap();
    let put = |key: &'static str| store.put(key.into(), "v".into(), Expect::Any, None);
    put("a").await.unwrap();
    disk.fail_syncs(1);
    for _ in 0..2 {
        match put("b").await {
            Err(Error::Unavailable(message)) => assert!(message.contains("until the store is opened again")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.get(b"b", None).await.unwrap().entry, None, "not visible either");
    drop(store);
    let store = open(&disk.after_power_cut(&Random::seeded(2)), 1 << 20).unwrap();
    assert!(store.get(b"a", None).await.unwrap().entry.is_some());
    store.put("b".into(), "v".into(), Expect::Any, None).await.unwrap();
}

const CHILD_DIRECTORY: &str = "SKIFF_STORE_CRASH_DIRECTORY";

/// Not a test by itself: the process that is killed. It tells on standard output what was
/// acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_is_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let store = EmbeddedStore::open(directory.as_ref(), options(256 << 10)).unwrap();
    let ledger = Ledger::default();
    for entry in store.range(Range::default()).await.unwrap().entries {
        let value: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
        let known = Known { acknowledged: value, under_way: value, revision: entry.mod_revision };
        ledger.lock().insert(String::from_utf8(entry.key.to_vec()).unwrap(), known);
    }
    let tell = |key: &str, known: &Known| {
        let line = format!("acknowledged {key} {} {}\n", known.acknowledged, known.revision);
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    };
    join_all((0..WRITERS).map(|writer| write_until_failure(&store, &ledger, writer, tell))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_acknowledged() {
    const ROUNDS: usize = 12;
    let directory = TempDir::new().unwrap();
    let random = Random::system();
    let mut acknowledged: BTreeMap<String, (u64, Revision)> = BTreeMap::new();
    let mut total = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let deadline = Duration::from_millis(50 + random.below(150));
        let killer = std::thread::spawn(move || {
            // The moment is the point of the test, not something to wait for.
            std::thread::sleep(deadline);
            child.kill().unwrap();
            child.wait().unwrap();
        });
        for line in output.lines().map_while(Result::ok) {
            let mut words = line.split(' ').skip_while(|word| !word.ends_with("acknowledged")).skip(1);
            let (Some(key), Some(value), Some(revision)) = (words.next(), words.next(), words.next()) else { continue };
            // The last line may be cut off; a shorter number is a smaller claim.
            let claim = (value.parse().unwrap_or(0), revision.parse().unwrap_or(0));
            let known = acknowledged.entry(key.to_owned()).or_default();
            *known = (*known).max(claim);
            total += 1;
        }
        killer.join().unwrap();
        let store = EmbeddedStore::open(directory.path(), options(256 << 10)).unwrap();
        for (key, (value, revision)) in &acknowledged {
            let entry = store.get(key.as_bytes(), None).await.unwrap().entry;
            let entry = entry.unwrap_or_else(|| panic!("round {round}: {key} is gone"));
            let found: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
            assert!(found >= *value && entry.mod_revision >= *revision, "round {round}: {key} went back");
        }
        store.close().await;
    }
    assert!(total > 100, "only {total} writes were acknowledged at all");
    println!("{total} acknowledged writes survived {ROUNDS} kills");
}
