//! Writes `crates/kinds/src/resources.tsv` from upstream's discovery documents: the stable
//! versions, in upstream's order.
//!
//! A resource per line: apiVersion, plural, singular, kind, `n`amespaced or `c`luster, verbs, short
//! names, categories, storage version hash. Its subresources follow with a `+`: name, kind,
//! apiVersion where it is not the parent's, verbs. `-` is empty.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Verbs and their letters, in the order in which discovery lists them.
const VERBS: [(&str, char); 8] = [
    ("create", 'c'),
    ("delete", 'd'),
    ("deletecollection", 'x'),
    ("get", 'g'),
    ("list", 'l'),
    ("patch", 'p'),
    ("update", 'u'),
    ("watch", 'w'),
];

/// Writes the table from the reference data in `folder`.
pub(crate) fn run(folder: &Path) -> Result<()> {
    fs::write("crates/kinds/src/resources.tsv", table(&folder.join("discovery"))?)?;
    Ok(())
}

/// Whether the committed table is what the reference data in `folder` gives.
pub(crate) fn check(folder: &Path) -> Result<()> {
    let committed = fs::read_to_string("crates/kinds/src/resources.tsv")?;
    ensure!(committed == table(&folder.join("discovery"))?, "resources.tsv is not what `cargo xtask resources` writes");
    Ok(())
}

fn table(folder: &Path) -> Result<String> {
    let mut out = String::new();
    group_version(&mut out, folder, "api__v1.json")?;
    let groups = read(folder, "apis.json")?;
    for group in groups["groups"].as_array().context("no groups")? {
        for version in group["versions"].as_array().into_iter().flatten() {
            let name = version["version"].as_str().unwrap_or_default();
            let stable = name.strip_prefix('v').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
            if stable {
                let group = group["name"].as_str().unwrap_or_default();
                group_version(&mut out, folder, &format!("apis__{group}__{name}.json"))?;
            }
        }
    }
    Ok(out)
}

fn read(folder: &Path, name: &str) -> Result<Value> {
    let path = folder.join(name);
    let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn group_version(out: &mut String, folder: &Path, file: &str) -> Result<()> {
    let document = read(folder, file)?;
    let api_version = text(&document, "groupVersion")?;
    let mut parent = "";
    for resource in document["resources"].as_array().context("no resources")? {
        let (name, kind) = (text(resource, "name")?, text(resource, "kind")?);
        let verbs = verbs(resource)?;
        match name.split_once('/') {
            Some((owner, subresource)) => {
                ensure!(owner == parent, "{name} does not follow its parent");
                let foreign = match (resource["group"].as_str(), resource["version"].as_str()) {
                    (Some(group), Some(version)) if !group.is_empty() => format!("{group}/{version}"),
                    _ => "-".to_owned(),
                };
                writeln!(out, "+\t{subresource}\t{kind}\t{foreign}\t{verbs}")?;
            }
            None => {
                parent = name;
                let scope = if resource["namespaced"] == true { 'n' } else { 'c' };
                let hash = resource["storageVersionHash"].as_str().unwrap_or("-");
                writeln!(
                    out,
                    "{api_version}\t{name}\t{}\t{kind}\t{scope}\t{verbs}\t{}\t{}\t{hash}",
                    text(resource, "singularName")?,
                    list(&resource["shortNames"]),
                    list(&resource["categories"]),
                )?;
            }
        }
    }
    Ok(())
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().with_context(|| format!("no {field}"))
}

fn list(value: &Value) -> String {
    let items: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if items.is_empty() { "-".to_owned() } else { items.join(",") }
}

fn verbs(resource: &Value) -> Result<String> {
    let letter = |verb: &Value| VERBS.iter().find(|(name, _)| verb == name).map(|(_, letter)| *letter);
    let verbs = resource["verbs"].as_array().context("no verbs")?;
    verbs.iter().map(|verb| letter(verb).with_context(|| format!("unknown verb {verb}"))).collect()
}
