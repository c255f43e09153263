//! `skiff status`: what runs.

use anyhow::Result;

use super::{Session, light_runtime};
use crate::cli::{Format, Output};
use crate::control;
use crate::profile::Profile;

pub fn run(session: &Session, output: &Output) -> Result<()> {
    let runtime = light_runtime()?;
    let mut rows = Vec::new();
    for profile in Profile::all(&session.roots)? {
        let state = runtime.block_on(control::Client::new(&profile.control_socket()).state())?;
        rows.push((profile, state));
    }
    match output.output {
        Format::Json => {
            let rows: Vec<_> = rows
                .iter()
                .map(|(profile, state)| serde_json::json!({ "profile": profile.name, "settings": profile.settings, "state": state }))
                .collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
        }
        Format::Text if rows.is_empty() => println!("no clusters; create one with: skiff up"),
        Format::Text => {
            println!("{:<16} {:<9} {:<8} {:<26} NODES", "PROFILE", "STATE", "PID", "SERVER");
            for (profile, state) in &rows {
                let (word, pid) = match state {
                    Some(state) if state.ready => ("running", state.pid.to_string()),
                    Some(state) => ("starting", state.pid.to_string()),
                    None => ("stopped", "-".to_owned()),
                };
                let nodes = state.as_ref().map_or_else(|| "-".to_owned(), |state| state.nodes.join(","));
                println!("{:<16} {word:<9} {pid:<8} {:<26} {nodes}", profile.name, profile.server_url());
            }
        }
    }
    Ok(())
}
