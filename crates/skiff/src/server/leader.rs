//! Components of which one at a time works, on whichever server holds their Lease.

use skiff_base::{Clock, Tasks};
use skiff_client::Client;
use skiff_client::lease::{Candidate, elect};

/// The namespace of the Leases, as upstream's.
const NAMESPACE: &str = "kube-system";

/// Runs a component while this server holds the Lease `name`, and stops it when the Lease is lost.
/// `start` puts everything into the tasks it is given.
pub fn run(
    client: Client,
    clock: Clock,
    tasks: &Tasks,
    name: &str,
    identity: &str,
    start: impl Fn(&Tasks) + Send + Sync + 'static,
) {
    let candidate = Candidate { namespace: NAMESPACE.to_owned(), name: name.to_owned(), identity: identity.to_owned() };
    let mut leads = elect(client, clock, tasks, candidate);
    let (name, all) = (name.to_owned(), tasks.clone());
    tasks.spawn("leader", async move {
        while leads.wait_for(|leads| *leads).await.is_ok() {
            tracing::info!(lease = name, "leads");
            let term = all.group(&name);
            start(&term);
            // The other end goes when everything ends, and then the tasks do too.
            let is_over = leads.wait_for(|leads| !*leads).await.is_ok();
            if is_over {
                tracing::warn!(lease = name, "no longer leads");
            }
            term.stop().await;
        }
    });
}
