//! `cargo xtask cri FOLDER`: writes the CRI v1 stubs of `crates/runtime` from `FOLDER/api.proto`.
//!
//! The proto file is upstream's (`pkg/apis/runtime/v1/api.proto` of kubernetes/cri-api) and is not
//! committed; what it declares is, without its prose. No `protoc` is needed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Generates client and server code into `crates/runtime/src/cri/generated.rs`.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let mut descriptors = protox::compile(["api.proto"], [folder])
        .with_context(|| format!("compile {}", folder.join("api.proto").display()))?;
    // The prose stays upstream.
    descriptors.file.iter_mut().for_each(|file| file.source_code_info = None);
    let out = std::env::temp_dir().join(format!("skiff-xtask-cri-{}", std::process::id()));
    std::fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    tonic_prost_build::configure()
        .out_dir(&out)
        .build_client(true)
        .build_server(true)
        .compile_fds(descriptors)
        .context("generate the CRI stubs")?;
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/runtime/src/cri/generated.rs");
    let code = std::fs::read_to_string(out.join("runtime.v1.rs")).context("read the generated stubs")?;
    std::fs::remove_dir_all(&out).with_context(|| format!("remove {}", out.display()))?;
    std::fs::write(&target, code).with_context(|| format!("write {}", target.display()))?;
    format(&target)
}

pub(crate) fn format(file: &Path) -> Result<()> {
    let status = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .arg(file)
        .status()
        .context("run rustfmt")?;
    ensure!(status.success(), "rustfmt {}: {status}", file.display());
    Ok(())
}
