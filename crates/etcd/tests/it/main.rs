//! The engine against real etcd processes, which the tests start themselves.
//!
//! `SKIFF_TEST_ETCD` names another binary than the `etcd` in the path. Without one the tests are
//! skipped, and say so.

mod contract;
mod etcd;
mod facade;
mod survival;
