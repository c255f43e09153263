//! How many seats a request takes: by what it reads, or by who is told of what it writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::queues::Work;
use crate::chain::Call;
use crate::request::options;
use crate::server::ApiServer;
use crate::storage::Collection;

/// Bytes that a list holds at once and that cost one seat.
const BYTES_PER_SEAT: u64 = 100_000;
/// A list that is read from the watch cache is never taken for more: it shares the stored bytes.
const LIST_BYTES_MAX: u64 = 1_000_000;
/// Seats of a list where the level says nothing narrower.
const LIST_SEATS_MAX: u32 = 100;
/// Seats of a write where the level says nothing narrower.
const WRITE_SEATS_MAX: u32 = 10;
/// Watchers that cost one seat …
const WATCHERS_PER_SEAT: u64 = 10;
/// … for this long after the write.
const EVENT_TIME: Duration = Duration::from_millis(5);
/// Objects whose size stands for all of a collection.
const SAMPLED_OBJECTS: usize = 4;

/// A request's work, and how many watchers a write has to tell.
pub(super) struct Estimate {
    pub(super) work: Work,
    pub(super) watchers: Option<u64>,
}

/// Estimates; `seats_max` is what the level allows, 0 for not said.
pub(super) fn of(server: &ApiServer, call: &Call, seats_max: u32) -> Estimate {
    let narrow = |most: u32| if seats_max == 0 { most } else { seats_max.min(most) };
    match call.info.verb {
        "list" | "watch" if call.info.is_resource => {
            Estimate { work: Work::of(list_seats(server, call, narrow(LIST_SEATS_MAX))), watchers: None }
        }
        "create" | "update" | "patch" | "delete" if call.info.is_resource => {
            let told = !(call.info.resource == "serviceaccounts" && call.info.subresource == "token");
            let watchers = collection(server, call).filter(|_| told).map_or(0, |one| watchers(&one));
            Estimate { work: write_work(watchers, narrow(WRITE_SEATS_MAX)), watchers: told.then_some(watchers) }
        }
        _ => Estimate { work: Work::ONE, watchers: None },
    }
}

fn collection(server: &ApiServer, call: &Call) -> Option<Arc<Collection>> {
    let registry = server.registry();
    let kind = registry.resource(&call.info.group, &call.info.version, &call.info.resource)?;
    Some(server.collections.of(kind.as_ref()))
}

fn watchers(collection: &Collection) -> u64 {
    collection.watchers.load(Ordering::Relaxed)
}

fn list_seats(server: &ApiServer, call: &Call, seats_max: u32) -> u32 {
    // A name makes it a read of one object; a watch that wants no state reads nothing.
    if !call.info.name.is_empty() || (call.info.verb == "watch" && !wants_state(&call.query)) {
        return 1;
    }
    let Some(snapshot) = collection(server, call).and_then(|one| one.cache().latest()) else { return 1 };
    let limit = options::first(&call.query, "limit").and_then(|text| text.parse().ok()).filter(|limit| *limit > 0);
    let objects = limit.map_or(snapshot.len() as u64, |limit: u64| limit.min(snapshot.len() as u64));
    let sizes = snapshot.range(b"", None).take(SAMPLED_OBJECTS).map(|(_, item)| item.stored.value.len() as u64);
    let (count, bytes) = sizes.fold((0, 0), |(count, sum), size| (count + 1, sum + size));
    let bytes = objects.saturating_mul(bytes / u64::max(count, 1)).min(LIST_BYTES_MAX);
    u32::try_from(bytes.div_ceil(BYTES_PER_SEAT)).unwrap_or(seats_max).clamp(1, seats_max)
}

fn wants_state(query: &str) -> bool {
    let first = |key: &str| options::first(query, key).unwrap_or_default();
    matches!(first("sendInitialEvents").as_str(), "true" | "1") || matches!(first("resourceVersion").as_str(), "" | "0")
}

fn write_work(watchers: u64, seats_max: u32) -> Work {
    if watchers < WATCHERS_PER_SEAT {
        return Work::ONE;
    }
    let wanted = u32::try_from(watchers.div_ceil(WATCHERS_PER_SEAT)).unwrap_or(u32::MAX);
    let seats = wanted.min(seats_max).max(1);
    // Narrower and longer, the work being the same.
    let additional_latency = EVENT_TIME.mul_f64(f64::from(wanted) / f64::from(seats));
    Work { initial_seats: 1, final_seats: seats, additional_latency }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_as_wide_as_it_has_watchers_and_then_longer() {
        assert_eq!(write_work(9, 10), Work::ONE);
        let fifty = write_work(50, 10);
        assert_eq!((fifty.final_seats, fifty.additional_latency), (5, Duration::from_millis(5)));
        let thousand = write_work(1_000, 10);
        assert_eq!((thousand.final_seats, thousand.additional_latency), (10, Duration::from_millis(50)));
    }
}
