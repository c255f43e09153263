//! The pod spec, shared by pods and everything that has a pod template.

mod default;
mod placement;
pub(crate) mod resources;
pub(crate) mod status;
pub(crate) mod validate;

pub(crate) use default::{pod, template, volume_claim_spec, volume_source};
pub(crate) use placement::{node_selector, toleration};
