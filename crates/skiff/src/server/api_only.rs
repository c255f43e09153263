//! `skiff server --api-only`: the store and the API server of a cluster, for measuring them alone.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use skiff_base::{Random, Shutdown, Tasks};

use super::{Certificates, ControlPlane, Dialer, ExtraConfig, Reporter, Storage, parts, wait_for_stop};
use crate::commands::Session;
use crate::profile::Profile;
use crate::progress::{Event, Step};
use crate::server::handler::ServerHandler;

/// Runs until it is told to stop.
pub(super) async fn live(session: &Session, profile: &Profile, reporter: &Reporter) -> Result<()> {
    let clock = session.clock.clone();
    let extra_config = ExtraConfig::parse(&profile.settings.extra_config)?;
    let tasks = Tasks::new(&profile.name, Shutdown::new());
    let began = clock.instant();
    let state = ServerHandler::new(profile);
    crate::control::serve(&profile.control_socket(), state.clone(), &tasks)?;
    let certificates =
        reporter.step(&clock, Step::Certificates, async { Ok((Certificates::issue(profile, &clock)?, None)) }).await?;
    let storage = reporter
        .step(&clock, Step::Store, async {
            let folder = profile.data().join("store");
            let storage = Storage::open(folder, &extra_config, clock.clone(), Random::system()).await?;
            let remark = storage.remark();
            Ok((storage, remark))
        })
        .await?;
    let plane = reporter
        .step(&clock, Step::Api, async {
            let dialer = Dialer::new(certificates.kubelet_client()?);
            let parts = parts(profile, &storage, &certificates, dialer, extra_config, &clock, &tasks);
            let plane = ControlPlane::start(parts, storage.store()).await?;
            plane.listen(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), profile.settings.api_port)).await?;
            Ok((plane, Some(profile.server_url())))
        })
        .await?;
    state.set_ready(began.elapsed());
    reporter.event(&Event::Ready);
    reporter.close();
    wait_for_stop(&state).await?;
    plane.api.drain().await;
    tasks.stop().await;
    storage.close().await;
    let _ = std::fs::remove_file(profile.control_socket());
    Ok(())
}
