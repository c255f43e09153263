//! What a container may do: capabilities and system calls.

pub(crate) mod capabilities;
pub(crate) mod default_profile;
pub(crate) mod seccomp;
