//! Images from files: `docker save` archives and OCI layouts in a tar, compressed or not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::model::{Descriptor, ImageConfig, Manifest, architecture, media_type};
use super::reference::{Reference, is_digest};
use super::store::{Image, ImageError, ImageStore, parse, sha256};
use super::unpack::decompressed;

/// Documents in an archive are small.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// More files than this are no image archive.
const FILES_MAX: usize = 100_000;
/// An index may name an index, and so on.
const INDEX_DEPTH_MAX: u32 = 4;

/// An entry of docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl ImageStore {
    /// Loads every image of an archive that fits this machine. Blocking.
    ///
    /// # Errors
    /// When the archive is neither kind, is broken, or holds no image for this machine.
    pub fn load(&self, archive: impl Read) -> Result<Vec<Image>, ImageError> {
        // Its table of contents may be at its end, so it must be seekable.
        let spool = self.temporary(&self.0.images_dir.join("blobs/sha256"));
        let mut file = File::options().read(true).write(true).create_new(true).open(&spool)?;
        std::fs::remove_file(&spool)?;
        io::copy(&mut decompressed(archive)?, &mut file)?;
        let archive = Archive::scan(file)?;
        if archive.has("manifest.json") {
            self.load_docker(&archive)
        } else if archive.has("index.json") {
            self.load_oci(&archive)
        } else {
            Err(ImageError::Invalid("the archive has neither manifest.json (docker save) nor index.json (OCI)".into()))
        }
    }

    fn load_docker(&self, archive: &Archive) -> Result<Vec<Image>, ImageError> {
        let images: Vec<DockerImage> = parse(&archive.document("manifest.json")?, "manifest.json")?;
        let mut loaded = Vec::new();
        for image in images {
            let bytes = archive.document(&image.config)?;
            let config: ImageConfig = parse(&bytes, &image.config)?;
            if config.rootfs.diff_ids.len() != image.layers.len() {
                return Err(ImageError::invalid(&image.config, "layers and diff_ids differ in number"));
            }
            let names = image.repo_tags.unwrap_or_default();
            let names: Result<Vec<_>, _> = names.iter().map(|name| Reference::parse(name)).collect();
            let names = names.map_err(ImageError::Invalid)?;
            let mut layers = Vec::new();
            for (diff_id, layer) in config.rootfs.diff_ids.iter().zip(&image.layers) {
                layers.push(Descriptor {
                    media_type: media_type::LAYER.into(),
                    digest: diff_id.clone(),
                    size: archive.size(layer)?,
                    ..Descriptor::default()
                });
            }
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(media_type::MANIFEST.into()),
                config: Some(Descriptor {
                    media_type: media_type::CONFIG.into(),
                    digest: sha256(&bytes),
                    size: bytes.len() as u64,
                    ..Descriptor::default()
                }),
                layers,
                manifests: Vec::new(),
            };
            let manifest = serde_json::to_vec(&manifest).map_err(|error| ImageError::invalid("manifest", error))?;
            let readers = image.layers.iter().map(|layer| archive.open(layer));
            loaded.push(self.add(&config, readers, &manifest, &bytes, None, &names)?);
        }
        Ok(loaded)
    }

    fn load_oci(&self, archive: &Archive) -> Result<Vec<Image>, ImageError> {
        let index: Manifest = parse(&archive.document("index.json")?, "index.json")?;
        let mut loaded = Vec::new();
        for descriptor in &index.manifests {
            let Some((bytes, manifest)) = find_manifest(archive, descriptor, 0)? else { continue };
            let config =
                manifest.config.clone().ok_or_else(|| ImageError::invalid(&descriptor.digest, "has no config"))?;
            let config_bytes = archive.blob(&config.digest)?;
            let config: ImageConfig = parse(&config_bytes, &config.digest)?;
            if config.rootfs.diff_ids.len() != manifest.layers.len() {
                return Err(ImageError::invalid(&descriptor.digest, "layers and diff_ids differ in number"));
            }
            let annotations = &descriptor.annotations;
            let name = annotations.get("io.containerd.image.name").or_else(|| {
                annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']))
            });
            let names = name.map(|name| Reference::parse(name)).transpose().map_err(ImageError::Invalid)?;
            let names: Vec<_> = names.into_iter().collect();
            let mut paths = Vec::new();
            for layer in &manifest.layers {
                paths.push(blob_path(&layer.digest)?);
            }
            let readers = paths.iter().map(|path| archive.open(path));
            let target = Some(descriptor.digest.clone());
            loaded.push(self.add(&config, readers, &bytes, &config_bytes, target, &names)?);
        }
        if loaded.is_empty() {
            return Err(ImageError::Invalid(format!("the archive has no image for linux/{}", architecture())));
        }
        Ok(loaded)
    }

    /// Unpacks the layers and puts the image into the table.
    fn add<R: Read>(
        &self,
        config: &ImageConfig,
        layers: impl Iterator<Item = Result<R, ImageError>>,
        manifest: &[u8],
        config_bytes: &[u8],
        target: Option<String>,
        names: &[Reference],
    ) -> Result<Image, ImageError> {
        let keep = self.keep(&config.rootfs.diff_ids)?;
        for (diff_id, layer) in config.rootfs.diff_ids.iter().zip(layers) {
            self.unpack_layer(layer?, diff_id)?;
        }
        let image = self.commit(manifest, config_bytes, target, names, false);
        drop(keep);
        image
    }

    /// Keeps layers from garbage collection while the value lives.
    pub(super) fn keep(&self, diff_ids: &[String]) -> Result<Kept, ImageError> {
        let mut names = Vec::new();
        for diff_id in diff_ids {
            if !is_digest(diff_id) {
                return Err(ImageError::invalid(diff_id, "is no digest"));
            }
            names.push(diff_id["sha256:".len()..].to_owned());
        }
        names.iter().for_each(|name| self.begin(name));
        Ok(Kept(self.clone(), names))
    }
}

/// See [`ImageStore::keep`].
pub(super) struct Kept(ImageStore, Vec<String>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.1.iter().for_each(|name| self.0.end(name));
    }
}

/// The manifest for this machine below a descriptor; `None` when there is none.
fn find_manifest(
    archive: &Archive,
    descriptor: &Descriptor,
    depth: u32,
) -> Result<Option<(Vec<u8>, Manifest)>, ImageError> {
    let bytes = archive.blob(&descriptor.digest)?;
    let manifest: Manifest = parse(&bytes, &descriptor.digest)?;
    if manifest.config.is_some() {
        return Ok(Some((bytes, manifest)));
    }
    match choose(&manifest) {
        Some(next) if depth < INDEX_DEPTH_MAX => find_manifest(archive, next, depth + 1),
        _ => Ok(None),
    }
}

/// The entry of an index for this machine. Entries without a platform may fit.
pub(super) fn choose(index: &Manifest) -> Option<&Descriptor> {
    let fits = |descriptor: &&Descriptor| {
        descriptor
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "linux" && platform.architecture == architecture())
    };
    let any = |descriptor: &&Descriptor| descriptor.platform.is_none();
    index.manifests.iter().find(fits).or_else(|| index.manifests.iter().find(any))
}

fn blob_path(digest: &str) -> Result<String, ImageError> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if is_digest(digest) => Ok(format!("blobs/sha256/{hex}")),
        _ => Err(ImageError::invalid(digest, "is no digest")),
    }
}

/// A tar whose files can be read in any order.
struct Archive {
    file: File,
    files: BTreeMap<PathBuf, Place>,
}

enum Place {
    At {
        offset: u64,
        size: u64,
    },
    /// Old archives link a layer that two images share.
    Link(PathBuf),
}

impl Archive {
    fn scan(mut file: File) -> Result<Self, ImageError> {
        file.seek(SeekFrom::Start(0))?;
        let mut files = BTreeMap::new();
        let mut archive = tar::Archive::new(io::BufReader::new(&file));
        for entry in archive.entries()? {
            let entry = entry?;
            let path = plain(&entry.path()?);
            let place = match entry.header().entry_type() {
                tar::EntryType::Symlink => {
                    let target = entry.link_name()?.unwrap_or_default().into_owned();
                    Place::Link(plain(&path.parent().unwrap_or(Path::new("")).join(target)))
                }
                tar::EntryType::Link => Place::Link(plain(&entry.link_name()?.unwrap_or_default())),
                _ => Place::At { offset: entry.raw_file_position(), size: entry.size() },
            };
            files.insert(path, place);
            if files.len() > FILES_MAX {
                return Err(ImageError::Invalid("the archive has too many files for an image".into()));
            }
        }
        drop(archive);
        Ok(Self { file, files })
    }

    fn has(&self, path: &str) -> bool {
        self.files.contains_key(Path::new(path))
    }

    fn place(&self, path: &str) -> Result<(u64, u64), ImageError> {
        let mut path = plain(Path::new(path));
        // One hop is customary; a chain is an attack.
        for _ in 0..4 {
            match self.files.get(&path) {
                Some(Place::At { offset, size }) => return Ok((*offset, *size)),
                Some(Place::Link(target)) => path.clone_from(target),
                None => break,
            }
        }
        Err(ImageError::NotFound(format!("{} in the archive", path.display())))
    }

    fn size(&self, path: &str) -> Result<u64, ImageError> {
        self.place(path).map(|(_, size)| size)
    }

    fn open(&self, path: &str) -> Result<Section<'_>, ImageError> {
        let (offset, size) = self.place(path)?;
        Ok(Section { file: &self.file, offset, left: size })
    }

    fn document(&self, path: &str) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        self.open(path)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(ImageError::invalid(path, "is larger than 8 MiB"));
        }
        Ok(bytes)
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let bytes = self.document(&blob_path(digest)?)?;
        if sha256(&bytes) != digest {
            return Err(ImageError::invalid(digest, "content does not match its digest"));
        }
        Ok(bytes)
    }
}

/// A part of a file, read by position.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = std::os::unix::fs::FileExt::read_at(self.file, &mut buffer[..wanted], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A path of an archive, only ever compared with others of it.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain
}
