//! From nothing to a Ready node, in a cluster that is made for this and removed again.

use anyhow::{Context, Result, bail};

use super::{Figure, scratch_name};
use crate::commands::Session;

const ROUNDS: usize = 5;

pub(super) fn measure(session: &Session) -> Result<Vec<Figure>> {
    let name = scratch_name();
    let skiff = |arguments: &[&str]| -> Result<()> {
        let binary = std::env::current_exe().context("find this binary")?;
        let output = std::process::Command::new(binary)
            .args(["--profile", &name])
            .args(arguments)
            .output()
            .with_context(|| format!("run skiff {arguments:?}"))?;
        if !output.status.success() {
            bail!("skiff {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    };
    let timed = |arguments: &[&str]| -> Result<std::time::Duration> {
        let began = session.clock.instant();
        skiff(arguments)?;
        Ok(began.elapsed())
    };
    let outcome = (|| {
        let mut first = Vec::new();
        let mut again = Vec::new();
        let mut demo = Vec::new();
        for _ in 0..ROUNDS {
            first.push(timed(&["up", "--no-kubeconfig"])?);
            timed(&["down"])?;
            again.push(timed(&["up", "--no-kubeconfig"])?);
            timed(&["delete"])?;
            demo.push(timed(&["up", "--no-kubeconfig", "--demo"])?);
            timed(&["delete"])?;
        }
        Ok(vec![
            figure("new cluster: up to node Ready", &mut first),
            figure("existing cluster: up to node Ready", &mut again),
            figure("new cluster: up to demo answering", &mut demo),
        ])
    })();
    if outcome.is_err() {
        let _ = skiff(&["delete"]);
    }
    outcome
}

fn figure(name: &str, durations: &mut [std::time::Duration]) -> Figure {
    Figure {
        name: name.to_owned(),
        value: super::percentile(durations, 0.5),
        unit: "ms",
        cost: format!("median of {}, slowest {:.0} ms", durations.len(), super::percentile(durations, 1.0)),
        durability: "disk",
    }
}
