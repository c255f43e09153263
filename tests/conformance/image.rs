//! The image of test pods, made of the machine's static busybox.

use std::process::Command;

use sha2::{Digest, Sha256};

/// A docker archive of an image `name` with busybox and its applets in `/bin`.
pub(crate) fn busybox(name: &str) -> Vec<u8> {
    let program = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| std::fs::read(path).ok());
    let program = program.expect("busybox is missing; install it with: apt-get install -y busybox-static");
    let applets = Command::new("busybox").arg("--list").output().expect("run busybox").stdout;
    let mut layer = tar::Builder::new(Vec::new());
    for (folder, mode) in [("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)] {
        entry(&mut layer, tar::EntryType::Directory, folder, mode, b"");
    }
    entry(&mut layer, tar::EntryType::Regular, "bin/busybox", 0o755, &program);
    for applet in String::from_utf8_lossy(&applets).lines().filter(|applet| *applet != "busybox") {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let people = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    entry(&mut layer, tar::EntryType::Regular, "etc/passwd", 0o644, people);
    entry(&mut layer, tar::EntryType::Regular, "etc/group", 0o644, b"root:x:0:\nnobody:x:65534:\n");
    let layer = layer.into_inner().unwrap();

    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let config_name = format!("{}.json", hex(&config));
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    let regular = tar::EntryType::Regular;
    entry(&mut archive, regular, "manifest.json", 0o644, &serde_json::to_vec(&manifest).unwrap());
    entry(&mut archive, regular, &config_name, 0o644, &config);
    entry(&mut archive, regular, "layer.tar", 0o644, &layer);
    archive.into_inner().unwrap()
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header
}

fn entry(archive: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, mode: u32, content: &[u8]) {
    archive.append_data(&mut header(kind, mode, content.len()), path, content).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
