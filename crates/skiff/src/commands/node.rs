//! `skiff node`: the nodes of the cluster.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use skiff_base::{Shutdown, Tasks};
use skiff_client::ListOptions;

use super::{Session, light_runtime};
use crate::cli::{Format, NodeCommand, Output};
use crate::connect;

pub fn run(session: &Session, command: &NodeCommand) -> Result<()> {
    match command {
        NodeCommand::Ls(output) => list(session, output),
    }
}

fn list(session: &Session, output: &Output) -> Result<()> {
    let profile = session.existing()?;
    let nodes: Vec<Node> = light_runtime()?.block_on(async {
        let tasks = Tasks::new("node", Shutdown::new());
        let client = connect::client(session, &profile, &tasks)?;
        let nodes = client.list_all::<Node>("", &ListOptions::default()).await;
        tasks.stop().await;
        nodes
            .with_context(|| format!("list the nodes of {}; if it does not run, start it with: skiff up", profile.name))
    })?;
    match output.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&nodes)?),
        Format::Text => {
            println!("{:<24} {:<10} {:<16} VERSION", "NODE", "READY", "ADDRESS");
            for node in &nodes {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                let status = node.status.clone().unwrap_or_default();
                let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
                let ready = ready.map_or("Unknown", |condition| condition.status.as_str());
                let addresses = status.addresses.unwrap_or_default();
                let address = addresses
                    .iter()
                    .find(|address| address.type_ == "InternalIP")
                    .map_or("-", |address| &address.address);
                let version = status.node_info.map(|info| info.kubelet_version).unwrap_or_default();
                println!("{name:<24} {ready:<10} {address:<16} {version}");
            }
        }
    }
    Ok(())
}
