//! Reads upstream's `generated.proto` files: flat messages, a field per line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A message, its fields in the order of the Go struct.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) label: Label,
    /// A scalar's name, or a message's full name (`io.k8s.api.core.v1.Pod`).
    pub(crate) ty: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Label {
    One,
    List,
    /// A map with string keys; the field's type is that of its values.
    Map,
}

/// Packages that are no part of the served API.
const SKIPPED: [&str; 5] = ["testapigroup", "k8s.io/metrics", "apis/example", "apis/audit", "runtime/schema"];

/// All messages below `folder`, by full name.
pub(crate) fn read(folder: &Path) -> Result<BTreeMap<String, Message>> {
    let mut messages = BTreeMap::new();
    read_folder(folder, &mut messages)?;
    Ok(messages)
}

fn read_folder(folder: &Path, messages: &mut BTreeMap<String, Message>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if SKIPPED.iter().any(|part| path.to_string_lossy().contains(part)) {
            continue;
        }
        if path.is_dir() {
            read_folder(&path, messages)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            let text = fs::read_to_string(&path)?;
            read_file(&text, messages).with_context(|| format!("in {}", path.display()))?;
        }
    }
    Ok(())
}

/// `k8s.io.kube_aggregator.pkg` is `io.k8s.kube-aggregator.pkg` in OpenAPI.
fn full_name(name: &str) -> String {
    match name.strip_prefix("k8s.io.") {
        Some(rest) => format!("io.k8s.{}", rest.replace('_', "-")),
        None => name.to_owned(),
    }
}

fn read_file(text: &str, messages: &mut BTreeMap<String, Message>) -> Result<()> {
    let mut package = String::new();
    let mut current: Option<(String, Message)> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        if let Some(name) = line.strip_prefix("package ") {
            package = full_name(name.trim_end_matches(';'));
        } else if let Some(name) = line.strip_prefix("message ") {
            current = Some((format!("{package}.{}", name.trim_end_matches(" {")), Message::default()));
        } else if line == "}" {
            let (name, message) = current.take().context("a brace that closes nothing")?;
            messages.insert(name, message);
        } else if let Some((_, message)) = &mut current
            && line.ends_with(';')
        {
            message.fields.push(field(line, &package).with_context(|| line.to_owned())?);
        }
    }
    Ok(())
}

fn field(line: &str, package: &str) -> Result<Field> {
    let (declaration, number) = line.trim_end_matches(';').split_once(" = ").context("no number")?;
    let (ty, name) = declaration.rsplit_once(' ').context("no name")?;
    let (label, ty) = if let Some(ty) = ty.strip_prefix("optional ") {
        (Label::One, ty)
    } else if let Some(ty) = ty.strip_prefix("repeated ") {
        (Label::List, ty)
    } else if let Some(ty) = ty.strip_prefix("map<string, ") {
        (Label::Map, ty.trim_end_matches('>'))
    } else {
        bail!("neither optional nor repeated nor a map of strings");
    };
    Ok(Field { name: name.to_owned(), number: number.parse()?, label, ty: type_name(ty, package) })
}

fn type_name(ty: &str, package: &str) -> String {
    match ty.strip_prefix('.') {
        Some(absolute) => full_name(absolute),
        None if ty.starts_with(char::is_uppercase) => format!("{package}.{ty}"),
        None => ty.to_owned(),
    }
}
