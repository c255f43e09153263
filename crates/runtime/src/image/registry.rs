//! Pulling from a registry (OCI distribution): the manifest for this machine, then its layers in
//! parallel, each verified before it is unpacked.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use futures::{FutureExt, StreamExt, TryStreamExt};
use http_body_util::BodyExt;

use super::archive::{DOCUMENT_BYTES_MAX, choose};
use super::model::{Descriptor, ImageConfig, Manifest, media_type};
use super::reference::{Reference, is_digest};
use super::store::{Image, ImageError, ImageStore, digest_text, parse, sha256};
use super::transport::{IDLE_TIMEOUT, Registry};
use crate::cri::AuthConfig;

/// As many as containerd fetches at once.
const PARALLEL_LAYERS: usize = 3;
/// A compressed layer larger than this is refused.
const BLOB_BYTES_MAX: u64 = 64 << 30;

impl ImageStore {
    /// Pulls `name` and gives the image. Registries on a loopback address are spoken to without
    /// TLS.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Denied`] and [`ImageError::Registry`] tell apart
    /// what a pod's status shows.
    pub async fn pull(&self, name: &str, auth: Option<&AuthConfig>) -> Result<Image, ImageError> {
        let reference = Reference::parse(name).map_err(ImageError::Invalid)?;
        let insecure = is_loopback(&reference.registry);
        let registry = Registry::new(&reference.registry, &reference.repository, insecure, auth)?;
        let wanted = reference.digest.clone().or_else(|| reference.tag.clone()).unwrap_or_default();
        let (mut bytes, target) = document(&registry, "manifests", &wanted, media_type::ACCEPT).await?;
        let mut manifest: Manifest = parse(&bytes, name)?;
        if manifest.config.is_none() {
            let own = choose(&manifest)
                .ok_or_else(|| ImageError::NotFound(format!("no match for platform in manifest of {name}")))?;
            bytes = document(&registry, "manifests", &own.digest.clone(), media_type::ACCEPT).await?.0;
            manifest = parse(&bytes, name)?;
        }
        let config = manifest.config.as_ref().ok_or_else(|| ImageError::invalid(name, "is no image"))?;
        let (config_bytes, _) = document(&registry, "blobs", &config.digest, "*/*").await?;
        let config: ImageConfig = parse(&config_bytes, name)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::invalid(name, "layers and diff_ids differ in number"));
        }
        let keep = self.keep(&config.rootfs.diff_ids)?;
        let layers = manifest.layers.iter().zip(&config.rootfs.diff_ids);
        let missing = layers.filter(|(_, diff_id)| self.layer_size(diff_id).is_err());
        let pulls: Vec<_> = missing
            .map(|(layer, diff_id)| self.pull_layer(&registry, layer.clone(), diff_id.clone()).boxed())
            .collect();
        futures::stream::iter(pulls).buffer_unordered(PARALLEL_LAYERS).try_collect::<()>().await?;
        let store = self.clone();
        let commit = move || {
            let image = store.commit(&bytes, &config_bytes, Some(target), &[reference], false);
            drop(keep);
            image
        };
        tokio::task::spawn_blocking(commit).await.map_err(|error| ImageError::Registry(error.to_string()))?
    }

    async fn pull_layer(&self, registry: &Registry, layer: Descriptor, diff_id: String) -> Result<(), ImageError> {
        let unfinished = Unfinished(self.temporary(&self.0.images_dir.join("blobs/sha256")));
        let mut file = File::options().read(true).write(true).create_new(true).open(&unfinished.0)?;
        if !is_digest(&layer.digest) {
            return Err(ImageError::invalid(&layer.digest, "is no digest"));
        }
        let path = format!("blobs/{}", layer.digest);
        let mut body = registry.get(&path, "*/*").await?.into_body();
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        let mut size = 0_u64;
        let broken =
            |error: &dyn std::fmt::Display| ImageError::Registry(format!("read layer {}: {error}", layer.digest));
        while let Some(frame) = tokio::time::timeout(IDLE_TIMEOUT, body.frame())
            .await
            .map_err(|_| broken(&"nothing came for 60 seconds"))?
        {
            let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
            size += data.len() as u64;
            if size > BLOB_BYTES_MAX || (layer.size > 0 && size > layer.size) {
                return Err(broken(&"it is longer than announced"));
            }
            hash.update(&data);
            file.write_all(&data)?;
        }
        let found = digest_text(hash.finish().as_ref());
        if found != layer.digest {
            return Err(broken(&format!("its content is {found}")));
        }
        let store = self.clone();
        let unpack = move || {
            let file = File::open(&unfinished.0)?;
            let result = store.unpack_layer(std::io::BufReader::with_capacity(256 * 1024, file), &diff_id);
            drop(unfinished);
            result
        };
        tokio::task::spawn_blocking(unpack).await.map_err(|error| ImageError::Registry(error.to_string()))?
    }
}

/// A download that is removed whatever happens.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A small document and its digest; verified when it was asked for by digest.
async fn document(
    registry: &Registry,
    kind: &str,
    wanted: &str,
    accept: &'static str,
) -> Result<(Vec<u8>, String), ImageError> {
    let response = registry.get(&format!("{kind}/{wanted}"), accept).await?;
    let limited = http_body_util::Limited::new(response.into_body(), DOCUMENT_BYTES_MAX as usize);
    let failed = |error: &dyn std::fmt::Display| ImageError::Registry(format!("read {kind}/{wanted}: {error}"));
    let body =
        tokio::time::timeout(IDLE_TIMEOUT, limited.collect()).await.map_err(|_| failed(&"no end in 60 seconds"))?;
    let bytes = body.map_err(|error| failed(&error))?.to_bytes().to_vec();
    let digest = sha256(&bytes);
    if wanted.contains(':') && wanted != digest {
        return Err(failed(&format!("its content is {digest}")));
    }
    Ok((bytes, digest))
}

fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_registries_need_no_tls() {
        for (registry, expected) in [
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("[::1]:5000", true),
            ("docker.io", false),
            ("127.evil.io", false),
        ] {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
    }
}
