//! What is noted about a request on its way, besides its answer.

use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Response};

use crate::audit::Recording;
use crate::audit::latency::Latencies;
use crate::body::Body;
use crate::flow_control::Classified;
use crate::traces::Trace;

/// The notes of one request, shared by everybody who looks at it.
#[derive(Default)]
pub struct Trail {
    /// The priority level and flow schema it belongs to.
    pub(crate) classified: OnceLock<Classified>,
    /// What the audit log and the answer call the request.
    pub(crate) audit_id: OnceLock<HeaderValue>,
    /// Its trace, when it is traced.
    pub(crate) trace: OnceLock<Arc<Trace>>,
    /// What the audit log is told, when it is.
    pub(crate) recording: OnceLock<Arc<Recording>>,
    /// Where its time went.
    pub(crate) latencies: Latencies,
}

impl Trail {
    /// Adds an annotation to the audit events; the first value of a key stays.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        if let Some(recording) = self.recording.get() {
            recording.annotate(key, value);
        }
    }

    /// Puts into an answer's headers what belongs there.
    pub(crate) fn mark(&self, response: &mut Response<Body>) {
        if let Some(classified) = self.classified.get() {
            classified.mark(response);
        }
    }
}
