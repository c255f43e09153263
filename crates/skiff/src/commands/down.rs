//! `skiff down`: stop the cluster, keep its data.

use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Session, force, light_runtime, require_root};
use crate::control;
use crate::profile::Profile;

/// Longer than the longest grace period that a stopping server grants its pods.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);

pub fn run(session: &Session) -> Result<()> {
    require_root("down")?;
    let profile = session.existing()?;
    if stop(&profile)? {
        println!("cluster {} stopped; start it again with: skiff up -p {}", profile.name, profile.name);
    } else {
        println!("cluster {} does not run", profile.name);
    }
    // What a killed server left running belongs to the cluster too.
    force::end(session, &profile)?;
    Ok(())
}

/// Stops the server of `profile`; says whether one ran.
pub fn stop(profile: &Profile) -> Result<bool> {
    let runtime = light_runtime()?;
    let socket = profile.control_socket();
    let client = control::Client::new(&socket);
    if runtime.block_on(client.state())?.is_none() {
        return Ok(false);
    }
    runtime.block_on(client.stop())?;
    // The server holds this lock for as long as it lives, however it ends.
    let file = File::open(profile.pid_file()).with_context(|| format!("open {}", profile.pid_file().display()))?;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(file.lock());
    });
    match receiver.recv_timeout(STOP_TIMEOUT) {
        Ok(locked) => locked.context("wait for the server to end")?,
        Err(_) => bail!("the server did not stop within {} seconds; see: skiff logs", STOP_TIMEOUT.as_secs()),
    }
    Ok(true)
}
