//! The images that every cluster has: made of this very binary, so that no registry is needed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use skiff_base::{Clock, Random};
use skiff_runtime::image::{ImageBuilder, ImageStore, LayerFile, ProcessConfig};

use crate::demo;
use crate::profile::Profile;

const PAUSE_IMAGE: &str = "skiff.local/pause:latest";

/// Opens the image store and puts our own images into it, on a thread of its own from now on.
pub fn open(profile: &Profile, clock: &Clock, random: &Random) -> impl Future<Output = Result<ImageStore>> + use<> {
    let (folder, clock, random) = (profile.data().join("runtime"), clock.clone(), random.clone());
    let opening = tokio::task::spawn_blocking(move || {
        let images = ImageStore::open(&folder, clock, random).context("open the images")?;
        build_own(&images, &folder)?;
        Ok(images)
    });
    async move { opening.await.context("open the images")? }
}

/// Makes the images, unless they are there and were made of this same binary.
fn build_own(images: &ImageStore, folder: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let binary = std::env::current_exe().context("find this binary")?;
    let meta = std::fs::metadata(&binary).with_context(|| format!("look at {}", binary.display()))?;
    // Hashing tens of megabytes at every start would cost more than all the rest of it.
    let stamp = format!("{}:{}:{}.{:09}", meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
    let stamp_file = folder.join("own-images");
    let made = crate::files::read_optional(&stamp_file)?;
    let present = [PAUSE_IMAGE, demo::IMAGE].iter().all(|name| images.find(name).is_some());
    if present && made.as_deref() == Some(stamp.as_str()) {
        return Ok(());
    }
    for image in [pause(&binary), demo_image(&binary)] {
        images.build(&image).with_context(|| format!("make the image {}", image.name))?;
    }
    crate::files::write_atomic(&stamp_file, stamp.as_bytes(), 0o600)
}

fn files(binary: &Path) -> Vec<LayerFile> {
    let directory = |path: &str, mode| LayerFile::directory(PathBuf::from(path), mode);
    vec![
        LayerFile::host("skiff", binary),
        LayerFile::text("etc/passwd", "root:x:0:0:root:/:/skiff\nnobody:x:65534:65534:nobody:/:/skiff\n"),
        LayerFile::text("etc/group", "root:x:0:\nnobody:x:65534:\n"),
        directory("tmp", 0o1777),
    ]
}

fn pause(binary: &Path) -> ImageBuilder {
    ImageBuilder {
        name: PAUSE_IMAGE.to_owned(),
        process: ProcessConfig { entrypoint: vec!["/skiff".into(), "pause".into()], ..ProcessConfig::default() },
        files: files(binary),
        pinned: true,
    }
}

fn demo_image(binary: &Path) -> ImageBuilder {
    ImageBuilder {
        name: demo::IMAGE.to_owned(),
        process: ProcessConfig {
            entrypoint: vec!["/skiff".into(), "demo".into()],
            cmd: vec!["serve".into()],
            env: vec!["PATH=/".into()],
            user: "65534:65534".into(),
            ..ProcessConfig::default()
        },
        files: files(binary),
        pinned: true,
    }
}
