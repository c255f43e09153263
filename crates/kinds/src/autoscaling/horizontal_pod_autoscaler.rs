//! `horizontalpodautoscalers` in `autoscaling/v2`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Scales by load.
pub(crate) struct HorizontalPodAutoscalerV2(pub(crate) Facts);

impl Kind for HorizontalPodAutoscalerV2 {
    fn facts(&self) -> &Facts {
        &self.0
    }
}

/// Scales by load.
pub(crate) struct HorizontalPodAutoscalerV1(pub(crate) Facts);

impl Kind for HorizontalPodAutoscalerV1 {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
