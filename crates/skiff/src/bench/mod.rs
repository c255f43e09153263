//! `skiff bench`: figures with their unit cost and durability class.
//!
//! Everything but `store`, `memory`, `restart`, `idle` and `start` speaks the public API, so a kubeconfig points it at
//! any other cluster and a ratio is one command. `--api-only` measures an API server without controllers and node, as
//! other people's figures of API servers are. Figures of one run on a shared machine: run it more than once before you
//! quote it.

mod alone;
mod api;
mod definitions;
mod fan_out;
mod lists;
mod pod;
mod pods;
mod process;
mod restart;
mod start;
mod store;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use skiff_base::{Shutdown, Tasks};
use skiff_client::Endpoint;
use skiff_store::Durability;

use crate::cli::{Bench, Format, Measurement};
use crate::commands::Session;
use crate::connect;
use crate::profile::Profile;

pub(crate) use process::Group;

/// One figure.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figure {
    /// What was measured, with its setting.
    pub(crate) name: String,
    /// How much.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: &'static str,
    /// Cost per unit of work and latencies, as text.
    pub(crate) cost: String,
    /// What an acknowledged write survives; empty where nothing is written.
    pub(crate) durability: &'static str,
}

/// What every measurement gets.
pub(crate) struct Setting<'a> {
    pub(crate) session: &'a Session,
    pub(crate) options: &'a Bench,
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) tasks: Tasks,
    /// The processes of the server, where it runs on this machine under this profile.
    pub(crate) server: Option<Group>,
}

/// What runs when nothing is named: the others take minutes.
const ALL: [Measurement; 10] = [
    Measurement::Store,
    Measurement::Create,
    Measurement::Get,
    Measurement::List,
    Measurement::Watch,
    Measurement::Pod,
    Measurement::Memory,
    Measurement::Idle,
    Measurement::Start,
    Measurement::Restart,
];

/// Runs the measurements asked for and prints each as it is done.
pub(crate) fn run(session: &Session, options: &Bench) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the asynchronous runtime")?;
    let local = |what: &Measurement| {
        use Measurement::{Idle, Memory, Restart, Start, Store};
        matches!(what, Store | Memory | Idle | Start | Restart)
    };
    let whole = |what: &Measurement| matches!(what, Measurement::Pod | Measurement::Idle | Measurement::Start);
    let wanted: Vec<Measurement> = match (options.what.is_empty(), &options.kubeconfig) {
        (false, None) => options.what.clone(),
        (false, Some(_)) if options.what.iter().any(local) => {
            bail!("store, memory, idle, start and restart measure this machine; leave them out with --kubeconfig")
        }
        (false, Some(_)) => options.what.clone(),
        (true, None) if options.api_only => ALL.into_iter().filter(|what| !whole(what)).collect(),
        (true, None) => ALL.to_vec(),
        (true, Some(_)) => ALL.into_iter().filter(|what| !local(what)).collect(),
    };
    if options.api_only && wanted.iter().any(whole) {
        bail!("pod, idle and start measure a whole cluster; leave them out with --api-only");
    }
    if options.output == Format::Text {
        println!("{:<44} {:>12} {:<14} {:<10} COST", "MEASUREMENT", "VALUE", "UNIT", "DURABILITY");
    }
    let mut all = Vec::new();
    for what in wanted {
        let figures = match what {
            Measurement::Store => runtime.block_on(store::measure(session, options))?,
            Measurement::Start => start::measure(session)?,
            Measurement::Restart => runtime.block_on(restart::measure(session, options))?,
            Measurement::Idle => process::measure_idle(session, &session.existing()?)?,
            _ => runtime.block_on(over_the_api(session, options, what))?,
        };
        if options.output == Format::Text {
            for figure in &figures {
                println!(
                    "{:<44} {:>12} {:<14} {:<10} {}",
                    figure.name,
                    shown(figure.value),
                    figure.unit,
                    figure.durability,
                    figure.cost
                );
            }
        }
        all.extend(figures);
    }
    if options.output == Format::Json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    Ok(())
}

async fn over_the_api(session: &Session, options: &Bench, what: Measurement) -> Result<Vec<Figure>> {
    let tasks = Tasks::new("bench", Shutdown::new());
    let mut alone = None;
    let (endpoint, server) = match &options.kubeconfig {
        Some(path) => (connect::endpoint_of_kubeconfig(path, &tasks)?, None),
        None if options.api_only => {
            let alone = alone.insert(alone::Alone::new(session)?);
            alone.start()?;
            (connect::endpoint(session, alone.profile(), &tasks)?, Some(alone.group()))
        }
        None => {
            let profile = session.existing()?;
            (connect::endpoint(session, &profile, &tasks)?, Some(Group::of_server(&profile)?))
        }
    };
    let context = Setting { session, options, endpoint, tasks: tasks.clone(), server };
    let figures = match what {
        Measurement::Create => pods::create(&context).await,
        Measurement::Get => pods::get(&context).await,
        Measurement::Memory => pods::memory(&context).await,
        Measurement::List => api::list(&context).await,
        Measurement::Watch => api::watch(&context).await,
        Measurement::LongList => lists::long(&context).await,
        Measurement::Selector => lists::selector(&context).await,
        Measurement::FanOut => fan_out::measure(&context).await,
        Measurement::Definitions => definitions::measure(&context).await,
        Measurement::Pod => pod::measure(&context).await,
        Measurement::Store | Measurement::Idle | Measurement::Start | Measurement::Restart => Ok(Vec::new()),
    };
    tasks.stop().await;
    drop(alone);
    figures
}

/// The value at `part` of the way through, in milliseconds.
pub(crate) fn percentile(durations: &mut [Duration], part: f64) -> f64 {
    durations.sort_unstable();
    let index = (durations.len().saturating_sub(1)) as f64 * part;
    durations.get(index.round() as usize).map_or(0.0, |duration| duration.as_secs_f64() * 1e3)
}

/// Three significant digits are more than these figures have.
fn shown(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The name of the cluster or folder that a measurement makes for itself.
pub(crate) fn scratch_name() -> String {
    format!("bench-{}", std::process::id())
}

/// The durability class of a store in one word.
pub(crate) fn durability(class: Durability) -> &'static str {
    match class {
        Durability::Memory => "memory",
        Durability::Disk => "disk",
        Durability::Quorum => "quorum",
    }
}

/// The server process of a running cluster.
pub(crate) fn running(profile: &Profile) -> Result<u32> {
    let text = std::fs::read_to_string(profile.pid_file()).with_context(|| {
        format!("cluster {} does not run; start it with: skiff up -p {}", profile.name, profile.name)
    })?;
    text.trim().parse().with_context(|| format!("{} holds no process id", profile.pid_file().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_of_none() {
        let mut durations: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut durations, 0.5), 51.0);
        assert_eq!(percentile(&mut durations, 0.99), 99.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }
}
