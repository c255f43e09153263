//! The API server: one request pipeline over definitions.
//!
//! One function per verb, never one per resource: what differs between resources is in their
//! `Kind`. The server keeps no state of its own besides caches; everything is in the store.
//!
//! Map, in the order of a request: [`serve`] (bytes become requests), [`request`] (the path,
//! parsed once), [`chain`] (who, and may they), [`routes`], [`negotiate`] (formats), [`verbs`],
//! [`write`] (body to stored object), [`admission`], [`storage`] (keys and bytes), [`respond`]
//! (stored bytes or a projection of them), [`errors`] (every failure as a `Status`).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use std::sync::Arc;
//! # use skiff_base::{Clock, Random, Shutdown, Tasks};
//! use skiff_api::{ApiServer, Config, UserInfo, authn, bootstrap};
//!
//! let clock = Clock::system();
//! let server = ApiServer::new(Config::new(
//!     "example",
//!     Arc::new(skiff_store::memory::MemoryStore::new(clock.clone())),
//!     clock,
//!     Random::system(),
//!     Tasks::new("api", Shutdown::new()),
//!     authn::jws::SigningKey::generate()?,
//! ))?;
//! bootstrap::run(&server).await?;
//! let admin = server.local(UserInfo::new("admin", &[authn::MASTERS]));
//! let answer = admin.call(http::Request::get("/api/v1/namespaces/default").body(bytes::Bytes::new())?).await;
//! assert_eq!(answer.status(), 200);
//! # Ok(())
//! # }
//! ```

pub mod admission;
pub mod aggregation;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod body;
pub mod bootstrap;
pub mod chain;
mod component_statuses;
pub mod custom;
pub mod discovery;
pub mod encryption;
pub mod endpoint_lease;
pub mod errors;
mod event_lease;
pub mod fields;
pub mod flow_control;
pub mod forward;
pub mod frame;
pub mod health;
mod known;
pub mod kubeconfig;
pub mod limits;
mod listing;
pub mod meta;
pub mod metrics;
pub mod negotiate;
pub mod openapi;
pub mod outbound;
pub mod proxy;
pub mod registry;
pub mod request;
mod resource_metrics;
pub mod respond;
pub mod reviews;
pub mod routes;
mod scan;
pub mod selection;
pub mod serve;
pub mod server;
pub mod shutdown;
pub mod storage;
pub mod subresources;
pub mod table;
mod token_user;
pub mod traces;
pub mod trail;
pub mod validate;
pub mod verbs;
mod webhook_retry;
pub mod write;

pub use authn::UserInfo;
pub use server::{ApiServer, Config, Local};
pub use storage::storage_key;
