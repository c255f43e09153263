//! Asking webhooks for identity and access again when an answer fails to come: with upstream's
//! pauses, and only where another attempt can help.

use std::time::Duration;

use http::StatusCode;
use skiff_base::Clock;

use crate::outbound::Error;

/// Upstream's default: five attempts, the first pause half a second, each half as long again.
const ATTEMPTS: usize = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Runs `attempt` until it succeeds, fails for good or has failed often enough.
///
/// # Errors
/// The last failure.
pub(crate) async fn send<T, F: Future<Output = Result<T, Error>>>(
    clock: &Clock,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(error) if is_passing(&error) => {
                tracing::debug!(%error, "webhook failed, trying again");
                clock.sleep(pause).await;
                pause = pause * 3 / 2;
            }
            outcome => return outcome,
        }
    }
    attempt().await
}

fn is_passing(error: &Error) -> bool {
    match error {
        Error::Status { code, .. } => {
            *code == StatusCode::TOO_MANY_REQUESTS || (code.is_server_error() && *code != StatusCode::NOT_IMPLEMENTED)
        }
        Error::Target(_) => false,
        _ => true,
    }
}
