//! Tasks of the workspace that are not part of a build: `cargo xtask NAME …`.

mod conformance;
mod cri;
mod discovery;
mod etcd;
mod go_shapes;
mod goldens;
mod operations;
mod pack;
mod proto;
mod resources;
mod tidy;

use std::path::PathBuf;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let task = args.next().unwrap_or_default();
    let folder = args.next().map(PathBuf::from);
    match (task.to_str(), folder) {
        (Some("conformance"), Some(folder)) => conformance::run(&folder),
        (Some("cri"), Some(folder)) => cri::run(&folder),
        (Some("discovery"), Some(folder)) => discovery::run(&folder),
        (Some("etcd"), Some(folder)) => etcd::run(&folder),
        (Some("go-shapes"), Some(folder)) => go_shapes::run(&folder),
        (Some("operations"), Some(folder)) => operations::run(&folder),
        (Some("resources"), Some(folder)) => resources::run(&folder),
        (Some("schema-pack"), Some(folder)) => pack::run(&folder),
        (Some("fmt"), None) => tidy::format(),
        (Some("tidy"), None) => tidy::run(),
        (Some("generated"), Some(folder)) => pack::check(&folder).and_then(|()| resources::check(&folder)),
        (Some("goldens"), Some(folder)) => goldens::run(&folder),
        _ => bail!(
            "usage: cargo xtask conformance|cri|discovery|etcd|generated|go-shapes|goldens|operations|resources|schema-pack FOLDER, or cargo xtask fmt|tidy"
        ),
    }
}
