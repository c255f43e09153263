//! Images made from files at run time, without an archive or a registry.
//!
//! A layer's digest is that of the archive it would be, so two images of the same files share one
//! layer. A host file (our own binary) is linked or cloned into the layer when the filesystem
//! can, so it takes no space twice and its pages stay shared with the running program.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::model::{Descriptor, ImageConfig, Manifest, ProcessConfig, RootFs, architecture, media_type};
use super::reference::Reference;
use super::store::{Image, ImageError, ImageStore, LayerSize, digest_text, sha256};
use crate::sys::Attempt;

/// An image to be made.
#[derive(Clone, Debug, Default)]
pub struct ImageBuilder {
    /// As a user writes it: `skiff.local/demo:latest`.
    pub name: String,
    /// How it runs.
    pub process: ProcessConfig,
    /// The files of its only layer. Parents of files are made (0755, root).
    pub files: Vec<LayerFile>,
    /// Kept by garbage collection.
    pub pinned: bool,
}

/// One file of a layer, owned by root.
#[derive(Clone, Debug)]
pub struct LayerFile {
    /// Where it is in the image, from its root.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub content: Content,
}

/// The content of a [`LayerFile`].
#[derive(Clone, Debug)]
pub enum Content {
    /// An empty directory.
    Directory,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file of the host, as it is now.
    Host(PathBuf),
    /// A symbolic link to this target.
    Link(PathBuf),
}

impl LayerFile {
    /// An executable file of the host.
    pub fn host(path: impl Into<PathBuf>, source: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mode: 0o755, content: Content::Host(source.into()) }
    }

    /// A readable file with this text.
    pub fn text(path: impl Into<PathBuf>, text: &str) -> Self {
        Self { path: path.into(), mode: 0o644, content: Content::Bytes(text.as_bytes().to_vec()) }
    }

    /// A directory.
    pub fn directory(path: impl Into<PathBuf>, mode: u32) -> Self {
        Self { path: path.into(), mode, content: Content::Directory }
    }

    /// A symbolic link.
    pub fn link(path: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mode: 0o777, content: Content::Link(target.into()) }
    }
}

impl ImageStore {
    /// Makes an image, or finds it made. Blocking: hashes every file.
    ///
    /// # Errors
    /// When the name is none, a path leaves the image, or a file cannot be read or placed.
    pub fn build(&self, image: &ImageBuilder) -> Result<Image, ImageError> {
        let name = Reference::parse(&image.name).map_err(ImageError::Invalid)?;
        let files = sorted(&image.files)?;
        let diff_id = digest(&files)?;
        let layer = diff_id["sha256:".len()..].to_owned();
        self.begin(&layer);
        let result = self.build_layer(&files, &diff_id).and_then(|()| {
            let config = ImageConfig {
                architecture: architecture().into(),
                os: "linux".into(),
                config: Some(image.process.clone()),
                rootfs: RootFs { kind: "layers".into(), diff_ids: vec![diff_id.clone()] },
            };
            let config = serde_json::to_vec(&config).map_err(|error| ImageError::invalid(&image.name, error))?;
            let descriptor = |media: &str, digest: String, size| Descriptor {
                media_type: media.into(),
                digest,
                size,
                ..Descriptor::default()
            };
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(media_type::MANIFEST.into()),
                config: Some(descriptor(media_type::CONFIG, sha256(&config), config.len() as u64)),
                layers: vec![descriptor(media_type::LAYER, diff_id.clone(), self.layer_size(&diff_id)?.bytes)],
                manifests: Vec::new(),
            };
            let manifest = serde_json::to_vec(&manifest).map_err(|error| ImageError::invalid(&image.name, error))?;
            self.commit(&manifest, &config, None, &[name], image.pinned)
        });
        self.end(&layer);
        self.collect_garbage(); // an earlier build of the same name has lost it
        result
    }

    fn build_layer(&self, files: &BTreeMap<PathBuf, LayerFile>, diff_id: &str) -> Result<(), ImageError> {
        if self.layer_size(diff_id).is_ok() {
            return Ok(());
        }
        let dir = self.temporary(&self.0.layers_dir);
        let result = fill(&dir, files).and_then(|size| self.place_layer(&dir, diff_id, size));
        if result.is_err() {
            let _ = fs::remove_dir_all(&dir);
        }
        result
    }
}

/// The files by path, with their missing parents.
fn sorted(files: &[LayerFile]) -> Result<BTreeMap<PathBuf, LayerFile>, ImageError> {
    let mut all = BTreeMap::new();
    for file in files {
        let path = file.path.strip_prefix("/").unwrap_or(&file.path);
        let plain = path.components().all(|component| matches!(component, std::path::Component::Normal(_)));
        if !plain || path.as_os_str().is_empty() {
            return Err(ImageError::invalid(file.path.display(), "is no path inside an image"));
        }
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            all.entry(parent.to_path_buf()).or_insert_with(|| LayerFile::directory(parent, 0o755));
        }
        all.insert(path.to_path_buf(), file.clone());
    }
    Ok(all)
}

/// The digest of the archive of these files.
fn digest(files: &BTreeMap<PathBuf, LayerFile>) -> Result<String, ImageError> {
    let mut archive = tar::Builder::new(Hasher(ring::digest::Context::new(&ring::digest::SHA256)));
    for (path, file) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(file.mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let outcome = match &file.content {
            Content::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                archive.append_data(&mut header, path, io::empty())
            }
            Content::Bytes(bytes) => {
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, path, bytes.as_slice())
            }
            Content::Host(source) => fs::File::open(source).and_then(|source| {
                let size = source.metadata()?.len();
                header.set_size(size);
                archive.append_data(&mut header, path, source.take(size))
            }),
            Content::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, path, target)
            }
        };
        outcome.attempt(|| format!("hash {}", path.display()))?;
    }
    let hasher = archive.into_inner()?;
    Ok(digest_text(hasher.0.finish().as_ref()))
}

struct Hasher(ring::digest::Context);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the layer's directory. All of it is ours, so plain paths are safe.
fn fill(dir: &Path, files: &BTreeMap<PathBuf, LayerFile>) -> Result<LayerSize, ImageError> {
    let mut size = LayerSize { bytes: 0, inodes: 1 };
    fs::create_dir(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let target = dir.join(path);
        size.inodes += 1;
        match &file.content {
            Content::Directory => fs::create_dir(&target)?,
            Content::Bytes(bytes) => fs::write(&target, bytes)?,
            Content::Host(source) => place(source, &target, file.mode)?,
            Content::Link(link) => {
                std::os::unix::fs::symlink(link, &target)?;
                continue;
            }
        }
        let found = fs::metadata(&target)?;
        if !found.is_dir() {
            size.bytes += found.len();
        }
        if found.mode() & 0o7777 != file.mode {
            fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
        }
    }
    Ok(size)
}

/// Brings a host file into a layer: the same file when its owner and mode fit, a clone, or a copy.
fn place(source: &Path, target: &Path, mode: u32) -> io::Result<()> {
    // A container never writes to a layer, so the link cannot change the original; programs are
    // replaced by renaming, so the original does not change the layer.
    let real = fs::canonicalize(source)?;
    let found = fs::metadata(&real)?;
    if found.uid() == 0 && found.gid() == 0 && found.mode() & 0o7777 == mode && fs::hard_link(&real, target).is_ok() {
        return Ok(());
    }
    let from = fs::File::open(&real)?;
    let to = fs::File::create(target)?;
    // SAFETY: both descriptors are open.
    if unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) } == 0 {
        return Ok(());
    }
    io::copy(&mut &from, &mut &to).map(drop)
}
