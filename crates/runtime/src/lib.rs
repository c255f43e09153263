//! The container runtime: images, sandboxes, containers and their streams, behind CRI v1.
//!
//! It knows kernels and archives and nothing about the Kubernetes API. Reading order: [`cri`] (the
//! messages and traits everything speaks), [`streaming`] and [`network`] (the seams to kubelet and
//! pod network), [`image`] (the store), `engine` (the calls), `spec` (what the server tells its
//! helpers), [`shim`] (parent of a pod's processes), `init` (a container from clone to exec),
//! `security`, `cgroup`, `sys` (the kernel).
//!
//! The server keeps no container alive and holds nothing that a restart does not find again:
//! processes belong to shims, state to directories, mounts to the containers' own namespaces.
//!
//! ```no_run
//! # async fn example(config: skiff_runtime::Config) -> Result<(), Box<dyn std::error::Error>> {
//! use skiff_runtime::cri::ListContainersRequest;
//! use skiff_runtime::{ImageStore, Runtime, RuntimeService};
//!
//! // `main` has called `skiff_runtime::shim::dispatch(std::env::args_os())` before anything else.
//! let images = ImageStore::open(&config.data_dir, config.clock.clone(), config.random.clone())?;
//! let runtime = Runtime::open(config, images).await?;
//! let containers = runtime.list_containers(ListContainersRequest::default()).await?.containers;
//! # Ok(()) }
//! ```

#![allow(unsafe_code)] // one of the two crates that may; each block says why it is sound

mod cgroup;
mod engine;
pub mod image;
mod init;
mod security;
pub mod shim;
mod spec;
mod sys;

pub mod cri;
pub mod network;
pub mod streaming;

pub use cri::{ImageService, RuntimeService};
pub use engine::{Config, Runtime};
pub use image::ImageStore;
pub use network::{LoopbackOnly, NetworkError, SandboxNetwork};
pub use streaming::Streaming;
