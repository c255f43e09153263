//! `/debug/api_priority_and_fairness/…`: what runs and waits, as upstream's tables.

use std::fmt::Write;

use http::{Response, StatusCode};

use super::FlowControl;
use crate::body::Body;
use crate::respond;

/// Answers one of the three dumps; nothing for another path.
pub(crate) fn answer(control: &FlowControl, dump: &str) -> Option<Response<Body>> {
    let rows = match dump {
        "dump_priority_levels" => levels(control),
        "dump_queues" => queues(control),
        "dump_requests" => requests(control),
        _ => return None,
    };
    Some(respond::text(StatusCode::OK, table(&rows)))
}

fn levels(control: &FlowControl) -> Vec<Vec<String>> {
    let mut rows = vec![words(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ])];
    let (known, table) = (control.known.lock(), control.table.load());
    for level in known.levels.values() {
        let active = level.with_queues(|set| set.queues().iter().filter(|queue| !queue.waiting.is_empty()).count());
        let count = |value: &std::sync::atomic::AtomicU64| value.load(std::sync::atomic::Ordering::Relaxed).to_string();
        let executing: i64 = known
            .stats
            .values()
            .filter(|stats| stats.level == level.name)
            .map(|stats| stats.executing.load(std::sync::atomic::Ordering::Relaxed))
            .sum();
        rows.push(vec![
            level.name.clone(),
            active.to_string(),
            level.is_idle().to_string(),
            (!table.levels.iter().any(|one| one.name == level.name)).to_string(),
            level.waiting().to_string(),
            executing.to_string(),
            count(&level.dispatched),
            count(&level.rejected),
            count(&level.timed_out),
            count(&level.timed_out),
        ]);
    }
    rows
}

fn queues(control: &FlowControl) -> Vec<Vec<String>> {
    let mut rows = vec![words(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ])];
    for level in control.known.lock().levels.values() {
        level.with_queues(|set| {
            for (index, queue) in set.queues().iter().enumerate() {
                let initial: u64 = queue.waiting.iter().map(|one| u64::from(one.work.initial_seats)).sum();
                rows.push(vec![
                    level.name.clone(),
                    index.to_string(),
                    queue.waiting.len().to_string(),
                    queue.executing.to_string(),
                    queue.seats_in_use.to_string(),
                    format!("{:.8}ss", queue.next_dispatch_r),
                    initial.to_string(),
                    queue.seats_waiting().to_string(),
                    format!("{:.8}ss", queue.work()),
                ]);
            }
        });
    }
    rows
}

/// The requests that wait; those that run are only counted.
fn requests(control: &FlowControl) -> Vec<Vec<String>> {
    let mut rows = vec![words(&[
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ])];
    let (now, instant) = (control.clock.now(), control.clock.instant());
    for level in control.known.lock().levels.values() {
        level.with_queues(|set| {
            for (index, queue) in set.queues().iter().enumerate() {
                for (at, waiting) in queue.waiting.iter().enumerate() {
                    let arrived = crate::meta::time(now.minus(instant - waiting.item.since));
                    rows.push(vec![
                        level.name.clone(),
                        waiting.item.stats.schema.clone(),
                        index.to_string(),
                        at.to_string(),
                        waiting.item.flow.clone(),
                        arrived.to_string(),
                        waiting.work.initial_seats.to_string(),
                        waiting.work.final_seats.to_string(),
                        format!("{:?}", waiting.work.additional_latency),
                        "0001-01-01T00:00:00Z".to_owned(),
                    ]);
                }
            }
        });
    }
    rows
}

fn words(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// Columns as Go's tabwriter aligns them: cells end with a comma, columns are at least 8 wide.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len() + 2).max().unwrap_or(0).max(8);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row[..columns - 1].iter().zip(&widths) {
            let _ = write!(text, "{:<width$}", format!("{cell},"));
        }
        text.push_str(&row[columns - 1]);
        text.push('\n');
    }
    text
}
