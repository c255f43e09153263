//! ServiceCIDRs are ready, protected while Services have addresses from them, and let go when
//! none is left or another ServiceCIDR holds them too.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use serde_json::json;
use skiff_client::time::{from_time, to_time};
use skiff_client::{Informer, Next, ObjectKey, Patch, Reconcile, Result, Severity, WorkQueue, run_controller};

use crate::Context;
use crate::shared::Meta;

pub(crate) const NAME: &str = "service-cidrs-controller";

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// How long a deleted ServiceCIDR stays: every API server has to have seen that it gives out no
/// more addresses.
const GRACE: Duration = Duration::from_secs(10);

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    first: u128,
    /// Bits that are fixed.
    prefix: u32,
    bits: u32,
}

impl Block {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (number, bits) = number(address.parse().ok()?);
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= bits)?;
        let block = Self { first: 0, prefix, bits };
        Some(Self { first: block.masked(number), ..block })
    }

    fn masked(&self, number: u128) -> u128 {
        let free = self.bits - self.prefix;
        number.checked_shr(free).and_then(|top| top.checked_shl(free)).unwrap_or(0)
    }

    /// Whether an address comes from the block: neither the network itself nor its broadcast does.
    fn gives(&self, address: IpAddr) -> bool {
        let (number, bits) = number(address);
        let last = 1_u128.checked_shl(self.bits - self.prefix).map_or(u128::MAX, |size| self.first + (size - 1));
        bits == self.bits
            && self.masked(number) == self.first
            && number != self.first
            && !(bits == 32 && number == last)
    }

    fn contains(&self, other: &Self) -> bool {
        self.bits == other.bits && self.prefix <= other.prefix && self.masked(other.first) == self.first
    }
}

fn number(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    }
}

fn blocks(cidr: &ServiceCIDR) -> Vec<Block> {
    let cidrs = cidr.spec.as_ref().and_then(|spec| spec.cidrs.as_ref()).into_iter().flatten();
    cidrs.filter_map(|text| Block::parse(text)).collect()
}

/// Whether `going` can be let go without leaving a Service address in nobody's hands.
fn can_go(going: &ServiceCIDR, all: &[Arc<ServiceCIDR>], addresses: &[IpAddr]) -> bool {
    let others: Vec<Block> =
        all.iter().filter(|cidr| cidr.metadata.id() != going.metadata.id()).flat_map(|cidr| blocks(cidr)).collect();
    let own = blocks(going);
    let held = |block: &Block| others.iter().any(|other| other.contains(block));
    if own.iter().all(held) {
        return true;
    }
    let orphan = |address: &IpAddr| {
        own.iter().any(|block| block.gives(*address)) && !others.iter().any(|block| block.gives(*address))
    };
    !addresses.iter().any(orphan)
}

struct Driver {
    ctx: Context,
    cidrs: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let cidrs = ctx.informers.of::<ServiceCIDR>();
    let addresses = ctx.informers.of::<IPAddress>();
    let (changed, all) = (queue.clone(), cidrs.clone());
    cidrs.subscribe(move |change| {
        changed.add(change.key());
        let fresh_or_gone = change.old.is_none() || change.new.is_none();
        if let Some(object) = change.object().filter(|_| fresh_or_gone) {
            // One that comes may hold the addresses of one that wants to go.
            let mine = blocks(object);
            for other in all.store().iter() {
                let overlaps = |one: &Block| mine.iter().any(|block| block.contains(one) || one.contains(block));
                if blocks(&other).iter().any(overlaps) {
                    changed.add(ObjectKey::new("", other.metadata.id()));
                }
            }
        }
    });
    let (changed, all) = (queue.clone(), cidrs.clone());
    addresses.subscribe(move |change| {
        let Some(address) = change.object().and_then(|object| address(object)) else { return };
        if change.old.is_some() && change.new.is_some() {
            return;
        }
        for cidr in all.store().iter() {
            if cidr.metadata.is_deleting() && blocks(&cidr).iter().any(|block| block.gives(address)) {
                changed.add(ObjectKey::new("", cidr.metadata.id()));
            }
        }
    });
    let (ready, ready_addresses) = (cidrs.clone(), addresses.clone());
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 1, Arc::new(Driver { ctx, cidrs, addresses }), async move {
        ready.synced().await;
        ready_addresses.synced().await;
    });
}

/// The address, when it is one that the API server gave a Service.
fn address(object: &IPAddress) -> Option<IpAddr> {
    (object.metadata.label(MANAGED_BY.0) == Some(MANAGED_BY.1)).then(|| object.metadata.id().parse().ok()).flatten()
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(cidr) = self.cidrs.get("", &key.name) else { return Ok(Next::Event) };
        if cidr.metadata.is_deleting() {
            return self.let_go(&cidr).await;
        }
        if !cidr.metadata.has_finalizer(FINALIZER) {
            let patch = Patch::Strategic(json!({"metadata": {"finalizers": [FINALIZER]}}));
            match self.ctx.client.patch::<ServiceCIDR>("", &key.name, &patch).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        let outcome = self.condition(&cidr, "True", "", "Kubernetes Service CIDR is ready").await;
        if outcome.as_ref().is_err_and(|error| !error.is_not_found() && !error.is_conflict()) {
            let message = "The ServiceCIDR Status can not be set to Ready=True";
            self.ctx.events.record(&*cidr, Severity::Warning, "KubernetesServiceCIDRError", message);
        }
        outcome.map(|()| Next::Event)
    }
}

impl Driver {
    async fn let_go(&self, cidr: &ServiceCIDR) -> Result<Next> {
        if !cidr.metadata.has_finalizer(FINALIZER) {
            return Ok(Next::Event);
        }
        let all: Vec<Arc<ServiceCIDR>> = self.cidrs.store().iter().collect();
        let addresses: Vec<IpAddr> = self.addresses.store().iter().filter_map(|object| address(&object)).collect();
        if !can_go(cidr, &all, &addresses) {
            let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a \
                           new ServiceCIDR";
            return self.condition(cidr, "False", "Terminating", message).await.map(|()| Next::Event);
        }
        let since = cidr.metadata.deletion_timestamp.as_ref().map(from_time);
        let age = since.map_or(GRACE, |since| self.ctx.clock.now().since(since));
        if age < GRACE {
            return Ok(Next::After(GRACE - age));
        }
        let rest: Vec<&String> =
            cidr.metadata.finalizers.iter().flatten().filter(|one| one.as_str() != FINALIZER).collect();
        let version = cidr.metadata.resource_version.clone();
        let patch = Patch::Merge(json!({"metadata": {"finalizers": rest, "resourceVersion": version}}));
        match self.ctx.client.patch::<ServiceCIDR>("", cidr.metadata.id(), &patch).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Next::Event),
        }
    }

    /// Applies the condition `Ready` unless it is so.
    async fn condition(&self, cidr: &ServiceCIDR, status: &str, reason: &str, message: &str) -> Result<()> {
        let conditions = cidr.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let now = conditions
            .filter(|one| one.type_ == "Ready")
            .map(|one| (one.status.as_str(), one.reason.as_str(), one.message.as_str()));
        if now.collect::<Vec<_>>().last() == Some(&(status, reason, message)) {
            return Ok(());
        }
        let name = cidr.metadata.id();
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
            "status": {"conditions": [{
                "type": "Ready", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": to_time(self.ctx.clock.now()),
            }]},
        });
        let patch = Patch::Apply { object, manager: NAME.to_owned(), force: true };
        self.ctx.client.patch_subresource::<ServiceCIDR>("", name, "status", &patch).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::ServiceCIDRSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn cidr(name: &str, blocks: &[&str]) -> Arc<ServiceCIDR> {
        Arc::new(ServiceCIDR {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            spec: Some(ServiceCIDRSpec { cidrs: Some(blocks.iter().map(ToString::to_string).collect()) }),
            status: None,
        })
    }

    fn check(others: &[&str], addresses: &[&str]) -> bool {
        let going = cidr("going", &["10.0.1.0/24"]);
        let mut all: Vec<_> = others.iter().map(|block| cidr(block, &[block])).collect();
        all.push(going.clone());
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        can_go(&going, &all, &addresses)
    }

    #[test]
    fn one_goes_when_its_addresses_are_free_or_in_other_hands() {
        assert!(check(&[], &[]));
        assert!(check(&[], &["10.0.2.1"]));
        assert!(!check(&[], &["10.0.1.7"]));
        assert!(check(&["10.0.0.0/16"], &["10.0.1.7"]));
        assert!(check(&["10.0.1.0/28"], &["10.0.1.7"]));
        assert!(!check(&["10.0.1.0/28"], &["10.0.1.77"]));
        assert!(check(&["10.0.1.0/24"], &["10.0.1.7"]));
    }

    #[test]
    fn network_and_broadcast_belong_to_nobody() {
        let block = Block::parse("10.0.1.0/24").unwrap();
        let gives = |address: &str| block.gives(address.parse().unwrap());
        assert!(gives("10.0.1.1") && gives("10.0.1.254"));
        assert!(!gives("10.0.1.0") && !gives("10.0.1.255") && !gives("10.0.2.1") && !gives("fd00::1"));
    }
}
