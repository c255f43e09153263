//! One client for every component that speaks the API.
//!
//! Controllers, scheduler and node never know whether the server is in the same process or
//! across the network: they see an [`Endpoint`].
//!
//! Map, in reading order: [`Endpoint`] (the seam), [`Client`] (requests), [`View`] (kinds as
//! structs), [`Watch`] (event streams), [`Informers`] (local copies), [`WorkQueue`] and
//! [`run_controller`] (the loop of every controller).

mod client;
mod controller;
mod counted;
mod discovery;
mod endpoint;
mod error;
pub mod events;
mod informer;
pub mod kubeconfig;
pub mod lease;
mod options;
mod queue;
mod queue_metrics;
mod reflector;
pub mod remote;
mod resource;
mod store;
pub mod time;
pub mod views;
mod watch;

pub use client::{Client, ObjectList, RawList, with_query};
pub use controller::{Next, Reconcile, run_controller};
pub use counted::Counted;
pub use discovery::{Discovered, Discovery};
pub use endpoint::{Body, Endpoint, TransportError};
pub use error::{Error, Result};
pub use events::{Events, Severity};
pub use informer::{Change, INDEX_OWNER, Informer, Informers};
pub use options::{DeleteOptions, ListOptions, Patch, Propagation, Selection, WatchOptions};
pub use queue::WorkQueue;
pub use resource::{ObjectKey, Resource};
pub use store::Snapshot;
pub use views::{PartialObject, View};
pub use watch::{RawEvent, RawWatch, WATCH_LINE_BYTES_MAX, Watch, WatchEvent};

pub use k8s_openapi;
