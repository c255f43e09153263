//! The pod spec, shared by pods and everything that has a pod template.

mod containers;
mod default;
mod env;
mod placement;
mod probes;
pub(crate) mod resources;
mod security;
pub(crate) mod status;
pub(crate) mod update;
pub(crate) mod validate;
pub(crate) mod volumes;

pub(crate) use default::{pod, template, volume_claim_spec, volume_source};
pub(crate) use placement::{node_selector, toleration};
