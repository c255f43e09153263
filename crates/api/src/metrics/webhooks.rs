//! What is counted of calls to webhooks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::family::Family;
use super::histogram::{Histogram, WEBHOOK_SECONDS};
use super::names::Name;
use super::text::Page;
use crate::admission::webhook::review::Half;

/// Series of webhooks: their names come from configurations, which an administrator writes.
const SERIES_MAX: usize = 512;
/// Codes above are counted as this, so that a webhook cannot make series at will.
const CODE_MAX: u16 = 600;

/// Why a write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The webhook said so.
    Nobody,
    /// The webhook could not be asked.
    Calling,
    /// The server could not do what the webhook said.
    Server,
}

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write goes on.
    Allowed,
    /// The webhook could not be asked and the write goes on all the same.
    FailedOpen,
    /// The write is refused.
    Rejected(Cause),
}

/// See the [module](self).
pub struct Webhooks {
    seconds: Family<4, Histogram>,
    rejections: Family<5, AtomicU64>,
    failed_open: Family<2, AtomicU64>,
    requests: Family<5, AtomicU64>,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            seconds: Family::new(["name", "operation", "rejected", "type"], SERIES_MAX, || {
                Histogram::new(&WEBHOOK_SECONDS)
            }),
            rejections: Family::new(
                ["error_type", "name", "operation", "rejection_code", "type"],
                SERIES_MAX,
                AtomicU64::default,
            ),
            failed_open: Family::new(["name", "type"], SERIES_MAX, AtomicU64::default),
            requests: Family::new(["code", "name", "operation", "rejected", "type"], SERIES_MAX, AtomicU64::default),
        }
    }
}

impl Webhooks {
    /// Counts one call.
    pub fn called(&self, name: &str, half: Half, operation: &str, outcome: Outcome, code: u16, took: Duration) {
        let ty = match half {
            Half::Mutating => "admit",
            Half::Validating => "validating",
        };
        let code = code.min(CODE_MAX).to_string();
        let rejected = if matches!(outcome, Outcome::Rejected(_)) { "true" } else { "false" };
        self.seconds.with([name, operation, rejected, ty]).observe(took);
        self.requests.with([&code, name, operation, rejected, ty]).fetch_add(1, Ordering::Relaxed);
        match outcome {
            Outcome::Allowed => {}
            Outcome::FailedOpen => {
                self.failed_open.with([name, ty]).fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Rejected(cause) => {
                let cause = match cause {
                    Cause::Nobody => "no_error",
                    Cause::Calling => "calling_webhook_error",
                    Cause::Server => "apiserver_internal_error",
                };
                self.rejections.with([cause, name, operation, &code, ty]).fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Writes the series.
    pub(super) fn write(&self, page: &mut Page) {
        page.begin(Name::WebhookSeconds);
        self.seconds.each(|labels, value| page.histogram(Name::WebhookSeconds, labels, value));
        page.begin(Name::WebhookFailOpen);
        self.failed_open.each(|labels, value| page.value(Name::WebhookFailOpen, labels, super::counter(value)));
        page.begin(Name::WebhookRejections);
        self.rejections.each(|labels, value| page.value(Name::WebhookRejections, labels, super::counter(value)));
        page.begin(Name::WebhookRequests);
        self.requests.each(|labels, value| page.value(Name::WebhookRequests, labels, super::counter(value)));
    }
}
