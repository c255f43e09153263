//! What a store accepts and how long it remembers.

use std::time::Duration;

use bytes::Bytes;

use crate::contract::Error;

/// Bounds of one store. [`Limits::default`] has etcd's and kube-apiserver's values where they
/// have one.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest key. A storage key is a cluster id, a group, a resource, a namespace and a
    /// name, together well below 1 KiB.
    pub key_bytes_max: usize,
    /// The largest value. The API takes objects of 3 MiB, to which it adds defaults and who owns which field; a
    /// definition of a custom resource may be that large. (etcd stops at 1.5 MiB unless told otherwise.)
    pub value_bytes_max: usize,
    /// Superseded versions can be read and watched from for at least this long, and for at most
    /// twice as long; kube-apiserver compacts etcd every 5 minutes.
    pub history_age: Duration,
    /// Superseded versions beyond this many bytes are compacted early: a burst of updates must
    /// not hold memory for ten minutes.
    pub history_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes_max: 4 << 10,
            value_bytes_max: 6 << 20,
            history_age: Duration::from_secs(5 * 60),
            history_bytes_max: 256 << 20,
        }
    }
}

impl Limits {
    /// Whether a key and its value may be written.
    ///
    /// # Errors
    /// The key is empty, or one of both is over its limit.
    pub fn check(&self, key: &Bytes, value: &Bytes) -> Result<(), Error> {
        if key.is_empty() {
            return Err(Error::Invalid("the key is empty".into()));
        }
        for (what, bytes, max) in [("key", key.len(), self.key_bytes_max), ("value", value.len(), self.value_bytes_max)]
        {
            if bytes > max {
                return Err(Error::TooLarge { what, bytes, max });
            }
        }
        Ok(())
    }
}
