//! Images: an OCI image layout for manifests and configurations, and unpacked layers that
//! overlayfs mounts directly.
//!
//! `DATA/images` holds `index.json` (the table of references, replaced atomically) and
//! `blobs/sha256`. `DATA/layers/HEX` holds each layer once, named by its uncompressed digest. The
//! compressed layers themselves are not kept: nothing reads them again.

mod archive;
mod build;
mod model;
mod reference;
mod registry;
mod service;
mod store;
mod transport;
mod unpack;

pub use build::{Content, ImageBuilder, LayerFile};
pub use model::{Descriptor, ImageConfig, Manifest, ProcessConfig};
pub use reference::Reference;
pub(crate) use store::remove_dir;
pub use store::{Image, ImageError, ImageStore};
