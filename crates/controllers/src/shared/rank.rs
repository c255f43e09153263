//! Which pods go first when there are too many.

use std::cmp::Ordering;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use skiff_base::Timestamp;

use super::{Meta, pods};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts `pods` so that those to be deleted first come first, by upstream's rules: unplaced,
/// pending, unready, cheap to delete, doubled up on a node (`siblings` counts pods of the same
/// purpose beside each), young (in powers of two), often restarted.
pub(crate) fn by_deletion(pods: &mut [Arc<Pod>], siblings: impl Fn(&Pod) -> usize, now: Timestamp) {
    pods.sort_by_cached_key(|pod| Rank::of(pod, siblings(pod), now));
}

#[derive(PartialEq, Eq)]
struct Rank {
    placed: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    siblings: usize,
    ready_age: Option<u32>,
    restarts: i32,
    age: u32,
    name: String,
}

impl Rank {
    fn of(pod: &Pod, siblings: usize, now: Timestamp) -> Self {
        Self {
            placed: pods::node_name(pod).is_some(),
            phase: match pods::phase(pod) {
                "Pending" | "" => 0,
                "Unknown" => 1,
                _ => 2,
            },
            ready: pods::is_ready(pod),
            cost: pod.metadata.annotation(DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0),
            siblings,
            ready_age: pods::ready_since(pod).map(|since| magnitude(since, now)),
            restarts: pods::restarts(pod),
            age: magnitude(pods::created(pod), now),
            name: pod.metadata.id().to_owned(),
        }
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.placed, self.phase, self.ready, self.cost)
            .cmp(&(other.placed, other.phase, other.ready, other.cost))
            .then(other.siblings.cmp(&self.siblings))
            .then(self.ready_age.cmp(&other.ready_age))
            .then(other.restarts.cmp(&self.restarts))
            .then(self.age.cmp(&other.age))
            .then(self.name.cmp(&other.name))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Ages compare by their power of two, so that pods started together do not always go in the same
/// order.
fn magnitude(since: Timestamp, now: Timestamp) -> u32 {
    u64::BITS - now.since(since).as_secs().leading_zeros()
}
