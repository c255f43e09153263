//! `skiff delete`: the cluster and everything it left on this machine.
//!
//! Works whatever state the cluster is in: stopped, starting, running, or with its server killed
//! while pods run.

use anyhow::{Context, Result};

use super::{Session, down, force, kubeconfig, require_root};
use crate::cli;
use crate::profile::Profile;

pub fn run(session: &Session, options: &cli::Delete) -> Result<()> {
    require_root("delete")?;
    let profiles = if options.all { Profile::all(&session.roots)? } else { vec![session.existing()?] };
    for profile in profiles {
        delete(session, &profile).with_context(|| format!("delete cluster {}", profile.name))?;
        println!("cluster {} deleted", profile.name);
    }
    Ok(())
}

fn delete(session: &Session, profile: &Profile) -> Result<()> {
    if let Err(error) = down::stop(profile) {
        eprintln!("warning: {error:#}; removing the cluster by force");
    }
    force::end(session, profile)?;
    let before = profile.before().unwrap_or_else(|error| {
        eprintln!("warning: {error:#}");
        None
    });
    for folder in [profile.run(), profile.data()] {
        force::unmount_below(folder)?;
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", folder.display()));
            }
            _ => {}
        }
    }
    // Only the last cluster leaves them empty.
    for folder in [&session.roots.run, &session.roots.data] {
        let _ = std::fs::remove_dir(folder);
    }
    kubeconfig::take_out(session, profile, before.as_ref())
}
