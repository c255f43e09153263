//! One client for every component that speaks the API.
//!
//! Controllers, scheduler and node never know whether the server is in the same process or
//! across the network: they see an [`Endpoint`].

mod endpoint;

pub use endpoint::{Body, Endpoint, TransportError};
