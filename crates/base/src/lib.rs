//! What every other crate stands on: time, randomness, ids, supervised tasks and what is counted.
//!
//! Nothing in Skiff reads the wall clock, a random source or spawns a task by itself: these
//! effects are values handed in at the top, so a test can replay a whole cluster from a seed
//! under tokio's paused time. This crate deliberately knows nothing about Kubernetes objects.
//!
//! Reading order: [`Clock`], [`Random`], [`Tasks`], [`metrics`], [`Corked`].
//!
//! ```
//! use skiff_base::{Clock, Random};
//!
//! let random = Random::seeded(7);
//! assert_eq!(random.suffix(5).len(), 5);
//! assert!(Clock::system().now() > skiff_base::Timestamp::EPOCH);
//! ```

mod clock;
mod cork;
pub mod metrics;
mod random;
mod tasks;

pub use clock::{Clock, Timestamp};
pub use cork::Corked;
pub use random::Random;
pub use tasks::{Shutdown, Tasks};
