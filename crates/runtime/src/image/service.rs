//! The image store behind CRI's calls.

use async_trait::async_trait;
use futures::StreamExt;
use tonic::Status;

use super::store::{Image, ImageError, ImageStore};
use crate::cri::{self as v1, Answer, Answers, ImageService};

impl From<ImageError> for Status {
    fn from(error: ImageError) -> Self {
        let text = error.to_string();
        match error {
            ImageError::NotFound(_) => Self::not_found(text),
            ImageError::Invalid(_) => Self::invalid_argument(text),
            ImageError::Denied(_) => Self::unauthenticated(text),
            ImageError::Registry(_) => Self::unavailable(text),
            ImageError::Io(_) => Self::unknown(text),
        }
    }
}

impl Image {
    /// As the interface shows it.
    pub(crate) fn to_message(&self) -> v1::Image {
        let user = self.config.config.as_ref().map(|config| config.user.clone()).unwrap_or_default();
        let name = user.split(':').next().unwrap_or_default();
        // A number or nothing is a uid; the kubelet needs it to refuse root.
        let uid = if name.is_empty() { Some(0) } else { name.parse::<i64>().ok() };
        v1::Image {
            id: self.id.clone(),
            repo_tags: self.names.iter().cloned().collect(),
            repo_digests: self.digests.iter().cloned().collect(),
            size: self.size_bytes,
            uid: uid.map(|value| v1::Int64Value { value }),
            username: if uid.is_none() { name.to_owned() } else { String::new() },
            spec: Some(v1::ImageSpec { image: self.id.clone(), ..v1::ImageSpec::default() }),
            pinned: self.pinned,
        }
    }
}

impl ImageStore {
    fn wanted(&self, filter: Option<v1::ImageFilter>) -> Vec<v1::Image> {
        let wanted = filter.and_then(|filter| filter.image).map(|image| image.image).unwrap_or_default();
        let images = if wanted.is_empty() { self.list() } else { self.find(&wanted).into_iter().collect() };
        images.iter().map(Image::to_message).collect()
    }
}

fn name(spec: Option<v1::ImageSpec>) -> Result<String, Status> {
    let name = spec.map(|spec| spec.image).unwrap_or_default();
    if name.is_empty() { Err(Status::invalid_argument("an image must be named")) } else { Ok(name) }
}

#[async_trait]
impl ImageService for ImageStore {
    async fn list_images(&self, request: v1::ListImagesRequest) -> Answer<v1::ListImagesResponse> {
        Ok(v1::ListImagesResponse { images: self.wanted(request.filter) })
    }

    async fn image_status(&self, request: v1::ImageStatusRequest) -> Answer<v1::ImageStatusResponse> {
        let image = self.find(&name(request.image)?);
        let mut info = std::collections::HashMap::new();
        if let (Some(image), true) = (&image, request.verbose)
            && let Ok(config) = serde_json::to_string(&*image.config)
        {
            info.insert("info".to_owned(), format!("{{\"imageSpec\":{config}}}"));
        }
        Ok(v1::ImageStatusResponse { image: image.as_ref().map(Image::to_message), info })
    }

    async fn pull_image(&self, request: v1::PullImageRequest) -> Answer<v1::PullImageResponse> {
        let image = self.pull(&name(request.image)?, request.auth.as_ref()).await?;
        Ok(v1::PullImageResponse { image_ref: image.id })
    }

    async fn remove_image(&self, request: v1::RemoveImageRequest) -> Answer<v1::RemoveImageResponse> {
        let (store, name) = (self.clone(), name(request.image)?);
        let removed = tokio::task::spawn_blocking(move || store.remove(&name)).await;
        removed.map_err(|error| Status::internal(error.to_string()))??;
        Ok(v1::RemoveImageResponse {})
    }

    async fn image_fs_info(&self, _: v1::ImageFsInfoRequest) -> Answer<v1::ImageFsInfoResponse> {
        let store = self.clone();
        let usage = move || {
            let layers = store.usage();
            let containers = store.0.layers_dir.with_file_name("containers");
            let written = crate::engine::tree_size(&containers);
            let entry = |dir: &std::path::Path, (bytes, inodes): (u64, u64)| v1::FilesystemUsage {
                timestamp: store.0.clock.now().as_nanos(),
                fs_id: Some(v1::FilesystemIdentifier { mountpoint: dir.display().to_string() }),
                used_bytes: Some(v1::UInt64Value { value: bytes }),
                inodes_used: Some(v1::UInt64Value { value: inodes }),
            };
            v1::ImageFsInfoResponse {
                image_filesystems: vec![entry(&store.0.layers_dir, (layers.bytes, layers.inodes))],
                container_filesystems: vec![entry(&containers, written)],
            }
        };
        tokio::task::spawn_blocking(usage).await.map_err(|error| Status::internal(error.to_string()))
    }

    async fn stream_images(&self, request: v1::StreamImagesRequest) -> Answer<Answers<v1::StreamImagesResponse>> {
        let images = self.wanted(request.filter).into_iter();
        Ok(futures::stream::iter(images.map(|image| Ok(v1::StreamImagesResponse { images: vec![image] }))).boxed())
    }
}
