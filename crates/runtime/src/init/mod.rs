//! What runs between clone and exec: the inside of a container is built by its own first process.
//!
//! All of this runs in short-lived single-threaded processes, so ordinary Rust is allowed after a
//! clone, and nothing here touches the server's process.

pub(crate) mod container;
pub(crate) mod exec;
pub(crate) mod pause;
mod process;
mod rootfs;
mod user;
