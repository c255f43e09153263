//! The network of a node: its machine, its pods, the Service proxy and the cluster's DNS.
//!
//! A node is a [`Machine`]: a network namespace on the cluster's bridge. Inside it
//! [`pod::PodNetwork`] wires sandboxes, [`proxy`] programs Services into nftables by netlink, and
//! [`dns`] answers names. All kernel objects carry the cluster's tag or live inside the
//! namespace, so removing a machine leaves nothing behind.
//!
//! Reading order: [`Namespace`], [`Machine`], [`pod`], [`proxy`], [`dns`]; [`netlink`] is how
//! they speak to the kernel. NetworkPolicy is not here yet: pods are wired point to point, so
//! that all their traffic passes the machine's forward hook, where its table will stand.
//!
//! ```
//! use skiff_net::Cidr;
//!
//! let pods: Cidr = "10.244.0.0/24".parse()?;
//! assert_eq!(pods.nth(5).map(|it| it.to_string()).as_deref(), Some("10.244.0.5"));
//! # Ok::<(), skiff_net::ParseCidrError>(())
//! ```
#![allow(unsafe_code)] // socket options that nix does not know; see `netlink::socket`

mod cidr;
pub mod dns;
mod error;
mod machine;
mod namespace;
pub mod netlink;
pub mod pod;
mod probe;
pub mod proxy;

pub use cidr::{Cidr, ParseCidrError};
pub use error::{Cause, NetError, Result};
pub use machine::{ClusterTag, HostChange, Machine, MachineConfig, UPLINK, free_subnet};
pub use namespace::Namespace;
pub use probe::{forward_drops, probe};
