//! Tells the build what it is made of: the commit, whether files differ from it, and when.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").env("TZ", "UTC").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn main() {
    // A commit moves one of these.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD"].into_iter().chain(branch.as_deref()) {
        if let Some(path) = git(&["rev-parse", "--git-path", name]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_default();
    let clean = git(&["status", "--porcelain"]).is_none_or(|changes| changes.is_empty());
    // Of the commit, not of the clock: the same sources give the same binary.
    let date = git(&["log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ"]);
    println!("cargo::rustc-env=SKIFF_GIT_COMMIT={commit}");
    println!("cargo::rustc-env=SKIFF_GIT_TREE_STATE={}", if clean { "clean" } else { "dirty" });
    println!("cargo::rustc-env=SKIFF_BUILD_DATE={}", date.as_deref().unwrap_or("1970-01-01T00:00:00Z"));
}
