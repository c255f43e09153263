//! The kernel's configuration protocol, spoken directly: rtnetlink, nf_tables and ctnetlink.
//!
//! A socket belongs to the network namespace of the thread that opened it and stays there, so
//! callers open sockets through [`crate::Namespace::run`] and may then use them anywhere. All
//! calls block for as long as the kernel works (micro- to milliseconds); async callers use a
//! blocking task.

mod attributes;
pub mod conntrack;
mod message;
pub(crate) mod nft;
pub mod route;
mod socket;

pub(crate) use attributes::{Attributes, text, u32_be, u32_ne};
pub(crate) use message::Message;
pub(crate) use socket::{Protocol, Socket};
