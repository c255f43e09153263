//! Round-trips upstream's golden objects: protobuf byte for byte, JSON byte for byte once compact,
//! YAML byte for byte; and all three give the same tree.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use skiff_object::{Tree, TypeId, json, protobuf, yaml};

/// Reads every golden object in `folder` and says how many came back unchanged.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder.join("wire-goldens"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pb"))
        .collect();
    files.sort();
    let mut failed = 0;
    for file in &files {
        if let Err(error) = check(file) {
            failed += 1;
            println!("{}: {error:#}", file.display());
        }
    }
    println!("{} of {} golden objects round-trip", files.len() - failed, files.len());
    if failed > 0 {
        bail!("{failed} golden objects do not round-trip");
    }
    Ok(())
}

fn check(file: &Path) -> Result<()> {
    let schema = skiff_kinds::schema();
    let bytes = fs::read(file)?;
    let envelope = protobuf::envelope::decode(&bytes)?;
    // A watch event names no kind.
    let (api_version, kind) =
        if envelope.kind.is_empty() { ("v1", "WatchEvent") } else { (envelope.api_version, envelope.kind) };
    let ty = skiff_kinds::type_of(api_version, kind).context("no such kind")?;

    let mut from_protobuf = protobuf::decode(envelope.raw, schema, ty)?;
    let raw = protobuf::encode(&from_protobuf, schema, ty);
    let again = protobuf::envelope::encode(envelope.api_version, envelope.kind, &raw);
    ensure!(again == bytes, "protobuf differs at byte {}", first_difference(&again, &bytes));
    if schema.field(ty, "kind").is_some() {
        from_protobuf.set(&["apiVersion"], envelope.api_version);
        from_protobuf.set(&["kind"], envelope.kind);
    }

    let from_json = check_json(&file.with_extension("json"), ty)?;
    ensure!(
        from_json == from_protobuf,
        "JSON and protobuf give different trees: {}",
        difference(&from_json, &from_protobuf)
    );
    let raw = protobuf::encode(&from_json, schema, ty);
    ensure!(raw == envelope.raw, "protobuf made from JSON differs at byte {}", first_difference(&raw, envelope.raw));
    check_yaml(&file.with_extension("yaml"), ty, &from_json)
}

fn check_yaml(file: &Path, ty: TypeId, from_json: &Tree) -> Result<()> {
    let bytes = fs::read(file)?;
    let (tree, issues) = yaml::decode(&bytes, skiff_kinds::schema(), ty).context("read YAML")?;
    ensure!(issues.is_empty(), "YAML: {issues}");
    ensure!(tree == *from_json, "YAML and JSON give different trees: {}", difference(&tree, from_json));
    let again = yaml::encode_untyped(&tree);
    ensure!(again == bytes, "YAML differs at byte {}", first_difference(&again, &bytes));
    Ok(())
}

fn check_json(file: &Path, ty: TypeId) -> Result<Tree> {
    let schema = skiff_kinds::schema();
    let bytes = fs::read(file)?;
    let (tree, issues) = json::decode(&bytes, schema, ty).context("read JSON")?;
    ensure!(issues.is_empty(), "JSON: {issues}");
    let again = json::encode(&tree, schema, ty);
    let compact = json::encode_untyped(&json::decode_untyped(&bytes)?);
    if again != compact {
        let at = first_difference(&again, &compact);
        let around = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[at.saturating_sub(40)..bytes.len().min(at + 40)]).into_owned()
        };
        bail!("JSON differs at byte {at}: {} instead of {}", around(&again), around(&compact));
    }
    Ok(tree)
}

fn first_difference(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()))
}

/// Where two trees first differ.
fn difference(a: &Tree, b: &Tree) -> String {
    match (a, b) {
        (Tree::Map(a), Tree::Map(b)) => {
            for (key, value) in a.iter() {
                match b.get(key.as_str()) {
                    None => return format!(".{} only in the first", key.as_str()),
                    Some(other) if other != value => return format!(".{}{}", key.as_str(), difference(value, other)),
                    Some(_) => {}
                }
            }
            let only = b.keys().find(|key| !a.contains_key(key.as_str()));
            only.map_or_else(String::new, |key| format!(".{} only in the second", key.as_str()))
        }
        (Tree::List(a), Tree::List(b)) if a.len() == b.len() => {
            let place = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or_default();
            format!("[{place}]{}", difference(&a[place], &b[place]))
        }
        _ => format!(": {a:?} and {b:?}"),
    }
}
