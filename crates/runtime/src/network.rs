//! The seam to the pod network: the runtime makes namespaces, somebody else connects them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::cri::PodSandboxConfig;

/// Connects the network namespaces of sandboxes. Injected, so that the runtime knows no links,
/// addresses or rules.
#[async_trait]
pub trait SandboxNetwork: Send + Sync + 'static {
    /// Connects the namespace at `netns` and gives its addresses, the primary one first.
    /// Called again with the same sandbox (after a crash) it gives the same answer.
    ///
    /// # Errors
    /// What was attempted and why it failed; the caller undoes the sandbox.
    async fn attach(
        &self,
        sandbox_id: &str,
        netns: &Path,
        config: &PodSandboxConfig,
    ) -> Result<Vec<IpAddr>, NetworkError>;

    /// Releases addresses, links and rules of the sandbox. Idempotent; the namespace may be gone
    /// already.
    ///
    /// # Errors
    /// When something is left that a repeated call might remove.
    async fn detach(&self, sandbox_id: &str, netns: &Path) -> Result<(), NetworkError>;

    /// The network namespace of the node, where sandboxes with `NamespaceMode::Node` run; `None`
    /// when that is the namespace of this process.
    fn node_netns(&self) -> Option<PathBuf>;

    /// Whether an attached sandbox has addresses. Without them a sandbox that lost its network in
    /// a crash could not be told from a good one.
    fn gives_addresses(&self) -> bool {
        true
    }

    /// Whether pods can be connected now; the reason when not. Shown as `NetworkReady`.
    fn ready(&self) -> Result<(), String>;
}

/// The network of a sandbox could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {cause}")]
pub struct NetworkError {
    /// What was attempted, on what.
    pub attempt: String,
    /// Why it failed.
    pub cause: String,
}

/// No pod network: sandboxes get a namespace with a loopback interface only. For tests, and for
/// nodes whose pods all use the node's network.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopbackOnly;

#[async_trait]
impl SandboxNetwork for LoopbackOnly {
    async fn attach(&self, _: &str, _: &Path, _: &PodSandboxConfig) -> Result<Vec<IpAddr>, NetworkError> {
        Ok(Vec::new())
    }

    async fn detach(&self, _: &str, _: &Path) -> Result<(), NetworkError> {
        Ok(())
    }

    fn node_netns(&self) -> Option<PathBuf> {
        None
    }

    fn gives_addresses(&self) -> bool {
        false
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}
