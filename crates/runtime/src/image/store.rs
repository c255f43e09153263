//! The table of images and the directories behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use skiff_base::{Clock, Random};

use super::model::{Descriptor, ImageConfig, Manifest, media_type};
use super::reference::{Reference, is_digest};
use crate::sys::{Attempt, write_atomically};

/// Why something could not be done with an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is not here, or not in the registry.
    #[error("{0}: not found")]
    NotFound(String),
    /// The name or a document is not understood.
    #[error("{0}")]
    Invalid(String),
    /// The registry wants other credentials.
    #[error("{0}")]
    Denied(String),
    /// The registry did not answer as it should.
    #[error("{0}")]
    Registry(String),
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ImageError {
    /// A document that is not what it should be.
    pub(super) fn invalid(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::Invalid(format!("{what}: {why}"))
    }
}

/// An image that is here.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration.
    pub id: String,
    /// The digest of its manifest.
    pub manifest: Descriptor,
    /// The digest a registry knows it by: of the index it came from, or of its manifest.
    pub target: String,
    /// Full names with tags.
    pub names: BTreeSet<String>,
    /// Full names with digests.
    pub digests: BTreeSet<String>,
    /// Its configuration.
    pub config: Arc<ImageConfig>,
    /// The uncompressed bytes of its layers.
    pub size_bytes: u64,
    /// Kept by garbage collection.
    pub pinned: bool,
}

impl Image {
    /// The names of the layer directories, the top one first.
    pub fn layer_names(&self) -> Vec<String> {
        let ids = self.config.rootfs.diff_ids.iter().rev();
        ids.map(|id| id.strip_prefix("sha256:").unwrap_or(id).to_owned()).collect()
    }
}

/// What a layer takes on disk.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LayerSize {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// All images of a node. Cheap to clone.
#[derive(Clone)]
pub struct ImageStore(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) images_dir: PathBuf,
    pub(super) layers_dir: PathBuf,
    pub(super) clock: Clock,
    pub(super) random: Random,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// By id.
    images: BTreeMap<String, Image>,
    /// Layer names by container.
    held: BTreeMap<String, Vec<String>>,
    /// Layer names that an unpack or import under way must find again at its end.
    busy: BTreeMap<String, u32>,
}

/// The annotation under which containerd writes full names.
const NAME: &str = "io.containerd.image.name";
/// Our own: what a registry calls the image, and whether it is pinned.
const TARGET: &str = "dev.skiff.target";
const PINNED: &str = "dev.skiff.pinned";

impl ImageStore {
    /// Opens (or makes) the store below `data_dir`. Images whose files are not complete are
    /// dropped with a warning; left-overs of interrupted work are removed.
    ///
    /// # Errors
    /// When the directories cannot be made or the index is not readable.
    pub fn open(data_dir: &Path, clock: Clock, random: Random) -> Result<Self, ImageError> {
        let images_dir = data_dir.join("images");
        let layers_dir = data_dir.join("layers");
        fs::create_dir_all(images_dir.join("blobs/sha256")).attempt(|| format!("make {}", images_dir.display()))?;
        fs::create_dir_all(&layers_dir).attempt(|| format!("make {}", layers_dir.display()))?;
        let layout = images_dir.join("oci-layout");
        if !layout.exists() {
            write_atomically(&layout, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        let inner = Inner { images_dir, layers_dir, clock, random, table: Mutex::default() };
        let store = Self(Arc::new(inner));
        store.load_index()?;
        store.remove_unfinished()?;
        Ok(store)
    }

    fn load_index(&self) -> Result<(), ImageError> {
        let path = self.0.images_dir.join("index.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let index: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| ImageError::invalid(path.display(), error))?;
        for descriptor in index.manifests {
            let digest = descriptor.digest.clone();
            match self.read_image(descriptor) {
                Ok((image, name)) => {
                    let mut table = self.0.table.lock();
                    let known = table.images.entry(image.id.clone()).or_insert(image);
                    add_name(known, &name);
                }
                Err(error) => tracing::warn!(manifest = %digest, %error, "image is incomplete and was dropped"),
            }
        }
        Ok(())
    }

    fn read_image(&self, mut descriptor: Descriptor) -> Result<(Image, String), ImageError> {
        let mut annotations = std::mem::take(&mut descriptor.annotations);
        let name = annotations.remove(NAME).unwrap_or_default();
        let target = annotations.remove(TARGET).unwrap_or_else(|| descriptor.digest.clone());
        let pinned = annotations.contains_key(PINNED);
        let manifest: Manifest = parse(&self.read_blob(&descriptor.digest)?, &descriptor.digest)?;
        let config = manifest.config.ok_or_else(|| ImageError::invalid(&descriptor.digest, "has no config"))?;
        let image = self.assemble(descriptor, &config.digest, target, pinned)?;
        Ok((image, name))
    }

    /// An image from blobs that are here already.
    fn assemble(&self, manifest: Descriptor, id: &str, target: String, pinned: bool) -> Result<Image, ImageError> {
        let config: ImageConfig = parse(&self.read_blob(id)?, id)?;
        let mut size_bytes = 0;
        for diff_id in &config.rootfs.diff_ids {
            size_bytes += self.layer_size(diff_id)?.bytes;
        }
        Ok(Image {
            id: id.to_owned(),
            manifest,
            target,
            names: BTreeSet::new(),
            digests: BTreeSet::new(),
            config: Arc::new(config),
            size_bytes,
            pinned,
        })
    }

    /// The directory of a layer by its uncompressed digest.
    pub(super) fn layer_dir(&self, diff_id: &str) -> Result<PathBuf, ImageError> {
        if !is_digest(diff_id) {
            return Err(ImageError::invalid(diff_id, "is no digest"));
        }
        Ok(self.0.layers_dir.join(&diff_id["sha256:".len()..]))
    }

    /// The size of an unpacked layer; an error when it is not here.
    pub(super) fn layer_size(&self, diff_id: &str) -> Result<LayerSize, ImageError> {
        let dir = self.layer_dir(diff_id)?;
        let bytes =
            fs::read(dir.with_extension("json")).map_err(|_| ImageError::NotFound(format!("layer {diff_id}")))?;
        if !dir.is_dir() {
            return Err(ImageError::NotFound(format!("layer {diff_id}")));
        }
        parse(&bytes, diff_id)
    }

    /// The directory that holds the layers.
    pub fn layers_dir(&self) -> &Path {
        &self.0.layers_dir
    }

    /// Adds an image whose layers are unpacked already, under `names`, and makes it durable in
    /// the table. Names move here from other images.
    pub(super) fn commit(
        &self,
        manifest: &[u8],
        config: &[u8],
        target: Option<String>,
        names: &[Reference],
        pinned: bool,
    ) -> Result<Image, ImageError> {
        let id = self.write_blob(config)?;
        let digest = self.write_blob(manifest)?;
        let descriptor = Descriptor {
            media_type: parse::<Manifest>(manifest, &digest)?.media_type.unwrap_or_else(|| media_type::MANIFEST.into()),
            size: manifest.len() as u64,
            digest: digest.clone(),
            ..Descriptor::default()
        };
        let image = self.assemble(descriptor, &id, target.unwrap_or(digest), pinned)?;
        let mut table = self.0.table.lock();
        let entry = table.images.entry(id.clone()).or_insert_with(|| image.clone());
        entry.manifest = image.manifest;
        entry.target = image.target;
        entry.pinned |= pinned;
        for name in names {
            let tag_only = Reference { digest: None, ..name.clone() };
            if name.tag.is_some() {
                let text = tag_only.to_string();
                for other in table.images.values_mut() {
                    other.names.remove(&text);
                }
                if let Some(entry) = table.images.get_mut(&id) {
                    entry.names.insert(text);
                }
            }
            if let Some(entry) = table.images.get_mut(&id) {
                let digest = format!("{}@{}", name.name(), entry.target);
                entry.digests.insert(digest);
            }
        }
        self.write_index(&table)?;
        let image = table.images.get(&id).cloned();
        image.ok_or(ImageError::NotFound(id))
    }

    fn write_index(&self, table: &Table) -> Result<(), ImageError> {
        let mut manifests = Vec::new();
        for image in table.images.values() {
            let mut names: Vec<&String> = image.names.iter().chain(&image.digests).collect();
            let nameless = String::new();
            if names.is_empty() {
                names.push(&nameless);
            }
            for name in names {
                let mut descriptor = image.manifest.clone();
                if !name.is_empty() {
                    descriptor.annotations.insert(NAME.into(), name.clone());
                }
                descriptor.annotations.insert(TARGET.into(), image.target.clone());
                if image.pinned {
                    descriptor.annotations.insert(PINNED.into(), "true".into());
                }
                manifests.push(descriptor);
            }
        }
        let index = Manifest {
            schema_version: 2,
            media_type: Some(media_type::INDEX.into()),
            manifests,
            ..Manifest::default()
        };
        let bytes = serde_json::to_vec(&index).map_err(|error| ImageError::invalid("index", error))?;
        Ok(write_atomically(&self.0.images_dir.join("index.json"), &bytes)?)
    }

    /// Finds an image by id (`sha256:…` or its hexadecimal digits), name, or name and digest.
    pub fn find(&self, text: &str) -> Option<Image> {
        let table = self.0.table.lock();
        if let Some(image) = table.images.get(text) {
            return Some(image.clone());
        }
        if let Some(image) = table.images.get(&format!("sha256:{text}")) {
            return Some(image.clone());
        }
        let reference = Reference::parse(text).ok()?;
        let full = match &reference.digest {
            Some(digest) => format!("{}@{digest}", reference.name()),
            None => reference.to_string(),
        };
        table.images.values().find(|image| image.names.contains(&full) || image.digests.contains(&full)).cloned()
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Image> {
        self.0.table.lock().images.values().cloned().collect()
    }

    /// Removes an image with all its names (CRI's `RemoveImage`). Absent ones are fine. Layers
    /// that containers use stay until those are removed.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn remove(&self, text: &str) -> Result<(), ImageError> {
        if let Some(image) = self.find(text) {
            let mut table = self.0.table.lock();
            table.images.remove(&image.id);
            self.write_index(&table)?;
        }
        self.collect_garbage();
        Ok(())
    }

    /// Removes one name; the image goes with its last one.
    ///
    /// # Errors
    /// When there is no such image, or the table cannot be written.
    pub fn untag(&self, name: &str) -> Result<(), ImageError> {
        let image = self.find(name).ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
        let full = Reference::parse(name).map_err(ImageError::Invalid)?.to_string();
        {
            let mut table = self.0.table.lock();
            if let Some(entry) = table.images.get_mut(&image.id) {
                entry.names.remove(&full);
                if entry.names.is_empty() {
                    table.images.remove(&image.id);
                }
            }
            self.write_index(&table)?;
        }
        self.collect_garbage();
        Ok(())
    }

    /// Keeps layers while a container uses them.
    pub(crate) fn hold(&self, container: &str, layers: Vec<String>) {
        self.0.table.lock().held.insert(container.to_owned(), layers);
    }

    /// Ends [`ImageStore::hold`].
    pub(crate) fn release(&self, container: &str) {
        let last = self.0.table.lock().held.remove(container);
        // Only a layer that no image has needs a collection, which is rare.
        if let Some(layers) = last {
            let wanted = self.wanted_layers();
            if layers.iter().any(|layer| !wanted.contains(layer)) {
                self.collect_garbage();
            }
        }
    }

    /// Keeps a layer that is being made part of an image.
    pub(super) fn begin(&self, layer: &str) {
        *self.0.table.lock().busy.entry(layer.to_owned()).or_default() += 1;
    }

    /// Ends [`ImageStore::begin`].
    pub(super) fn end(&self, layer: &str) {
        let mut table = self.0.table.lock();
        if let Some(count) = table.busy.get_mut(layer) {
            *count -= 1;
            if *count == 0 {
                table.busy.remove(layer);
            }
        }
    }

    fn wanted_layers(&self) -> BTreeSet<String> {
        let table = self.0.table.lock();
        let mut wanted: BTreeSet<String> = table.images.values().flat_map(Image::layer_names).collect();
        wanted.extend(table.held.values().flatten().cloned());
        wanted.extend(table.busy.keys().cloned());
        wanted
    }

    /// Removes layers and documents that no image and no container needs.
    pub fn collect_garbage(&self) {
        let layers = self.wanted_layers();
        for entry in fs::read_dir(&self.0.layers_dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let stem = name.strip_suffix(".json").unwrap_or(&name);
            if stem.starts_with('.') || layers.contains(stem) {
                continue;
            }
            // The record goes first: a layer without one does not exist.
            let _ = fs::remove_file(self.0.layers_dir.join(format!("{stem}.json")));
            if let Err(error) = remove_dir(&self.0.layers_dir.join(stem)) {
                tracing::warn!(layer = stem, %error, "layer was not removed");
            }
        }
        let table = self.0.table.lock();
        let blobs: BTreeSet<&str> = table
            .images
            .values()
            .flat_map(|image| [image.id.as_str(), image.manifest.digest.as_str()])
            .filter_map(|digest| digest.strip_prefix("sha256:"))
            .collect();
        for entry in fs::read_dir(self.0.images_dir.join("blobs/sha256")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| !name.starts_with('.') && !blobs.contains(name))
                && table.busy.is_empty()
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Temporary files and directories of a killed process.
    fn remove_unfinished(&self) -> Result<(), ImageError> {
        for dir in [self.0.layers_dir.clone(), self.0.images_dir.join("blobs/sha256")] {
            for entry in fs::read_dir(dir)?.flatten() {
                if entry.file_name().to_string_lossy().starts_with('.') {
                    if entry.file_type()?.is_dir() {
                        remove_dir(&entry.path())?;
                    } else {
                        fs::remove_file(entry.path())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes and inodes of all layers.
    pub(crate) fn usage(&self) -> LayerSize {
        let mut total = LayerSize::default();
        for entry in fs::read_dir(&self.0.layers_dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(size) =
                    fs::read(&path).map_err(ImageError::from).and_then(|bytes| parse::<LayerSize>(&bytes, "layer"))
            {
                total.bytes += size.bytes;
                total.inodes += size.inodes;
            }
        }
        total
    }

    /// Reads a document by digest.
    pub(super) fn read_blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        if !is_digest(digest) {
            return Err(ImageError::invalid(digest, "is no digest"));
        }
        let path = self.blob_path(digest);
        let bytes = fs::read(&path).map_err(|_| ImageError::NotFound(format!("blob {digest}")))?;
        if sha256(&bytes) != digest {
            return Err(ImageError::invalid(path.display(), "content does not match its digest"));
        }
        Ok(bytes)
    }

    /// Writes a document and gives its digest.
    pub(super) fn write_blob(&self, bytes: &[u8]) -> Result<String, ImageError> {
        let digest = sha256(bytes);
        let path = self.blob_path(&digest);
        if !path.exists() {
            write_atomically(&path, bytes)?;
        }
        Ok(digest)
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.0.images_dir.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap_or(digest))
    }

    /// A path for unfinished work in `dir`, which a restart removes.
    pub(super) fn temporary(&self, dir: &Path) -> PathBuf {
        dir.join(format!(".{}", self.0.random.suffix(12)))
    }

    /// Puts a finished layer in its place. A layer that is there already wins.
    pub(super) fn place_layer(&self, temporary: &Path, diff_id: &str, size: LayerSize) -> Result<(), ImageError> {
        let dir = self.layer_dir(diff_id)?;
        let record = dir.with_extension("json");
        if self.layer_size(diff_id).is_ok() {
            return Ok(remove_dir(temporary)?);
        }
        remove_dir(&dir)?;
        fs::rename(temporary, &dir).attempt(|| format!("place layer {}", dir.display()))?;
        let bytes = serde_json::to_vec(&size).map_err(|error| ImageError::invalid(diff_id, error))?;
        Ok(write_atomically(&record, &bytes)?)
    }
}

fn add_name(image: &mut Image, name: &str) {
    if name.contains('@') {
        image.digests.insert(name.to_owned());
    } else if !name.is_empty() {
        image.names.insert(name.to_owned());
    }
}

/// Removes a directory tree that may be gone.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).attempt(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// `sha256:…` of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest_text(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// `sha256:…` of a finished hash.
pub(crate) fn digest_text(hash: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in hash {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Reads a JSON document, naming it in the error.
pub(super) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::invalid(name, error))
}
