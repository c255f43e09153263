//! Why a call did not work, in the words of Go's HTTP client.

use std::error::Error as StdError;
use std::io;

use http::StatusCode;

/// Why a call to another server failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The target itself makes no sense: address, certificates or credentials.
    #[error("{0}")]
    Target(String),
    /// The Service, or its port, is not there.
    #[error("{0}")]
    Service(String),
    /// The Service has no endpoint that is ready.
    #[error("no endpoints available for service {0:?}")]
    NoEndpoints(String),
    /// Not done within the time it was given.
    #[error("context deadline exceeded")]
    Timeout,
    /// Nobody listens.
    #[error("dial tcp {0}: connect: connection refused")]
    Refused(String),
    /// The connection could not be made for another reason.
    #[error("dial tcp {address}: {cause}")]
    Dial {
        /// Where to.
        address: String,
        /// Why not.
        cause: String,
    },
    /// The handshake failed; the certificate is not to be believed, mostly.
    #[error("{0}")]
    Tls(String),
    /// The connection broke, or what came was not HTTP.
    #[error("{0}")]
    Broken(String),
    /// Another status than a success.
    #[error("the server answered {code}: {excerpt}")]
    Status {
        /// The status.
        code: StatusCode,
        /// The beginning of the body.
        excerpt: String,
    },
    /// The answer has more bytes than allowed.
    #[error("the answer is longer than {bytes_max} bytes")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
    },
}

impl Error {
    /// Why a TCP connection was not made.
    pub(super) fn dialing(address: &dyn std::fmt::Display, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused(address.to_string()),
            io::ErrorKind::TimedOut => Self::Dial { address: address.to_string(), cause: "i/o timeout".into() },
            io::ErrorKind::HostUnreachable => {
                Self::Dial { address: address.to_string(), cause: "connect: no route to host".into() }
            }
            // A dialer in another network namespace may wrap the system's error.
            _ if error.to_string().contains("Connection refused") => Self::Refused(address.to_string()),
            _ => Self::Dial { address: address.to_string(), cause: error.to_string() },
        }
    }

    /// Why the TLS handshake failed.
    pub(crate) fn handshake(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => {
                Self::Tls(format!("tls: failed to verify certificate: x509: {}", certificate(why)))
            }
            Some(rustls::Error::AlertReceived(alert)) => Self::Tls(format!("remote error: tls: {alert:?}")),
            Some(rustls::Error::InvalidMessage(_)) => {
                Self::Tls("tls: first record does not look like a TLS handshake".into())
            }
            Some(other) => Self::Tls(format!("tls: {other}")),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Broken("EOF".into()),
            None => Self::Tls(format!("tls: {error}")),
        }
    }

    /// What hyper says; our own errors come back through its chain.
    pub(super) fn of_client(error: hyper_util::client::legacy::Error) -> Self {
        Self::find(&error).unwrap_or_else(|| Self::Broken(innermost(&error)))
    }

    pub(super) fn of_hyper(error: hyper::Error) -> Self {
        Self::find(&error).unwrap_or_else(|| Self::Broken(innermost(&error)))
    }

    fn find(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(own) = error.downcast_ref::<Self>() {
                return Some(own.clone());
            }
            if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
                return Some(Self::Broken("EOF".into()));
            }
            next = error.source();
        }
        None
    }
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

fn certificate(error: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Why;
    match error {
        Why::UnknownIssuer | Why::BadSignature => "certificate signed by unknown authority".into(),
        Why::Expired | Why::NotValidYet | Why::ExpiredContext { .. } | Why::NotValidYetContext { .. } => {
            "certificate has expired or is not yet valid".into()
        }
        Why::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            let names: Vec<&str> = presented.iter().map(|name| presented_name(name)).collect();
            if names.is_empty() {
                format!("certificate is not valid for any names, but wanted to match {expected}")
            } else {
                format!("certificate is valid for {}, not {expected}", names.join(", "))
            }
        }
        Why::NotValidForName => "certificate is not valid for this name".into(),
        other => other.to_string(),
    }
}

/// `DnsName("a.example")` without its wrapping.
fn presented_name(debug: &str) -> &str {
    debug.split_once('(').map_or(debug, |(_, rest)| rest.trim_end_matches(')').trim_matches('"'))
}
