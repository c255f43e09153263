//! What is noted about a request on its way, besides its answer.

use std::sync::OnceLock;

use http::Response;

use crate::body::Body;
use crate::flow_control::Classified;

/// The notes of one request, shared by everybody who looks at it.
#[derive(Default)]
pub struct Trail {
    /// The priority level and flow schema it belongs to.
    pub(crate) classified: OnceLock<Classified>,
}

impl Trail {
    /// Puts into an answer's headers what belongs there.
    pub(crate) fn mark(&self, response: &mut Response<Body>) {
        if let Some(classified) = self.classified.get() {
            classified.mark(response);
        }
    }
}
