//! What can go wrong with a request, in the terms a controller branches on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

use crate::TransportError;

/// The outcome of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a `Status`.
    #[error("{attempt}: {}", describe(.status))]
    Api {
        /// What was attempted: `PUT /api/v1/nodes/a`.
        attempt: String,
        /// The server's answer.
        status: Box<Status>,
    },
    /// No complete answer arrived.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// No answer within the deadline.
    #[error("{attempt}: no answer within {seconds} s")]
    Deadline {
        /// What was attempted.
        attempt: String,
        /// How long the answer was awaited.
        seconds: u64,
    },
    /// The answer (or the object to send) is not what its kind says.
    #[error("{attempt}: {cause}")]
    Codec {
        /// What was attempted.
        attempt: String,
        /// Why it does not decode or encode.
        cause: String,
    },
}

impl Error {
    /// The server's answer, when there was one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Api { status, .. } => Some(status),
            _ => None,
        }
    }

    /// The HTTP code of the server's answer; 0 when there was none.
    pub fn code(&self) -> i32 {
        self.status().and_then(|status| status.code).unwrap_or(0)
    }

    /// The machine-readable reason of the server's answer.
    pub fn reason(&self) -> &str {
        self.status().and_then(|status| status.reason.as_deref()).unwrap_or("")
    }

    /// The object (or the resource itself) does not exist.
    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound" || (self.reason().is_empty() && self.code() == 404)
    }

    /// The object was changed by somebody else, or a precondition does not hold.
    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    /// An object of that name exists.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    /// The object breaks a rule of its kind.
    pub fn is_invalid(&self) -> bool {
        self.reason() == "Invalid"
    }

    /// The identity may not do this, or a quota or policy refuses it.
    pub fn is_forbidden(&self) -> bool {
        self.reason() == "Forbidden"
    }

    /// The requested resource version or continue token is too old: list again.
    pub fn is_expired(&self) -> bool {
        self.code() == 410 || matches!(self.reason(), "Expired" | "Gone")
    }

    /// The server asks to come back later.
    pub fn is_too_many_requests(&self) -> bool {
        self.code() == 429
    }

    /// The verb does not exist for this resource.
    pub fn is_method_not_allowed(&self) -> bool {
        self.code() == 405
    }

    /// The write was refused because its namespace is going away.
    pub fn is_namespace_terminating(&self) -> bool {
        self.has_cause("NamespaceTerminating")
    }

    /// Whether the server's answer carries `cause` among its causes.
    pub fn has_cause(&self, cause: &str) -> bool {
        self.status()
            .and_then(|status| status.details.as_ref())
            .and_then(|details| details.causes.as_ref())
            .is_some_and(|causes| causes.iter().any(|found| found.reason.as_deref() == Some(cause)))
    }

    /// How long the server asks to wait, in seconds.
    pub fn retry_after_secs(&self) -> Option<u64> {
        let seconds = self.status()?.details.as_ref()?.retry_after_seconds?;
        u64::try_from(seconds).ok().filter(|seconds| *seconds > 0)
    }
}

fn describe(status: &Status) -> String {
    match (status.message.as_deref(), status.reason.as_deref()) {
        (Some(message), _) if !message.is_empty() => message.to_owned(),
        (_, Some(reason)) => reason.to_owned(),
        _ => format!("the server answered {}", status.code.unwrap_or(0)),
    }
}
