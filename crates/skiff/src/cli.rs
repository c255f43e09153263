//! The command line: what it accepts. What it does is in [`crate::commands`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Kubernetes v1.36 in one small binary.
#[derive(Debug, Parser)]
#[command(name = "skiff", version, about, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// The cluster to act on
    #[arg(short, long, global = true, default_value = "default", env = "SKIFF_PROFILE", value_name = "NAME")]
    pub profile: String,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the cluster, creating it first if needed
    Up(Up),
    /// Stop the cluster and keep its data
    Down,
    /// Show what runs
    Status(Output),
    /// Remove the cluster and everything it left on this machine
    Delete(Delete),
    /// Print the kubeconfig, or merge it into yours
    Kubeconfig(Kubeconfig),
    /// Look at the nodes
    Node {
        /// What to do with the nodes
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Handle the images of the node
    Image {
        /// What to do with the images
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Check whether this machine has what a cluster needs
    Doctor(Output),
    /// Show the logs of the system components
    Logs(Logs),
    /// Measure this cluster, or any other by its kubeconfig
    Bench(Bench),
    /// Print the version
    Version(Output),
    /// Print a completion script
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Run the cluster in the foreground (what `up` starts in the background)
    #[command(hide = true)]
    Server(Server),
    /// Run a part of the demo application (what its containers run)
    #[command(hide = true)]
    Demo {
        /// Which part
        #[command(subcommand)]
        command: DemoCommand,
    },
}

/// Options of `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Deploy the demo application and print its URL
    #[arg(long)]
    pub demo: bool,
    /// How to show progress
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    pub progress: Progress,
    /// The port of the API server on 127.0.0.1 (chosen when the cluster is created)
    #[arg(long, value_name = "PORT")]
    pub api_port: Option<u16>,
    /// Leave the kubeconfig alone
    #[arg(long)]
    pub no_kubeconfig: bool,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub timeout: u64,
    /// A flag of kube-apiserver, as `apiserver.FLAG=VALUE`; may be repeated. Those given replace those
    /// of the last `up`; a single empty one removes them all
    #[arg(long, value_name = "COMPONENT.FLAG=VALUE")]
    pub extra_config: Vec<String>,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Live on a terminal, plain lines otherwise
    Auto,
    /// A line per step
    Plain,
    /// A JSON object per line
    Json,
}

/// How a result is printed.
#[derive(Debug, Args)]
pub struct Output {
    /// Print JSON
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Options of `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Delete every cluster of this machine
    #[arg(long)]
    pub all: bool,
}

/// Options of `kubeconfig`.
#[derive(Debug, Args)]
pub struct Kubeconfig {
    /// Merge into $KUBECONFIG or ~/.kube/config instead of printing
    #[arg(long)]
    pub merge: bool,
}

/// `node` commands.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the nodes
    Ls(Output),
}

/// `image` commands.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Load images from a docker-archive or OCI archive
    Load {
        /// The archive; `-` for standard input
        archive: PathBuf,
    },
    /// Pull an image from its registry
    Pull {
        /// The reference, as in a pod
        image: String,
    },
    /// List the images
    Ls(Output),
    /// Remove images
    Rm {
        /// References or ids
        #[arg(required = true)]
        images: Vec<String>,
    },
}

/// Options of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The component; all when absent
    pub component: Option<String>,
    /// Go on as lines come
    #[arg(short, long)]
    pub follow: bool,
    /// How many lines of each component to begin with
    #[arg(long, default_value_t = 50, value_name = "LINES")]
    pub tail: usize,
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Which measurements; those that take seconds when absent
    #[arg(value_enum)]
    pub what: Vec<Measurement>,
    /// Measure the cluster of this kubeconfig instead
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Measure a store and an API server made for this and removed again: no controllers, no node
    #[arg(long, conflicts_with = "kubeconfig")]
    pub api_only: bool,
    /// How many objects the measurements of large collections make; each has its own default
    #[arg(long, value_name = "N")]
    pub objects: Option<usize>,
    /// How long each measurement runs, in seconds
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    pub seconds: u64,
    /// How many clients write and read at once
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub clients: usize,
    /// How many watchers the fan-out has
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub watchers: usize,
    /// Print JSON
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
}

/// What `bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measurement {
    /// Durable writes straight into a store on this disk
    Store,
    /// Durable creates of pods through the API
    Create,
    /// GET of one pod
    Get,
    /// Memory for each byte of many pods, while they are there and after they are gone
    Memory,
    /// From the start of an API server over many objects until it is ready
    Restart,
    /// LIST of many objects
    List,
    /// Events delivered to many watchers
    Watch,
    /// LIST of 150,000 pods in every form: first byte, cost, memory (only by name)
    LongList,
    /// Selectors over 300,000 objects (only by name)
    Selector,
    /// 1,000 changes a second to many watchers: how late they are (only by name)
    FanOut,
    /// 1,000 custom resource definitions: memory, OpenAPI, discovery (only by name)
    Definitions,
    /// Pod create to Running
    Pod,
    /// Memory and processor of the idle cluster
    Idle,
    /// `skiff up` to node Ready, in a cluster of its own
    Start,
}

/// Options of `server`.
#[derive(Debug, Args)]
pub struct Server {
    /// Report progress as JSON lines on standard output
    #[arg(long)]
    pub report: bool,
    /// Only the store and the API server: no controllers, no scheduler, no node
    #[arg(long)]
    pub api_only: bool,
    /// A flag of kube-apiserver, as `apiserver.FLAG=VALUE`, besides those kept in the profile
    #[arg(long, value_name = "COMPONENT.FLAG=VALUE")]
    pub extra_config: Vec<String>,
}

/// Parts of the demo application.
#[derive(Debug, Subcommand)]
pub enum DemoCommand {
    /// Answer over HTTP
    Serve {
        /// Where to listen
        #[arg(long, default_value = "0.0.0.0:8080")]
        listen: std::net::SocketAddr,
    },
    /// Print what a URL answers
    Get {
        /// `http://HOST[:PORT][/PATH]`
        url: String,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
