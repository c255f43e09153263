//! What the control socket does in a running server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use parking_lot::Mutex;
use skiff_base::Shutdown;
use skiff_runtime::cri::{ImageSpec, ListImagesRequest, PullImageRequest, RemoveImageRequest};
use skiff_runtime::{ImageService, ImageStore};

use crate::control::{Handler, Image, State, Upload};
use crate::profile::Profile;

/// The running server, as its control socket shows it. Cheap to clone.
#[derive(Clone)]
pub struct ServerHandler(Arc<Inner>);

struct Inner {
    profile: Profile,
    images: Mutex<Option<ImageStore>>,
    ready: Mutex<Option<Duration>>,
    stop: Shutdown,
}

impl ServerHandler {
    /// A server that has just begun to start.
    pub fn new(profile: &Profile) -> Arc<Self> {
        Arc::new(Self(Arc::new(Inner {
            profile: profile.clone(),
            images: Mutex::default(),
            ready: Mutex::default(),
            stop: Shutdown::new(),
        })))
    }

    /// From now on images can be handled.
    pub fn set_images(&self, images: ImageStore) {
        *self.0.images.lock() = Some(images);
    }

    /// The start is complete and took `elapsed`.
    pub fn set_ready(&self, elapsed: Duration) {
        *self.0.ready.lock() = Some(elapsed);
    }

    /// Resolves once somebody has asked for a stop.
    pub async fn stop_asked(&self) {
        self.0.stop.wait().await;
    }

    fn store(&self) -> Result<ImageStore> {
        self.0.images.lock().clone().context("the images are not open yet; see: skiff status")
    }
}

fn spec(reference: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: reference.to_owned(), ..ImageSpec::default() })
}

#[async_trait]
impl Handler for ServerHandler {
    async fn state(&self) -> State {
        let ready = *self.0.ready.lock();
        State {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            server: self.0.profile.server_url(),
            ready: ready.is_some(),
            ready_millis: ready.map(|elapsed| elapsed.as_millis() as u64),
            nodes: vec![self.0.profile.node_name()],
        }
    }

    async fn stop(&self) {
        self.0.stop.signal();
    }

    async fn load_images(&self, archive: Upload) -> Result<Vec<String>> {
        let images = self.store()?;
        let reader = tokio_util::io::SyncIoBridge::new(tokio_util::io::StreamReader::new(archive));
        let loaded = tokio::task::spawn_blocking(move || images.load(reader)).await.context("load the archive")?;
        let loaded = loaded.context("load the archive")?;
        let names = |image: skiff_runtime::image::Image| -> Vec<String> {
            if image.names.is_empty() { vec![image.id] } else { image.names.into_iter().collect() }
        };
        Ok(loaded.into_iter().flat_map(names).collect())
    }

    async fn pull_image(&self, reference: &str) -> Result<String> {
        let request = PullImageRequest { image: spec(reference), ..PullImageRequest::default() };
        let response = self.store()?.pull_image(request).await;
        Ok(response
            .map_err(|status| anyhow::anyhow!("{}", status.message()))
            .with_context(|| format!("pull {reference}"))?
            .image_ref)
    }

    async fn images(&self) -> Result<Vec<Image>> {
        let response = self.store()?.list_images(ListImagesRequest::default()).await;
        let response = response.map_err(|status| anyhow::anyhow!("{}", status.message())).context("list the images")?;
        let images = response.images.into_iter();
        Ok(images.map(|image| Image { id: image.id, tags: image.repo_tags, size: image.size }).collect())
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        let response = self.store()?.remove_image(RemoveImageRequest { image: spec(reference) }).await;
        response
            .map_err(|status| anyhow::anyhow!("{}", status.message()))
            .with_context(|| format!("remove {reference}"))
            .map(drop)
    }
}
