//! `cargo xtask etcd FOLDER`: writes the etcd v3 stubs of `crates/etcd` from the `rpc.proto` and
//! `kv.proto` in FOLDER (etcd's `api/etcdserverpb` and `api/mvccpb`).
//!
//! The files are upstream's and not committed; the messages they declare are, without their
//! prose. The authentication service, the annotations of its HTTP gateway, and calls newer than
//! etcd 3.6 stay away. No `protoc` is needed.

use std::path::Path;

use anyhow::{Context, Result};

/// Calls that are newer than what Skiff speaks and offers.
const UNRELEASED: [&str; 1] = ["RangeStream"];

/// Generates client and server code into `crates/etcd/src/proto/`.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("skiff-xtask-etcd-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
    let made = generate(folder, &scratch);
    std::fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    made
}

fn generate(folder: &Path, scratch: &Path) -> Result<()> {
    for name in ["rpc.proto", "kv.proto"] {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        std::fs::write(scratch.join(name), plain(&text)).with_context(|| format!("copy {name}"))?;
    }
    let mut descriptors = protox::compile(["rpc.proto"], [scratch]).context("compile rpc.proto")?;
    for file in &mut descriptors.file {
        file.source_code_info = None;
        file.service.retain(|service| service.name() != "Auth");
        file.message_type.retain(|message| !UNRELEASED.iter().any(|call| message.name().starts_with(call)));
        for service in &mut file.service {
            service.method.retain(|method| !UNRELEASED.contains(&method.name()));
        }
    }
    tonic_prost_build::configure()
        .out_dir(scratch)
        .bytes(".")
        .build_client(true)
        .build_server(true)
        .compile_fds(descriptors)
        .context("generate the etcd stubs")?;
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/etcd/src/proto");
    for package in ["etcdserverpb", "mvccpb"] {
        let code = std::fs::read_to_string(scratch.join(format!("{package}.rs"))).context("read the stubs")?;
        let file = target.join(format!("{package}.rs"));
        std::fs::write(&file, code).with_context(|| format!("write {}", file.display()))?;
        crate::cri::format(&file)?;
    }
    Ok(())
}

/// The declarations alone: no comments, no options, no imports but `kv.proto`, nothing of the
/// authentication service.
fn plain(text: &str) -> String {
    let bare: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let mut text = without(&bare.join("\n"), "option ", |depth, character| depth == 0 && character == ';');
    text = without(&text, "[", |_, character| character == ']');
    for begin in ["service Auth ", "message Auth"] {
        text = without(&text, begin, |depth, character| depth == 0 && character == '}');
    }
    let lines = text.lines().filter(|line| !line.starts_with("import") || line.contains("kv.proto"));
    lines
        .map(|line| if line.starts_with("import") { "import \"kv.proto\";" } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

/// `text` without what goes from `begin` to the character for which `is_end` holds at a depth of
/// braces.
fn without(text: &str, begin: &str, is_end: fn(usize, char) -> bool) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(begin) {
        out.push_str(&rest[..at]);
        let mut depth = 0_usize;
        let end = rest[at..].char_indices().find(|(_, character)| {
            match character {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            is_end(depth, *character)
        });
        rest = end.map_or("", |(offset, character)| &rest[at + offset + character.len_utf8()..]);
    }
    out + rest
}
