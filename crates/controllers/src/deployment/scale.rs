//! How many pods each revision gets.

use std::cmp::Reverse;

use k8s_openapi::api::apps::v1::Deployment;

use super::plan::{Limits, Revision};
use super::{DESIRED_REPLICAS, MAX_REPLICAS};
use crate::shared::Meta;

/// The size of the new set, which has `present` of `total` pods.
pub(super) fn new_replicas(limits: &Limits, present: i32, total: i32) -> i32 {
    if limits.recreate {
        return limits.replicas;
    }
    let room = limits.max_total() - total;
    if room <= 0 { present } else { present + room.min(limits.replicas - present).max(0) }
}

/// Takes from the old sets what the new one makes dispensable, unhealthy pods first.
pub(super) fn shrink_old(limits: &Limits, new: &Revision, old: &mut [Revision]) {
    let old_total: i32 = old.iter().map(|set| set.replicas).sum();
    if old_total == 0 {
        return;
    }
    // New pods that are not yet available may still fail: they must not be counted on.
    let new_unavailable = new.replicas - new.available();
    let mut dispensable = old_total + new.replicas - limits.min_available() - new_unavailable;
    if dispensable <= 0 {
        return;
    }
    for set in old.iter_mut().filter(|set| set.replicas > 0) {
        let unhealthy = (set.replicas - set.available()).max(0).min(dispensable);
        if unhealthy > 0 {
            dispensable -= unhealthy;
            let rest = set.replicas - unhealthy;
            set.scale(limits, rest);
        }
    }
    let available = old.iter().map(Revision::available).sum::<i32>() + new.available();
    let mut surplus = available - limits.min_available();
    for set in old.iter_mut().filter(|set| set.replicas > 0) {
        if surplus <= 0 {
            break;
        }
        let less = set.replicas.min(surplus);
        surplus -= less;
        let rest = set.replicas - less;
        set.scale(limits, rest);
    }
}

/// Brings the sets to the Deployment's size without moving between revisions.
pub(super) fn proportionally(
    deployment: &Deployment,
    limits: &Limits,
    new: &mut Option<Revision>,
    old: &mut [Revision],
) {
    if let Some(only) = active_or_latest(new, old) {
        if only.replicas != limits.replicas {
            only.scale(limits, limits.replicas);
        }
        return;
    }
    if is_saturated(limits, new.as_ref()) {
        for set in old.iter_mut().filter(|set| set.replicas > 0) {
            set.scale(limits, 0);
        }
        return;
    }
    if !limits.recreate {
        share_out(deployment, limits, new.iter_mut().chain(old).filter(|set| set.replicas > 0).collect());
    }
}

/// The one set in use; without any, the new one or else the youngest. `None` when several are.
fn active_or_latest<'a>(new: &'a mut Option<Revision>, old: &'a mut [Revision]) -> Option<&'a mut Revision> {
    match new.iter().chain(&*old).filter(|set| set.replicas > 0).count() {
        0 => new.as_mut().or(old.last_mut()),
        1 => new.iter_mut().chain(old).find(|set| set.replicas > 0),
        _ => None,
    }
}

fn is_saturated(limits: &Limits, new: Option<&Revision>) -> bool {
    new.is_some_and(|new| {
        new.replicas == limits.replicas
            && new.number(DESIRED_REPLICAS) == Some(limits.replicas)
            && new.available() == limits.replicas
    })
}

fn share_out(deployment: &Deployment, limits: &Limits, mut sets: Vec<&mut Revision>) {
    let total: i32 = sets.iter().map(|set| set.replicas).sum();
    let allowed = if limits.replicas > 0 { limits.max_total() } else { 0 };
    let change = allowed - total;
    let created = |set: &Revision| set.set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let name = |set: &Revision| set.set.metadata.id().to_owned();
    // The largest first; of equals, the younger grows and the older shrinks.
    if change > 0 {
        sets.sort_by_key(|set| (Reverse(set.replicas), Reverse(created(set)), name(set)));
    } else {
        sets.sort_by_key(|set| (Reverse(set.replicas), created(set), name(set)));
    }
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::with_capacity(sets.len());
    for set in &sets {
        let share = if change == 0 { 0 } else { proportion(deployment, limits, set, change, added) };
        added += share;
        sizes.push(set.replicas + share);
    }
    if let Some(first) = sizes.first_mut().filter(|_| change != 0) {
        // What rounding left over goes to the largest.
        *first = (*first + change - added).max(0);
    }
    for (set, size) in sets.into_iter().zip(sizes) {
        set.scale(limits, size);
    }
}

fn proportion(deployment: &Deployment, limits: &Limits, set: &Revision, change: i32, added: i32) -> i32 {
    if change == added {
        return 0;
    }
    let fraction = fraction(deployment, limits, set);
    let rest = change - added;
    if change > 0 { fraction.min(rest) } else { fraction.max(rest) }
}

/// How much `set` would change if it kept its share of the Deployment's former size.
fn fraction(deployment: &Deployment, limits: &Limits, set: &Revision) -> i32 {
    if limits.replicas == 0 {
        return -set.replicas;
    }
    let reported = deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
    let former = set.number(MAX_REPLICAS).filter(|former| *former > 0).unwrap_or(reported).max(1);
    let size = f64::from(set.replicas) * f64::from(limits.max_total()) / f64::from(former);
    size.round() as i32 - set.replicas
}
