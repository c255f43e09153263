//! Compares the names in `tests/conformance/tests.rs` with upstream's list: none is made up, and
//! none of the areas that are tested here is missing without a reason.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The areas whose every behaviour is tested here.
const AREAS: [&str; 5] = ["sig-api-machinery", "sig-architecture", "sig-auth", "sig-cli", "sig-instrumentation"];

/// What is not, and why.
const ABSENT: [(&str, &str); 2] = [
    (
        "[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator [LinuxOnly] [Conformance]",
        "needs a server of its own in a pod: tests/e2e/aggregation.sh",
    ),
    (
        "[sig-architecture] Conformance Tests should have at least two untainted nodes [Conformance]",
        "a cluster has one node so far",
    ),
];

pub(crate) fn run(folder: &Path) -> Result<()> {
    let list = std::fs::read_to_string(folder.join("conformance_tests.tsv")).context("read the list")?;
    let rows = list.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
    let upstream: Vec<(&str, &str)> = rows.filter(|row| row.len() > 3).map(|row| (row[0], row[3])).collect();
    let known: BTreeSet<&str> = upstream.iter().map(|(_, name)| *name).collect();
    let ours = std::fs::read_to_string("tests/conformance/tests.rs").context("read our list")?;
    let ours: BTreeSet<&str> = ours
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" =>"))
        .map(|(name, _)| name)
        .collect();
    let mut wrong: Vec<String> = ours.difference(&known).map(|name| format!("not one of upstream's: {name}")).collect();
    let absent: BTreeSet<&str> = ABSENT.iter().map(|(name, _)| *name).collect();
    for (area, name) in &upstream {
        if AREAS.contains(area) && !ours.contains(name) && !absent.contains(name) {
            wrong.push(format!("missing: {name}"));
        }
    }
    for (name, reason) in ABSENT {
        println!("absent: {name} ({reason})");
    }
    println!("{} of upstream's {} behaviours have a test here", ours.len(), known.len());
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}
