//! What the kernel does with what we tell it: real packets between namespaces of our own.
//!
//! Every test makes a "host" namespace for itself, so it needs root but leaves the machine alone.
#![allow(clippy::disallowed_methods)] // a test may read the clock to measure

mod api;
mod dns;
mod egress;
mod lab;
mod pods;
mod services;
