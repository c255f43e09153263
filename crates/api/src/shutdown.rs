//! How a server ends: first it is not ready, then it takes nothing new, then what runs is finished.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::body::Body;
use crate::respond;
use crate::server::ApiServer;

/// When those who are turned away may try again, in seconds: upstream's.
const RETRY_AFTER_SECONDS: u32 = 5;

/// Who looks after the server is answered to the end, and so is the server itself; upstream's lists.
const PATHS_EXEMPT: [&str; 4] = ["/readyz", "/livez", "/healthz", "/metrics"];
const AGENT_EXEMPT: &str = "kube-apiserver/";

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
    pub(crate) fn refusal(&self, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
        if !self.0.load(Ordering::Relaxed) || is_exempt(path, headers) {
            return None;
        }
        let mut response =
            respond::text(StatusCode::TOO_MANY_REQUESTS, "The apiserver is shutting down, please try again later.\n");
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Some(response)
    }
}

fn is_exempt(path: &str, headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).map_or(&[][..], HeaderValue::as_bytes);
    agent.starts_with(AGENT_EXEMPT.as_bytes()) || PATHS_EXEMPT.iter().any(|prefix| path.starts_with(prefix))
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
