//! What each command does. One file per command.

mod delete;
mod doctor;
mod down;
mod force;
mod image;
mod kubeconfig;
mod logs;
mod node;
mod status;
mod up;

use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use skiff_base::Clock;

use crate::cli::{Cli, Command, DemoCommand, Format, Output};
use crate::profile::{Profile, Roots};

pub use kubeconfig::entry as kubeconfig_entry;
pub use up::{launch, step};

/// What every command gets.
pub struct Session {
    /// Where the profiles lie.
    pub roots: Roots,
    /// The name of the profile to act on.
    pub profile: String,
    /// The machine's clock.
    pub clock: Clock,
}

impl Session {
    /// The profile to act on, which must exist.
    pub fn existing(&self) -> Result<Profile> {
        Profile::open(&self.roots, &self.profile)?.with_context(|| {
            format!("there is no cluster {:?}; create it with: skiff up -p {}", self.profile, self.profile)
        })
    }
}

/// Runs the command.
pub fn run(cli: Cli) -> Result<()> {
    let session = Session { roots: Roots::default(), profile: cli.profile, clock: Clock::system() };
    match cli.command {
        Command::Up(options) => up::run(&session, &options),
        Command::Down => down::run(&session),
        Command::Status(output) => status::run(&session, &output),
        Command::Delete(options) => delete::run(&session, &options),
        Command::Kubeconfig(options) => kubeconfig::run(&session, &options),
        Command::Node { command } => node::run(&session, &command),
        Command::Image { command } => image::run(&session, &command),
        Command::Doctor(output) => doctor::run(&session, &output),
        Command::Logs(options) => logs::run(&session, &options),
        Command::Bench(options) => crate::bench::run(&session, &options),
        Command::Version(output) => version(&output),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "skiff", &mut std::io::stdout());
            Ok(())
        }
        Command::Server(options) => crate::server::run(&session, &options),
        Command::Demo { command } => light_runtime()?.block_on(async {
            match command {
                DemoCommand::Serve { listen } => crate::demo::serve(listen).await,
                DemoCommand::Get { url } => crate::demo::get(&url).await,
            }
        }),
    }
}

/// One thread is enough for every command but the server.
pub fn light_runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the asynchronous runtime")
}

/// Namespaces, mounts and control groups are root's to make.
pub fn require_root(command: &str) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "skiff {command} makes network namespaces, mounts and control groups and needs root; run: sudo skiff {command}"
        );
    }
    Ok(())
}

fn version(output: &Output) -> Result<()> {
    let (skiff, kubernetes) = (env!("CARGO_PKG_VERSION"), skiff_api::discovery::GIT_VERSION);
    match output.output {
        Format::Text => println!("skiff {skiff}\nkubernetes {kubernetes}"),
        Format::Json => println!("{}", serde_json::json!({ "skiff": skiff, "kubernetes": kubernetes })),
    }
    Ok(())
}
