//! The Container Runtime Interface, v1: messages, traits, and their gRPC form.
//!
//! [`RuntimeService`] and [`ImageService`] are the object-safe traits that the kubelet drives.
//! The embedded runtime implements them; [`Remote`] implements them over the socket of another
//! runtime (containerd, CRI-O); [`serve`] offers any implementation on a unix socket, so `crictl`
//! works against the embedded one.

#[allow(missing_docs, unreachable_pub, deprecated, clippy::all, clippy::pedantic)]
mod generated;
mod remote;
mod serve;
mod service;

pub use generated::*;
pub use remote::Remote;
pub use serve::serve;
pub use service::{Answer, Answers, ImageService, RuntimeService};
