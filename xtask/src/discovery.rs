//! Our discovery documents against upstream's, key by key.
//!
//! Only stable group versions are compared: alpha and beta ones are not served, so they are taken
//! out of upstream's documents first, and counted. Aggregated discovery is compared resource by
//! resource.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use skiff_api::discovery;
use skiff_object::{Tree, json};

/// Compares with `FOLDER/discovery`.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let folder = folder.join("discovery");
    let registry = skiff_kinds::builtin();
    let mut report = Report::default();
    let mut files: Vec<_> = fs::read_dir(&folder)?.collect::<std::io::Result<_>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let name = file.file_name().to_string_lossy().into_owned();
        let text = fs::read(file.path()).with_context(|| format!("read {name}"))?;
        let mut expected: Value = serde_json::from_slice(&text).with_context(|| format!("parse {name}"))?;
        let parts: Vec<&str> = name.trim_end_matches(".json").split("__").collect();
        let ours = match parts.as_slice() {
            // The address in it is the server's own.
            ["api"] => continue,
            ["aggregated_v2"] => Some(discovery::aggregated(registry, true)),
            ["apis"] => Some(discovery::group_list(registry)),
            ["apis", group] => discovery::group_of(registry, group),
            ["api", version] => discovery::resource_list(registry, "", version),
            ["apis", _, version] if !is_stable(version) => {
                report.skipped += 1;
                continue;
            }
            ["apis", group, version] => discovery::resource_list(registry, group, version),
            _ => bail!("{name}: not a document that is known"),
        };
        report.skipped += keep_stable(&mut expected);
        if ours.is_none() && expected.get("versions") == Some(&Value::Array(Vec::new())) {
            continue;
        }
        let ours = ours.map_or(Ok(Value::Null), |tree| value(&tree))?;
        report.compared += 1;
        report.compare(&name, &expected, &ours);
    }
    println!("{} documents compared, {} alpha and beta group versions left out", report.compared, report.skipped);
    if !report.differences.is_empty() {
        bail!("discovery differs:\n{}", report.differences.join("\n"));
    }
    Ok(())
}

/// `v1` and `v2`, not `v1beta1`.
fn is_stable(version: &str) -> bool {
    version.strip_prefix('v').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn value(tree: &Tree) -> Result<Value> {
    Ok(serde_json::from_slice(&json::encode_untyped(tree))?)
}

/// Takes unstable versions out of every list of versions, and groups that had no others; tells
/// how many versions that were.
fn keep_stable(document: &mut Value) -> usize {
    let mut dropped = 0;
    if let Some(versions) = document.get_mut("versions").and_then(Value::as_array_mut) {
        let before = versions.len();
        versions.retain(|version| version["version"].as_str().is_none_or(is_stable));
        dropped += before - versions.len();
    }
    for list in ["groups", "items"] {
        let Some(items) = document.get_mut(list).and_then(Value::as_array_mut) else { continue };
        dropped += items.iter_mut().map(keep_stable).sum::<usize>();
        items.retain(|item| item["versions"].as_array().is_none_or(|versions| !versions.is_empty()));
    }
    dropped
}

#[derive(Default)]
struct Report {
    compared: usize,
    skipped: usize,
    differences: Vec<String>,
}

impl Report {
    fn compare(&mut self, at: &str, expected: &Value, ours: &Value) {
        match (expected, ours) {
            (Value::Object(wanted), Value::Object(found)) => {
                let keys: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
                for key in keys {
                    let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
                    match (of(wanted), of(found)) {
                        (Some(wanted), Some(found)) => self.compare(&format!("{at}.{key}"), &wanted, &found),
                        (wanted, found) => self.differ(&format!("{at}.{key}"), wanted.as_ref(), found.as_ref()),
                    }
                }
            }
            (Value::Array(wanted), Value::Array(found)) => self.compare_lists(at, wanted, found),
            _ if expected == ours => {}
            _ => self.differ(at, Some(expected), Some(ours)),
        }
    }

    /// Lists of named things are compared by name and then by order, others by place.
    fn compare_lists(&mut self, at: &str, wanted: &[Value], found: &[Value]) {
        let names = |list: &[Value]| list.iter().map(identity).collect::<Option<Vec<_>>>();
        let (Some(wanted_names), Some(found_names)) = (names(wanted), names(found)) else {
            if wanted != found {
                self.differ(at, Some(&wanted.into()), Some(&found.into()));
            }
            return;
        };
        for (name, item) in wanted_names.iter().zip(wanted) {
            match found_names.iter().position(|other| other == name) {
                Some(place) => self.compare(&format!("{at}[{name}]"), item, &found[place]),
                None => self.differ(&format!("{at}[{name}]"), Some(item), None),
            }
        }
        for (name, item) in found_names.iter().zip(found).filter(|(name, _)| !wanted_names.contains(name)) {
            self.differ(&format!("{at}[{name}]"), None, Some(item));
        }
        if found_names != wanted_names && found_names.len() == wanted_names.len() {
            self.differ(at, Some(&wanted_names.into()), Some(&found_names.into()));
        }
    }

    fn differ(&mut self, at: &str, expected: Option<&Value>, ours: Option<&Value>) {
        let show = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
        self.differences.push(format!("{at}: upstream has {}, we have {}", show(expected), show(ours)));
    }
}

/// What tells an item of a list from the others.
fn identity(item: &Value) -> Option<String> {
    let name = ["name", "version", "resource", "subresource"].into_iter().find_map(|key| item[key].as_str());
    name.or_else(|| item["metadata"]["name"].as_str()).map(str::to_owned)
}
