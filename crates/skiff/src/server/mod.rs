//! `skiff server`: one process that is a whole cluster.
//!
//! Reading order: [`run`] (the steps of a start and of a stop), [`control_plane`], [`node`],
//! [`local`] and [`dialer`] (how both meet), [`handler`] (the control socket).

mod addons;
mod api_only;
mod control_plane;
mod dialer;
mod extra_config;
mod handler;
mod images;
mod leader;
mod local;
pub mod node;
mod storage;

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use skiff_api::serve::{TlsMaterial, tls_config_for_anybody};
use skiff_base::{Clock, Random, Shutdown, Tasks};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli;
use crate::commands::Session;
use crate::components::LogWriters;
use crate::files;
use crate::pki::{Identity, Leaf, Pki};
use crate::profile::{CLUSTER_DOMAIN, KUBERNETES_SERVICE_IP, Profile};
use crate::progress::{Event, Step};

pub use control_plane::open_store;
use control_plane::{ControlPlane, FRONT_PROXY_CLIENT, FrontProxy, Parts};
use dialer::Dialer;
pub use extra_config::ExtraConfig;
use handler::ServerHandler;
use node::Host;
use storage::Storage;

/// Two are enough for a laptop's cluster, and every further one costs memory.
const WORKER_THREADS: usize = 2;
/// How long a node may take to become Ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a killed server may take to be torn down by the kernel before this one gives up.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const SERVICE_NETWORK: (IpAddr, u8) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 0)), 16);

/// Runs the server of the session's profile until it is told to stop.
pub fn run(session: &Session, options: &cli::Server) -> Result<()> {
    // A session of its own: the terminal that `up` was typed into may close.
    let _ = nix::unistd::setsid();
    let mut profile = session.existing()?;
    profile.settings.extra_config.extend_from_slice(&options.extra_config);
    let reporter = Reporter { on: options.report };
    let parts = if options.api_only { What::ApiOnly } else { What::Everything };
    let outcome = serve(session, &profile, &reporter, parts);
    if let Err(error) = &outcome {
        tracing::error!(error = format!("{error:#}"), "the server ends");
        reporter.event(&Event::Failed { error: format!("{error:#}") });
    }
    outcome
}

/// How much of a cluster is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Everything,
    ApiOnly,
}

fn serve(session: &Session, profile: &Profile, reporter: &Reporter, what: What) -> Result<()> {
    files::create_private_dir(profile.run())?;
    files::create_private_dir(&profile.logs())?;
    let _lock = lock(profile)?;
    let filter = EnvFilter::try_from_env("SKIFF_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(LogWriters::open(&profile.logs())?);
    tracing_subscriber::registry().with(filter).with(lines).try_init().context("start logging")?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .context("start the asynchronous runtime")?;
    match what {
        What::Everything => runtime.block_on(live(session, profile, reporter)),
        What::ApiOnly => runtime.block_on(api_only::live(session, profile, reporter)),
    }
}

async fn live(session: &Session, profile: &Profile, reporter: &Reporter) -> Result<()> {
    let (clock, random) = (session.clock.clone(), Random::system());
    let extra_config = ExtraConfig::parse(&profile.settings.extra_config)?;
    let tasks = Tasks::new(&profile.name, Shutdown::new());
    let began = clock.instant();
    let state = ServerHandler::new(profile);
    crate::control::serve(&profile.control_socket(), state.clone(), &tasks)?;

    // Nothing here needs the other: the slowest decides.
    let folder = profile.data().join("store");
    let opening = {
        let (extra, clock, random) = (extra_config.clone(), clock.clone(), random.clone());
        tokio::task::spawn_blocking(move || {
            tokio::runtime::Handle::current().block_on(Storage::open(folder, &extra, clock, random))
        })
    };
    let building = images::open(profile, &clock, &random);
    let machine = {
        let profile = profile.clone();
        tokio::task::spawn_blocking(move || tokio::runtime::Handle::current().block_on(node::machine(&profile)))
    };

    let certificates =
        reporter.step(&clock, Step::Certificates, async { Ok((Certificates::issue(profile, &clock)?, None)) }).await?;
    let storage = reporter
        .step(&clock, Step::Store, async {
            let storage = opening.await.context("open the store")??;
            let remark = storage.remark();
            storage.serve(profile, &clock, &tasks)?;
            Ok((storage, remark))
        })
        .await?;
    let machine = reporter
        .step(&clock, Step::Network, async {
            let (machine, changes) = machine.await.context("make the node's network")??;
            for change in &changes {
                tracing::info!(change, "changed on this machine");
            }
            Ok((machine, (!changes.is_empty()).then(|| changes.join("; "))))
        })
        .await?;
    let dialer = Dialer::new(certificates.kubelet_client()?);
    let plane = reporter
        .step(&clock, Step::Api, async {
            let parts = parts(profile, &storage, &certificates, dialer.clone(), extra_config.clone(), &clock, &tasks);
            let plane = ControlPlane::start(parts, storage.store()).await?;
            for address in [IpAddr::from([127, 0, 0, 1]), profile.host_address().into()] {
                plane.listen(SocketAddr::new(address, profile.settings.api_port)).await?;
            }
            Ok((plane, Some(profile.server_url())))
        })
        .await?;
    reporter
        .step(&clock, Step::Controllers, async {
            let controllers = tasks.group("controllers");
            if storage.is_shared() {
                // Only one server of a profile lives, so the next one goes on with what this one held.
                let identity = format!("{}_{}", profile.node_name(), profile.settings.cluster_id);
                plane.compete(&certificates.signer, &clock, &random, &controllers, &identity)?;
            } else {
                // Nobody else opens the store, so there is nobody to compete with.
                plane.start_controllers(&certificates.signer, &clock, &random, &controllers)?;
            }
            let node = storage.is_shared().then(|| profile.node_name());
            addons::dns(&plane.admin, profile.node_address(), skiff_net::dns::PORT, node.as_deref()).await?;
            addons::cluster_info(&plane.admin, &profile.server_url(), &certificates.authority).await?;
            Ok(((), None))
        })
        .await?;
    let images = building.await?;
    state.set_images(images.clone());
    let host = Host {
        profile,
        machine,
        images: images.clone(),
        tls: certificates.kubelet_serving()?,
        dialer,
        clock: clock.clone(),
        random: random.clone(),
        tasks: tasks.group("node"),
    };
    let (proxy, dns) = node::start_network(&host, &plane)?;
    let runtime = reporter.step(&clock, Step::Runtime, async { Ok((node::start_runtime(&host).await?, None)) }).await?;
    let name = profile.node_name();
    reporter
        .step(&clock, Step::Node, async {
            let kubelet = node::start_kubelet(&host, &plane, &runtime).await?;
            let all = async {
                kubelet.ready().await;
                ready(&plane, &name).await?;
                proxy.synced().await;
                dns.synced().await;
                Ok::<_, anyhow::Error>(())
            };
            match tokio::time::timeout(READY_TIMEOUT, all).await {
                Ok(outcome) => outcome?,
                Err(_) => bail!(
                    "node {name} was not Ready within {} seconds; see: skiff logs kubelet",
                    READY_TIMEOUT.as_secs()
                ),
            }
            Ok(((), Some(format!("{name} at {}", profile.node_address()))))
        })
        .await?;
    state.set_ready(began.elapsed());
    reporter.event(&Event::Ready);
    reporter.close();
    tracing::info!(millis = began.elapsed().as_millis() as u64, "ready");

    let stopping = wait_for_stop(&state).await?;
    tracing::info!(?stopping, "stopping");
    plane.api.drain().await;
    host.tasks.stop().await;
    if stopping == Stop::Everything {
        node::stop_containers(&runtime).await?;
    }
    tasks.stop().await;
    storage.close().await;
    if stopping == Stop::Everything {
        let config = node::machine_config(profile)?;
        tokio::task::spawn_blocking(move || skiff_net::Machine::delete(&config))
            .await
            .context("remove the node's network")?
            .context("remove the node's network")?;
    }
    let _ = std::fs::remove_file(profile.control_socket());
    Ok(())
}

/// What the control plane of `profile` is made of.
fn parts(
    profile: &Profile,
    storage: &Storage,
    certificates: &Certificates,
    dialer: Arc<Dialer>,
    extra_config: ExtraConfig,
    clock: &Clock,
    tasks: &Tasks,
) -> Parts {
    Parts {
        cluster: storage.cluster(profile).to_owned(),
        authority: certificates.authority.clone(),
        serving: certificates.serving.clone(),
        front_proxy: certificates.front_proxy.clone(),
        service_account_key: certificates.service_account_key.clone(),
        advertise: SocketAddr::new(profile.host_address().into(), profile.settings.api_port),
        service_cidr: SERVICE_NETWORK,
        dialer,
        extra_config,
        clock: clock.clone(),
        random: Random::system(),
        tasks: tasks.group("control-plane"),
    }
}

/// Waits until the API shows the node Ready.
async fn ready(plane: &ControlPlane, name: &str) -> Result<()> {
    let nodes = plane.informers.of::<k8s_openapi::api::core::v1::Node>();
    let mut changes = nodes.changes();
    loop {
        let is_ready = nodes.get("", name).is_some_and(|node| {
            let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        if is_ready {
            return Ok(());
        }
        changes.changed().await.context("watch the node")?;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// `skiff down`: the cluster ends, its data stays.
    Everything,
    /// A signal: this process ends, containers go on and are adopted by the next.
    Process,
}

async fn wait_for_stop(state: &ServerHandler) -> Result<Stop> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(tokio::select! {
        biased;
        () = state.stop_asked() => Stop::Everything,
        _ = terminate.recv() => Stop::Process,
        _ = interrupt.recv() => Stop::Process,
    })
}

/// Held for as long as the server lives; the kernel gives it up however the server ends.
fn lock(profile: &Profile) -> Result<File> {
    let path = profile.pid_file();
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    if file.try_lock().is_err() {
        let waiter = file.try_clone().with_context(|| format!("open {}", path.display()))?;
        let (sender, locked) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(waiter.lock().is_ok()));
        if !locked.recv_timeout(LOCK_TIMEOUT).unwrap_or(false) {
            bail!("cluster {} already runs; see: skiff status", profile.name);
        }
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(file)
}

/// A thousand watchers are a thousand sockets: take what the system allows.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// What the server shows and whom it trusts.
struct Certificates {
    authority: String,
    /// The same with its key.
    signer: Identity,
    serving: Identity,
    kubelet: Identity,
    /// Signs who may talk to kubelets. Not the cluster's authority: that one signs for users, too.
    kubelet_clients: String,
    kubelet_client: Identity,
    front_proxy: FrontProxy,
    service_account_key: String,
}

impl Certificates {
    fn issue(profile: &Profile, clock: &Clock) -> Result<Self> {
        let pki = Pki::open(&profile.pki(), clock.clone())?;
        let authority = pki.authority("ca", "kubernetes-ca")?;
        let serving = Leaf {
            common_name: "kube-apiserver".to_owned(),
            dns_names: vec![
                "kubernetes".to_owned(),
                "kubernetes.default".to_owned(),
                "kubernetes.default.svc".to_owned(),
                format!("kubernetes.default.svc.{CLUSTER_DOMAIN}"),
                "localhost".to_owned(),
            ],
            addresses: vec![[127, 0, 0, 1].into(), KUBERNETES_SERVICE_IP.into(), profile.host_address().into()],
            ..Leaf::default()
        };
        let node = profile.node_name();
        let kubelet = Leaf {
            common_name: format!("system:node:{node}"),
            organizations: vec!["system:nodes".to_owned()],
            dns_names: vec![node],
            addresses: vec![profile.node_address().into()],
        };
        let kubelet_clients = pki.authority("kubelet-client-ca", "kubelet-client-ca")?;
        let kubelet_client = Leaf { common_name: "kube-apiserver-kubelet-client".to_owned(), ..Leaf::default() };
        let front_proxies = pki.authority("front-proxy-ca", "front-proxy-ca")?;
        let front_proxy = Leaf { common_name: FRONT_PROXY_CLIENT.to_owned(), ..Leaf::default() };
        Ok(Self {
            front_proxy: FrontProxy {
                client: pki.leaf(&front_proxies, "front-proxy-client", &front_proxy)?,
                authority: front_proxies.certificate().to_owned(),
            },
            serving: pki.leaf(&authority, "apiserver", &serving)?,
            kubelet: pki.leaf(&authority, "kubelet", &kubelet)?,
            kubelet_client: pki.leaf(&kubelet_clients, "apiserver-kubelet-client", &kubelet_client)?,
            kubelet_clients: kubelet_clients.certificate().to_owned(),
            service_account_key: pki.service_account_key()?,
            authority: authority.certificate().to_owned(),
            signer: authority.identity().clone(),
        })
    }

    fn kubelet_serving(&self) -> Result<Arc<rustls::ServerConfig>> {
        let config = tls_config_for_anybody(&TlsMaterial {
            certificate: self.kubelet.certificate.clone(),
            key: self.kubelet.key.clone(),
            client_authority: self.kubelet_clients.clone(),
        })
        .context("use the kubelet's certificate")?;
        let mut config = Arc::unwrap_or_clone(config);
        // Upgrades are HTTP/1.1's, and everything else the kubelet serves is small.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn kubelet_client(&self) -> Result<Arc<rustls::ClientConfig>> {
        use rustls_pki_types::pem::PemObject;
        use rustls_pki_types::{CertificateDer, PrivateKeyDer};
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).context("read a certificate");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate(&self.authority)?).context("trust the authority")?;
        let key = PrivateKeyDer::from_pem_slice(self.kubelet_client.key.as_bytes())
            .context("read the kubelet client's key")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("choose the TLS versions")?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate(&self.kubelet_client.certificate)?], key)
            .context("use the kubelet client's certificate")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Tells `up` how far the start is.
struct Reporter {
    on: bool,
}

impl Reporter {
    fn event(&self, event: &Event) {
        if !self.on {
            return;
        }
        if let Ok(line) = serde_json::to_string(event) {
            // `up` may have been interrupted; the server goes on without a reader.
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }

    async fn step<T>(
        &self,
        clock: &Clock,
        step: Step,
        work: impl Future<Output = Result<(T, Option<String>)>>,
    ) -> Result<T> {
        self.event(&Event::Started { step });
        let began = clock.instant();
        let (value, detail) = work.await?;
        let millis = began.elapsed().as_millis() as u64;
        tracing::info!(?step, millis, detail, "started");
        self.event(&Event::Done { step, millis, detail });
        Ok(value)
    }

    /// Gives the pipe up: `up` reads until its end.
    fn close(&self) {
        if self.on
            && let Ok(null) = File::options().write(true).open("/dev/null")
        {
            let _ = nix::unistd::dup2_stdout(&null);
        }
    }
}
