//! A store and an API server of our own, for as long as they are measured.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skiff_base::Random;

use super::{Group, scratch_name};
use crate::commands::{self, Session};
use crate::profile::Profile;

/// How long the server may take to start over many objects.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// The profile and its server; both are gone when this is dropped.
pub(super) struct Alone {
    profile: Profile,
    server: Option<Child>,
}

impl Alone {
    /// A new profile whose server does not run yet.
    pub(super) fn new(session: &Session) -> Result<Self> {
        let profile = Profile::open_or_create(&session.roots, &scratch_name(), None, &Random::system())?;
        Ok(Self { profile, server: None })
    }

    /// Starts the server and waits until it answers.
    pub(super) fn start(&mut self) -> Result<()> {
        self.server = Some(commands::launch(&self.profile, &["--api-only"], &|_| {}, START_TIMEOUT)?);
        Ok(())
    }

    /// Ends the server as `kill` does.
    pub(super) fn stop(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let pid = i32::try_from(server.id()).context("the server's process id")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).context("stop the server")?;
        server.wait().context("wait for the server to end")?;
        Ok(())
    }

    /// The profile.
    pub(super) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The server's process.
    pub(super) fn group(&self) -> Group {
        Group::of(self.server.iter().map(Child::id))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        for folder in [self.profile.run(), self.profile.data()] {
            remove(folder);
        }
    }
}

fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("warning: remove {}: {error}", folder.display());
    }
}
