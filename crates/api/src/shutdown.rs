//! How a server ends: first it is not ready, then it takes nothing new, then what runs is finished.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};

use crate::body::Body;
use crate::respond;
use crate::server::ApiServer;

/// When those who are turned away may try again, in seconds: upstream's.
const RETRY_AFTER_SECONDS: u32 = 5;

/// What the server's flags say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How long the server goes on while `/readyz` fails, so that nobody is sent to it any more
    /// (`--shutdown-delay-duration`).
    pub delay: Duration,
    /// Whether requests that come after that are told to try again instead of finding a closed port
    /// (`--shutdown-send-retry-after`).
    pub send_retry_after: bool,
}

/// Whether new requests are turned away.
#[derive(Default)]
pub(crate) struct Closing(AtomicBool);

impl Closing {
    /// The answer to a request that comes too late.
    pub(crate) fn refusal(&self) -> Option<Response<Body>> {
        if !self.0.load(Ordering::Relaxed) {
            return None;
        }
        let mut response =
            respond::text(StatusCode::TOO_MANY_REQUESTS, "The apiserver is shutting down, please try again later.\n");
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Some(response)
    }
}

impl ApiServer {
    /// Begins to end: `/readyz` fails at once, and when this returns the delay is over. What is to
    /// come next is that the server's tasks are stopped, which drains connections and ends watches.
    pub async fn drain(&self) {
        let settings = self.config.shutdown;
        self.health.set_stopping();
        if !settings.delay.is_zero() {
            tracing::info!(seconds = settings.delay.as_secs_f64(), "not ready any more; going on for a while");
            self.clock().sleep(settings.delay).await;
        }
        if settings.send_retry_after {
            self.closing.0.store(true, Ordering::Relaxed);
        }
    }
}
