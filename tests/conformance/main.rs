//! Conformance: the behaviours that the upstream suite names, under the same names, against a real
//! cluster of this machine, through kube-rs and the real `kubectl`.
//!
//! The tests are ours, written from what each name promises. `tests.rs` is the whole list. The
//! cluster is started once and shared; a test gets a namespace of its own and cleans up what lies
//! outside it. Tests marked `[Serial]` run alone, the others a few at a time.
//!
//! Arguments select by substring of the name; `--list` prints the names.

mod auth;
mod cli;
mod cluster;
mod context;
mod conversion;
mod custom;
mod definitions;
mod discovery;
mod events;
mod fields;
mod garbage;
mod hooks;
mod image;
mod lifecycle;
mod list_watch;
mod namespaces;
mod policies;
mod publish;
mod quota;
mod tests;
mod version;
mod webhook;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};

use cluster::Cluster;
use context::Context;

/// What a test gives back; the error says what was expected and what came.
type Outcome = anyhow::Result<()>;

/// One test: upstream's name and what runs.
struct Test {
    name: &'static str,
    run: fn(Context) -> futures::future::BoxFuture<'static, Outcome>,
}

/// Tests at once: they wait more than they work.
const CONCURRENT: usize = 4;
/// No test waits longer for anything than this in all.
const DEADLINE: Duration = Duration::from_secs(180);

fn main() {
    let mut wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    wanted.retain(|text| !text.is_empty());
    let chosen = |test: &&Test| wanted.is_empty() || wanted.iter().any(|text| test.name.contains(text.as_str()));
    let (serial, parallel): (Vec<&Test>, Vec<&Test>) =
        tests::ALL.iter().filter(chosen).partition(|test| test.name.contains("[Serial]"));
    if std::env::args().any(|argument| argument == "--list") {
        tests::ALL.iter().for_each(|test| println!("{}: test", test.name));
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("not root: no cluster can be made, conformance was not tested");
        return;
    }
    if serial.is_empty() && parallel.is_empty() {
        println!("no test of this name");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let failed = runtime.block_on(async {
        let cluster = Arc::new(Cluster::start().await);
        let mut failed = run(&cluster, parallel, CONCURRENT).await;
        failed.extend(run(&cluster, serial, 1).await);
        failed
    });
    let total = tests::ALL.iter().filter(chosen).count();
    println!("{} passed, {} failed", total - failed.len(), failed.len());
    for name in &failed {
        println!("FAILED {name}");
    }
    std::process::exit(i32::from(!failed.is_empty()));
}

/// Runs tests, `at_once` together, and gives the names of those that failed.
async fn run(cluster: &Arc<Cluster>, tests: Vec<&'static Test>, at_once: usize) -> Vec<&'static str> {
    let outcomes = futures::stream::iter(tests).map(|test| one(cluster, test)).buffer_unordered(at_once);
    outcomes.filter_map(|failed| async move { failed }).collect().await
}

async fn one(cluster: &Arc<Cluster>, test: &'static Test) -> Option<&'static str> {
    #[allow(clippy::disallowed_methods)] // a test tells how long it took
    let began = Instant::now();
    let outcome = attempt(cluster, test).await;
    let took = began.elapsed().as_millis();
    match outcome {
        Ok(()) => {
            println!("ok   {} ({took} ms)", test.name);
            None
        }
        Err(error) => {
            println!("FAIL {} ({took} ms)\n     {error:?}", test.name);
            Some(test.name)
        }
    }
}

async fn attempt(cluster: &Arc<Cluster>, test: &Test) -> Outcome {
    let ctx = Context::new(Arc::clone(cluster)).await?;
    let (admin, namespace) = (ctx.clone(), ctx.namespace.clone());
    let ran = tokio::time::timeout(DEADLINE, std::panic::AssertUnwindSafe((test.run)(ctx)).catch_unwind()).await;
    admin.remove_namespace(&namespace).await?;
    match ran {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(anyhow::anyhow!("the test panicked")),
        Err(_) => Err(anyhow::anyhow!("not finished after {DEADLINE:?}")),
    }
}
