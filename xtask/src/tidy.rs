//! What a compiler does not check: that every file is part of its crate, that crates depend only
//! downwards, that every file is formatted.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Which crates of the house each crate may use (`ARCHITECTURE.md`, the house). Siblings never
/// import each other; only the binary sees everyone.
const ARROWS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("object", &[]),
    ("cel", &["base", "object"]),
    ("kinds", &["object", "cel"]),
    ("store", &["base"]),
    ("etcd", &["base", "store"]),
    ("test-servers", &[]),
    ("api", &["base", "object", "cel", "kinds", "store"]),
    ("client", &["base", "object"]),
    ("controllers", &["base", "object", "client"]),
    ("scheduler", &["base", "object", "client"]),
    ("edge", &["base", "object", "client"]),
    ("cloud", &["base", "object", "client", "kinds"]),
    ("runtime", &["base"]),
    ("net", &["base", "object", "client"]),
    ("node", &["base", "object", "client", "runtime", "net"]),
    (
        "skiff",
        &[
            "base",
            "object",
            "cel",
            "kinds",
            "store",
            "etcd",
            "api",
            "client",
            "controllers",
            "scheduler",
            "edge",
            "cloud",
            "runtime",
            "net",
            "node",
        ],
    ),
];

/// Longer files, tests apart, are mentioned: they hold more than one concept.
const LINES_MAX: usize = 600;

/// Says everything that is untidy below the current folder.
pub(crate) fn run() -> Result<()> {
    let metadata = metadata()?;
    let mut complaints = arrows(&metadata);
    let files = source_files(Path::new("crates"))?;
    complaints.extend(unlisted(&metadata, &files)?);
    complaints.extend(unformatted(&files)?);
    for note in long_files(&files)? {
        println!("note: {note}");
    }
    for complaint in &complaints {
        println!("{complaint}");
    }
    if !complaints.is_empty() {
        bail!("{} things are untidy", complaints.len());
    }
    Ok(())
}

fn metadata() -> Result<Value> {
    let output = Command::new("cargo").args(["metadata", "--format-version", "1", "--no-deps"]).output()?;
    serde_json::from_slice(&output.stdout).context("cargo metadata")
}

fn arrows(metadata: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let short = name.strip_prefix("skiff-").unwrap_or(name);
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == short) else {
            if name != "xtask" {
                complaints.push(format!("{name}: not in the house; say in xtask/src/tidy.rs what it may depend on"));
            }
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // Tests may look sideways.
            if dependency["kind"] == "dev" {
                continue;
            }
            let Some(used) = dependency["name"].as_str().and_then(|name| name.strip_prefix("skiff-")) else { continue };
            if !allowed.contains(&used) {
                complaints.push(format!("{name}: must not depend on skiff-{used}"));
            }
        }
    }
    complaints
}

fn source_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(source_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Files that no build has read. The compiler's own lists say what was read, so a build of all
/// targets has to come first.
fn unlisted(metadata: &Value, files: &[PathBuf]) -> Result<Vec<String>> {
    let target = PathBuf::from(metadata["target_directory"].as_str().context("no target directory")?);
    let mut read = BTreeSet::new();
    read_lists(&target, &mut read, 0)?;
    if read.is_empty() {
        bail!("nothing was built yet: run `cargo check --workspace --all-targets` first");
    }
    let unread = files.iter().filter(|file| !read.contains(file.as_path()));
    Ok(unread.map(|file| format!("{}: not part of its crate", file.display())).collect())
}

/// Collects the paths from the `.d` files of this workspace's crates.
fn read_lists(folder: &Path, read: &mut BTreeSet<PathBuf>, depth: usize) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && depth < 3 {
            read_lists(&path, read, depth + 1)?;
        } else if path.extension().is_some_and(|extension| extension == "d") {
            for line in fs::read_to_string(&path)?.lines() {
                if let Some(file) = line.strip_suffix(':')
                    && file.starts_with("crates/")
                {
                    read.insert(PathBuf::from(file));
                }
            }
        }
    }
    Ok(())
}

/// Formats every file, those that macros declare included.
pub(crate) fn format() -> Result<()> {
    let files = source_files(Path::new("crates"))?;
    let status = Command::new("rustfmt").args(["--edition", "2024"]).args(files).status()?;
    if status.success() { Ok(()) } else { bail!("rustfmt failed") }
}

/// `cargo fmt` follows `mod` lines only; modules that a macro declares need to be named.
fn unformatted(files: &[PathBuf]) -> Result<Vec<String>> {
    let output = Command::new("rustfmt").args(["--edition", "2024", "--check", "-l"]).args(files).output()?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let paths: BTreeSet<&str> = listed.lines().collect();
    Ok(paths.into_iter().map(|path| format!("{path}: not formatted; run `cargo xtask fmt`")).collect())
}

fn long_files(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for file in files {
        let text = fs::read_to_string(file)?;
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        let is_test = file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs");
        if lines > LINES_MAX && !is_test {
            notes.push(format!("{} has {lines} lines", file.display()));
        }
    }
    Ok(notes)
}
