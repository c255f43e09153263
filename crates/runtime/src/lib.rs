//! The container runtime: images, sandboxes, containers and their streams, behind CRI v1.
//!
//! It knows kernels and archives and nothing about the Kubernetes API. Reading order: [`cri`] (the
//! messages and traits everything speaks), [`streaming`], [`network`].

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
