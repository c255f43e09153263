//! Levels under simulated time, and on several threads.

use std::time::Duration;

use skiff_base::{Shutdown, Timestamp};

use super::level::Rejected;
use super::queues::Work;
use super::stats::Refusal;
use super::*;

fn control(total: usize) -> FlowControl {
    let limits = Limits { inflight_max: total, mutating_inflight_max: 0, ..Limits::default() };
    let clock = Clock::simulated(Timestamp::from_secs(1_000));
    FlowControl::new(&Settings::default(), &limits, clock, Tasks::new("test", Shutdown::new()))
}

fn object(name: &str, spec: &str) -> Object {
    let spec = skiff_object::json::decode_untyped(spec.as_bytes()).unwrap();
    Object { name: name.into(), uid: format!("uid-of-{name}"), spec }
}

fn level(name: &str, shares: u32, queues: usize, length: usize) -> Object {
    object(
        name,
        &format!(
            r#"{{"type":"Limited","limited":{{"nominalConcurrencyShares":{shares},"lendablePercent":0,
            "borrowingLimitPercent":0,"limitResponse":{{"type":"Queue",
            "queuing":{{"queues":{queues},"handSize":1,"queueLengthLimit":{length}}}}}}}}}"#
        ),
    )
}

fn named(control: &FlowControl, name: &str) -> Arc<Level> {
    let table = control.table.load();
    table.levels.iter().find(|level| level.name == name).map(Arc::clone).unwrap()
}

fn stats() -> Arc<SchemaStats> {
    Arc::new(SchemaStats::new("level", "schema"))
}

const FLOW: Flow<'_> = Flow { name: "", hash: 1 };
const LONG: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn seats_are_taken_and_given_back_and_waiters_go_in_order() {
    let control = control(15);
    // catch-all has 5 shares
    control.configure(&[level("x", 10, 1, 2)], &[]);
    let (x, stats) = (named(&control, "x"), stats());
    assert_eq!(x.limit(), 10);
    let mut seats = Vec::new();
    for _ in 0..10 {
        seats.push(x.enter(&stats, Work::ONE, FLOW, LONG, false).await.unwrap());
    }
    let (mut first, mut second) = (
        Box::pin(x.enter(&stats, Work::ONE, FLOW, LONG, false)),
        Box::pin(x.enter(&stats, Work::ONE, FLOW, LONG, false)),
    );
    assert!(futures::poll!(first.as_mut()).is_pending());
    assert!(futures::poll!(second.as_mut()).is_pending());
    assert_eq!((x.seats_in_use(), x.waiting()), (10, 2));
    // The queue holds two.
    assert_eq!(x.enter(&stats, Work::ONE, FLOW, LONG, false).await.err(), Some(Rejected { retry_after_seconds: 1 }));
    seats.pop();
    let seat = first.await.unwrap();
    assert!(futures::poll!(second.as_mut()).is_pending());
    drop(seat);
    drop(second.await.unwrap());
    drop(seats);
    assert!(x.is_idle());
    assert_eq!(stats.dispatched.load(Ordering::Relaxed), 12);
    assert_eq!(stats.executing_seats.load(Ordering::Relaxed), 0);
    assert_eq!(stats.waiting_seats.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_or_goes_away_leaves_nothing_behind() {
    let control = control(2);
    control.configure(&[level("x", 5, 1, 50)], &[]);
    let (x, stats) = (named(&control, "x"), stats());
    let seat = x.enter(&stats, Work::ONE, FLOW, LONG, false).await.unwrap();
    let mut gone = Box::pin(x.enter(&stats, Work::ONE, FLOW, LONG, false));
    assert!(futures::poll!(gone.as_mut()).is_pending());
    drop(gone);
    assert_eq!(x.waiting(), 0);
    assert!(x.enter(&stats, Work::ONE, FLOW, LONG, false).await.is_err());
    assert_eq!(stats.rejected[Refusal::TimeOut as usize].load(Ordering::Relaxed), 1);
    // Let go at the very moment it goes away.
    let mut late = Box::pin(x.enter(&stats, Work::ONE, FLOW, LONG, false));
    assert!(futures::poll!(late.as_mut()).is_pending());
    drop(seat);
    drop(late);
    assert!(x.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_wide_request_runs_alone_and_lingers() {
    let control = control(8);
    control.configure(&[level("x", 5, 1, 50)], &[]);
    let (x, stats) = (named(&control, "x"), stats());
    assert_eq!(x.limit(), 4);
    let work = Work { initial_seats: 1, final_seats: 9, additional_latency: Duration::from_millis(50) };
    drop(x.enter(&stats, work, FLOW, LONG, false).await.unwrap());
    assert_eq!(x.seats_in_use(), 9);
    let seat = x.enter(&stats, Work::ONE, FLOW, LONG, false).await.unwrap();
    assert_eq!(x.seats_in_use(), 1);
    drop(seat);
}

#[tokio::test(start_paused = true)]
async fn a_level_that_goes_drains_and_one_that_grows_lets_go_at_once() {
    let control = control(4);
    control.configure(&[level("x", 5, 1, 50)], &[]);
    let (x, stats) = (named(&control, "x"), stats());
    assert_eq!(x.limit(), 2);
    let seats = [
        x.enter(&stats, Work::ONE, FLOW, LONG, false).await.unwrap(),
        x.enter(&stats, Work::ONE, FLOW, LONG, false).await.unwrap(),
    ];
    let mut waits = Box::pin(x.enter(&stats, Work::ONE, FLOW, LONG, false));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    control.configure(&[level("x", 15, 1, 50)], &[]);
    assert_eq!(x.limit(), 3);
    let more = waits.await.unwrap();
    control.configure(&[], &[]);
    assert!(control.known.lock().levels.contains_key("x"));
    drop((seats, more));
    control.configure(&[], &[]);
    assert!(!control.known.lock().levels.contains_key("x"));
}

#[test]
fn refusals_that_go_on_lengthen_the_wait_and_it_shrinks_again() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio.block_on(async {
        let control = control(2);
        control.configure(&[], &[]);
        let (x, stats) = (named(&control, "catch-all"), stats());
        let _seats = x.enter(&stats, Work::of(2), FLOW, LONG, false).await.unwrap();
        let mut last = 0;
        for _ in 0..60 {
            for _ in 0..20 {
                last = x.enter(&stats, Work::ONE, FLOW, LONG, false).await.err().unwrap().retry_after_seconds;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(last >= 8, "{last}");
        tokio::time::advance(Duration::from_secs(600)).await;
        let mut calm = last;
        for _ in 0..40 {
            calm = x.enter(&stats, Work::ONE, FLOW, LONG, false).await.err().unwrap().retry_after_seconds;
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        assert_eq!(calm, 1);
    });
}

/// Many tasks on several threads: seats are never exceeded and everything comes back.
#[test]
fn seats_are_never_exceeded_on_several_threads() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    tokio.block_on(async {
        let control = control(15);
        control.configure(&[level("x", 10, 8, 10_000)], &[]);
        let (x, stats) = (named(&control, "x"), stats());
        let tasks = Tasks::new("test", Shutdown::new());
        let served = Arc::new(AtomicUsize::new(0));
        for task in 0..64_u64 {
            let (x, stats, served) = (Arc::clone(&x), Arc::clone(&stats), Arc::clone(&served));
            tasks.spawn_draining("client", async move {
                for round in 0..200_u64 {
                    let work = Work::of(1 + (round % 3) as u32);
                    let flow = Flow { name: "", hash: task.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
                    let entering = x.enter(&stats, work, flow, Duration::from_secs(30), false);
                    if round % 7 == 0 {
                        // Some give up.
                        if let Ok(Ok(seat)) = tokio::time::timeout(Duration::from_micros(50), entering).await {
                            drop(seat);
                        }
                        continue;
                    }
                    let seat = entering.await.unwrap();
                    assert!(x.seats_in_use() <= 10);
                    tokio::task::yield_now().await;
                    drop(seat);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        tasks.stop().await;
        assert!(x.is_idle(), "{} in use, {} waiting", x.seats_in_use(), x.waiting());
        assert_eq!(served.load(Ordering::Relaxed), 64 * (200 - 29));
        assert_eq!(stats.waiting.load(Ordering::Relaxed), 0);
    });
}
