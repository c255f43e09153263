//! Pulling from a registry.

use super::store::{Image, ImageError, ImageStore};
use crate::cri::AuthConfig;

impl ImageStore {
    /// Pulls `name`.
    ///
    /// # Errors
    /// Always, for now: there is no registry client yet.
    pub async fn pull(&self, name: &str, _auth: Option<&AuthConfig>) -> Result<Image, ImageError> {
        Err(ImageError::Registry(format!("pull {name}: this build has no registry client; load an archive")))
    }
}
