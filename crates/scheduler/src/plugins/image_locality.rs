//! Prefers nodes that already have the pod's images.

use super::{Candidate, Plugin, SCORE_MAX};
use crate::config::Config;
use crate::snapshot::NodeInfo;

/// Less than this saves nothing worth mentioning (upstream's threshold, bytes).
const BYTES_MIN: i64 = 23 << 20;
/// More than this per container does not count (upstream's threshold, bytes).
const BYTES_MAX_PER_CONTAINER: i64 = 1_000 << 20;

pub(super) struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn weight(&self, _: &Config) -> i64 {
        1
    }

    fn score(&self, _: &Config, candidate: &Candidate<'_>, node: &NodeInfo) -> i64 {
        let Some(spec) = &candidate.pod.spec else { return 0 };
        let images = node.node.status.as_ref().and_then(|status| status.images.as_deref()).unwrap_or_default();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let (mut bytes, mut count) = (0_i64, 0_i64);
        for container in containers {
            count += 1;
            let wanted = container.image.as_deref().unwrap_or_default();
            let present = images.iter().find(|image| image.names.iter().flatten().any(|name| name == wanted));
            bytes = bytes.saturating_add(present.and_then(|image| image.size_bytes).unwrap_or(0));
        }
        let most = BYTES_MAX_PER_CONTAINER * count.max(1);
        SCORE_MAX * (bytes.clamp(BYTES_MIN, most.max(BYTES_MIN)) - BYTES_MIN) / (most - BYTES_MIN).max(1)
    }
}
