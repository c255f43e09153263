//! One client for every component that speaks the API.
//!
//! Controllers, scheduler and node never know whether the server is in the same process or
//! across the network: they see an [`Endpoint`].
//!
//! Map, in reading order: [`Endpoint`] (the seam), [`Client`] (requests), [`View`] (kinds as
//! structs), [`Watch`] (event streams).

mod client;
mod discovery;
mod endpoint;
mod error;
mod options;
mod resource;
pub mod views;
mod watch;

pub use client::{Client, ObjectList, RawList, with_query};
pub use discovery::{Discovered, Discovery};
pub use endpoint::{Body, Endpoint, TransportError};
pub use error::{Error, Result};
pub use options::{DeleteOptions, ListOptions, Patch, Propagation, Selection, WatchOptions};
pub use resource::{ObjectKey, Resource};
pub use views::{PartialObject, View};
pub use watch::{RawEvent, RawWatch, WATCH_LINE_BYTES_MAX, Watch, WatchEvent};

pub use k8s_openapi;
