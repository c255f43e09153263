//! Leader election over a `Lease` object: at most one holder acts at a time.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skiff_base::metrics::Metric;
use skiff_base::{Clock, Tasks, Timestamp};
use tokio::sync::watch;

use crate::time::{from_micro_time, to_micro_time};
use crate::{Client, Result};

/// Upstream's defaults: a lease lasts 15 s, its holder gives up after 10 s without renewal, and
/// everybody looks every 2 s.
const LEASE: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

static LEADS: Metric = Metric::gauge("leader_election_master_status", "Whether this process holds a lease now.");

/// Who competes for which lease.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The namespace of the lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// A name that no other candidate has.
    pub identity: String,
}

/// Starts competing; the receiver says whether we hold the lease now.
pub fn elect(client: Client, clock: Clock, tasks: &Tasks, candidate: Candidate) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let (gauge, mut shown) = (tasks.metrics().gauge(&LEADS, &[("name", &candidate.name)]), receiver.clone());
    tasks.metrics().before_writing(move || {
        gauge.set(if *shown.borrow_and_update() { 1.0 } else { 0.0 });
        true
    });
    let election = Election { client, clock, candidate, seen: None };
    tasks.spawn("leader election", election.run(sender));
    receiver
}

struct Election {
    client: Client,
    clock: Clock,
    candidate: Candidate,
    /// The last state of somebody else's lease and when **we** first saw it: their clock may
    /// differ from ours, so only our own is used to decide that it has run out.
    seen: Option<(LeaseSpec, Timestamp)>,
}

impl Election {
    async fn run(mut self, leads: watch::Sender<bool>) {
        let set = |holds: bool| leads.send_if_modified(|leads| std::mem::replace(leads, holds) != holds);
        let clock = self.clock.clone();
        let mut renewed = None;
        loop {
            // A server that hangs must not make a holder out of who no longer is one.
            let began = clock.instant();
            let left = RENEW_DEADLINE.saturating_sub(renewed.map_or(Duration::ZERO, |at| began.duration_since(at)));
            let attempt = tokio::time::timeout(left.max(RETRY), self.attempt()).await;
            match attempt {
                Ok(Ok(holds)) => {
                    // Others count from when it was written, which is not before this.
                    renewed = holds.then_some(began);
                    set(holds);
                }
                Ok(Err(error)) => tracing::debug!(lease = self.candidate.name, %error, "lease not renewed"),
                Err(_) => tracing::debug!(lease = self.candidate.name, "lease not renewed in time"),
            }
            if renewed.is_none_or(|at| at.elapsed() + RETRY > RENEW_DEADLINE) {
                renewed = None;
                set(false);
            }
            clock.sleep(RETRY).await;
        }
    }

    async fn attempt(&mut self) -> Result<bool> {
        let Candidate { namespace, name, identity } = self.candidate.clone();
        let now = self.clock.now();
        let Some(mut lease) = self.client.find::<Lease>(&namespace, &name).await? else {
            let metadata = ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(claim(&identity, now, None)) };
            return match self.client.create(&lease).await {
                Ok(_) => Ok(true),
                Err(error) if error.is_already_exists() => Ok(false),
                Err(error) => Err(error),
            };
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if !may_claim(&mut self.seen, &spec, &identity, now) {
            return Ok(false);
        }
        lease.spec = Some(claim(&identity, now, Some(&spec)));
        match self.client.replace(&lease).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether the lease is ours, free, or was not renewed for its whole duration as measured here.
fn may_claim(seen: &mut Option<(LeaseSpec, Timestamp)>, spec: &LeaseSpec, identity: &str, now: Timestamp) -> bool {
    let holder = spec.holder_identity.as_deref().unwrap_or("");
    if holder.is_empty() || holder == identity {
        return true;
    }
    let since = match seen {
        Some((known, since)) if known == spec => *since,
        _ => {
            *seen = Some((spec.clone(), now));
            now
        }
    };
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    now.since(since) >= seconds.map_or(LEASE, Duration::from_secs)
}

fn claim(identity: &str, now: Timestamp, before: Option<&LeaseSpec>) -> LeaseSpec {
    let ours = before.filter(|spec| spec.holder_identity.as_deref() == Some(identity));
    let transitions = before.map_or(0, |spec| spec.lease_transitions.unwrap_or(0));
    let acquired = ours.and_then(|spec| spec.acquire_time.as_ref()).map_or(now, from_micro_time);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
        acquire_time: Some(to_micro_time(acquired)),
        renew_time: Some(to_micro_time(now)),
        lease_transitions: Some(if before.is_some() && ours.is_none() { transitions + 1 } else { transitions }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_over_only_after_its_duration_by_our_own_clock() {
        let now = Timestamp::from_secs(1_000);
        let spec = claim("other", Timestamp::from_secs(5), None);
        let mut seen = None;
        assert!(!may_claim(&mut seen, &spec, "me", now));
        assert!(!may_claim(&mut seen, &spec, "me", now.plus(Duration::from_secs(14))));
        assert!(may_claim(&mut seen, &spec, "me", now.plus(Duration::from_secs(15))));
        let renewed = claim("other", Timestamp::from_secs(9), Some(&spec));
        assert!(!may_claim(&mut seen, &renewed, "me", now.plus(Duration::from_secs(15))));
        assert_eq!(claim("me", now, Some(&renewed)).lease_transitions, Some(1));
    }
}
