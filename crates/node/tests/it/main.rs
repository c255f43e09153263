//! The kubelet on a real API server (memory store) with a runtime that only pretends.

#![allow(clippy::unwrap_used)]

mod access;
mod cluster;
mod fake;
mod pods;
mod streams;
