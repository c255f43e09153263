//! Reads what neither protobuf nor OpenAPI say from Go's struct definitions: which fields are
//! pointers, which are written although empty, which are embedded.
//!
//! Only deviations from the common case (a value with `omitempty`) are kept, as
//! `xtask/facts/go-shapes.tsv`: a type per line, then `field=flags`, where the field has its
//! protobuf name and the flags are
//!
//! - `p` a pointer
//! - `k` kept: no `omitempty`
//! - `z` `omitzero`
//! - `e` embedded: its fields appear in the outer object's JSON
//! - `@name` its JSON name, where that is another
//!
//! The flag `T` on a type says that it embeds `TypeMeta`. A line `group PACKAGE NAME` names an API group.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Writes the facts about the Go sources below `folder` (which holds `k8s.io/api/…`).
pub(crate) fn run(folder: &Path) -> Result<()> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    let mut types = BTreeMap::new();
    let mut groups = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let package = package(folder, &file).context("a file outside of the folder")?;
        if let Some(group) = group_name(&text) {
            groups.insert(package.clone(), group.to_owned());
        }
        read_types(&package, &text, &mut types);
    }
    let mut out = String::new();
    for (package, group) in groups {
        writeln!(out, "group\t{package}\t{group}")?;
    }
    for (name, entry) in types {
        if !entry.is_empty() {
            writeln!(out, "{name}\t{}", entry.join(" "))?;
        }
    }
    fs::write("xtask/facts/go-shapes.tsv", out)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            collect(&path, files)?;
        } else if name.ends_with(".go")
            && !name.ends_with("_test.go")
            && !name.starts_with("zz_")
            && !name.ends_with(".pb.go")
        {
            files.push(path);
        }
    }
    Ok(())
}

/// `k8s.io/api/apps/v1/types.go` is in `io.k8s.api.apps.v1`.
fn package(folder: &Path, file: &Path) -> Option<String> {
    let inner = file.parent()?.strip_prefix(folder).ok()?.to_str()?;
    let rest = inner.strip_prefix("k8s.io/")?;
    Some(format!("io.k8s.{}", rest.replace('/', ".")))
}

fn group_name(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.contains("GroupName") && line.contains("= \""))?;
    line.split('"').nth(1)
}

fn read_types(package: &str, text: &str, types: &mut BTreeMap<String, Vec<String>>) {
    let mut current: Option<(String, Vec<String>)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("type ")
            && let Some(name) = rest.strip_suffix(" struct {")
        {
            current = Some((format!("{package}.{name}"), Vec::new()));
        } else if line == "}" {
            if let Some((name, fields)) = current.take() {
                types.insert(name, fields);
            }
        } else if let Some((_, fields)) = &mut current {
            fields.extend(read_field(line.trim()));
        }
    }
}

fn read_field(line: &str) -> Option<String> {
    if line.starts_with("//") {
        return None;
    }
    let (declaration, tag) = line.split_once('`')?;
    let words: Vec<&str> = declaration.split_whitespace().collect();
    let ty = words.last()?;
    if ty.ends_with("TypeMeta") && words.len() == 1 {
        return Some("T".to_owned());
    }
    let json: Vec<&str> = quoted(tag, "json")?.split(',').collect();
    let named = quoted(tag, "protobuf")?.split(',').find_map(|part| part.strip_prefix("name="));
    let name = named.map_or_else(|| lower_first(words[0]), str::to_owned);
    let mut flags = String::new();
    if ty.starts_with('*') {
        flags.push('p');
    }
    let embedded = words.len() == 1 && json.first().is_some_and(|name| name.is_empty());
    if embedded {
        flags.push('e');
    } else if !json.contains(&"omitempty") && !json.contains(&"omitzero") {
        flags.push('k');
    }
    if json.contains(&"omitzero") {
        flags.push('z');
    }
    if !embedded && json[0] != name && name != "Raw" {
        flags = format!("{flags}@{}", json[0]);
    }
    (!flags.is_empty()).then(|| format!("{name}={flags}"))
}

/// What the generator calls an embedded struct without a name.
fn lower_first(name: &str) -> String {
    let name = name.rsplit('.').next().unwrap_or(name);
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn quoted<'a>(tag: &'a str, key: &str) -> Option<&'a str> {
    let start = tag.find(&format!("{key}:\""))? + key.len() + 2;
    tag[start..].split('"').next()
}
