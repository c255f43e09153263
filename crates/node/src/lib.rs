//! The kubelet: makes the pods of one node run, and says how they are.
//!
//! It reads pods from the API, drives a container runtime through CRI, and writes status back. It
//! knows neither how containers are made (`skiff_runtime`) nor how packets flow (`skiff_net`).
//!
//! Map, in reading order: [`NodeConfig`] and [`Kubelet`] (the door), `pod` (a pod as read),
//! `observed` (the runtime's side), `plan` (what to do: pure), `worker` (does it), `status` (what
//! the API shows: pure), `start`/`stop`, `container`/`sandbox` (CRI messages), `volumes`,
//! `probes`/`check`, `logs`, `server` (HTTPS: logs, exec, attach, port-forward, statistics).
//!
//! What it never does: decide where pods run, restart what it did not start, or poll.

mod admission;
mod check;
mod collect;
mod config;
mod container;
mod cri;
mod env;
mod events;
mod follow;
mod images;
mod kubelet;
mod logs;
mod mirror;
mod node;
mod objects;
mod observed;
mod plan;
mod pod;
mod probes;
mod registration;
mod resources;
mod sandbox;
mod server;
mod sink;
mod start;
mod status;
mod stop;
mod volumes;
mod worker;

pub use config::{Component, KUBELET_PORT, NodeConfig, NodeNetwork, OwnNamespace};
pub use kubelet::{Kubelet, Parts};
