//! What can go wrong between us and the kernel.

use std::fmt;

use nix::errno::Errno;

/// An operation on the network that failed: what was attempted, on what, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{attempt} {object}: {cause}")]
pub struct NetError {
    /// The verb: `add link`, `open namespace`.
    pub attempt: &'static str,
    /// The object: a link name, a path, an address.
    pub object: String,
    /// Why.
    pub cause: Cause,
}

/// Why a [`NetError`] happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The kernel refused, with its own words when it gave any.
    Kernel {
        /// The error number.
        errno: Errno,
        /// The extended acknowledgement's message.
        detail: Option<String>,
    },
    /// The answer or the request makes no sense; says how.
    Invalid(String),
    /// A bounded resource is used up; says which.
    Exhausted(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { errno, detail: Some(detail) } => write!(f, "{errno} ({detail})"),
            Self::Kernel { errno, detail: None } => write!(f, "{errno}"),
            Self::Invalid(why) | Self::Exhausted(why) => f.write_str(why),
        }
    }
}

/// The result of every operation here.
pub type Result<T, E = NetError> = std::result::Result<T, E>;

impl NetError {
    pub(crate) fn new(attempt: &'static str, object: impl Into<String>, cause: Cause) -> Self {
        Self { attempt, object: object.into(), cause }
    }

    pub(crate) fn errno(attempt: &'static str, object: impl Into<String>, errno: Errno) -> Self {
        Self::new(attempt, object, Cause::Kernel { errno, detail: None })
    }

    pub(crate) fn io(attempt: &'static str, object: impl Into<String>, error: &std::io::Error) -> Self {
        let cause = match error.raw_os_error() {
            Some(code) => Cause::Kernel { errno: Errno::from_raw(code), detail: None },
            None => Cause::Invalid(error.to_string()),
        };
        Self::new(attempt, object, cause)
    }

    pub(crate) fn invalid(attempt: &'static str, object: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(attempt, object, Cause::Invalid(why.into()))
    }

    /// The kernel's error number, when the kernel refused.
    pub fn kernel(&self) -> Option<Errno> {
        match &self.cause {
            Cause::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// Turns the errors that mean "it is already so" into success.
pub(crate) trait Already {
    /// Success when the kernel says the object exists.
    fn or_exists(self) -> Result<()>;
    /// Success when the kernel says the object is gone.
    fn or_gone(self) -> Result<()>;
}

impl Already for Result<()> {
    fn or_exists(self) -> Result<()> {
        match self {
            Err(error) if error.kernel() == Some(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    fn or_gone(self) -> Result<()> {
        match self {
            Err(error) if matches!(error.kernel(), Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH)) => Ok(()),
            other => other,
        }
    }
}
