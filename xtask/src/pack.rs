//! Writes `crates/kinds/src/pack.bin`: the facts about every built-in type, without prose.
//!
//! Protobuf gives fields, order, numbers; OpenAPI gives list types, merge keys and what is
//! required; `go-shapes.tsv` gives pointers, emptiness and embedding. The text below is deflated.
//!
//! ```text
//! T NAME [a]                      a struct; a: atomic
//! FIELD NUMBER TYPE FLAGS [KEY]   p pointer, k kept when empty, z omitzero, r required,
//!                                 M merge, R retain keys, KEY the merge key
//! > NUMBER … <                    fields that JSON has inline and protobuf in a message
//! O NAME TYPE b|l|s               an object of a type or: a bool, a list of it, strings
//! K APIVERSION KIND #n            type n is a kind
//! ```
//!
//! Types are `s b i l d y q o t u D f *` (string, bool, int32, int64, double, bytes, Quantity,
//! IntOrString, Time, MicroTime, Duration, FieldsV1, anything), `#n` for the nth named type,
//! `{x` and `!{x` for maps (atomic), `[x` for atomic lists, `<x` for sets,
//! `(key,key=default)x` for lists with keys, `w[x` for lists that protobuf wraps in a message,
//! `!#n` for a struct that is atomic in this place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::proto::{self, Field, Label, Message};

/// What neither protobuf nor OpenAPI say: see `go_shapes`.
const GO_SHAPES: &str = include_str!("../facts/go-shapes.tsv");

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Messages that are one leaf in JSON.
const LEAVES: [(&str, &str); 10] = [
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "q"),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "o"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "t"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "u"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Duration", "D"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "f"),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", "*"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "*"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1beta1.JSON", "*"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Timestamp", "t"),
];

const SCALARS: [(&str, &str); 6] =
    [("string", "s"), ("bool", "b"), ("int32", "i"), ("int64", "l"), ("double", "d"), ("bytes", "y")];

/// Kinds of the meta group that every group has: reachable as `v1` and `meta.k8s.io/v1`.
const META_KINDS: [&str; 13] = [
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "CreateOptions",
    "DeleteOptions",
    "GetOptions",
    "ListOptions",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
    "PatchOptions",
    "Status",
    "UpdateOptions",
];

/// Writes the pack from the reference data in `folder`.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let text = text(folder)?;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text.as_bytes())?;
    let packed = encoder.finish()?;
    println!("{} bytes of facts, {} packed", text.len(), packed.len());
    fs::write("crates/kinds/src/pack.bin", packed)?;
    Ok(())
}

/// Whether the committed pack is what the reference data in `folder` gives. Compared inflated:
/// the same facts may be packed differently by another version of the library.
pub(crate) fn check(folder: &Path) -> Result<()> {
    let mut committed = String::new();
    flate2::read::ZlibDecoder::new(fs::File::open("crates/kinds/src/pack.bin")?).read_to_string(&mut committed)?;
    ensure!(committed == text(folder)?, "pack.bin is not what `cargo xtask schema-pack` writes");
    Ok(())
}

/// The pack before it is deflated.
fn text(folder: &Path) -> Result<String> {
    let openapi: Value = serde_json::from_slice(&fs::read(folder.join("openapi/swagger.json"))?)?;
    let source = Source {
        messages: proto::read(&folder.join("proto"))?,
        definitions: openapi["definitions"].clone(),
        defaults: defaults(&folder.join("openapi/v3"))?,
        shapes: shapes(),
    };
    let kinds = source.kinds();
    let types = source.reachable(kinds.values().cloned().collect());
    let index: BTreeMap<&str, usize> = types.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let mut out = String::new();
    for name in &types {
        source.write_type(&mut out, name, &index)?;
    }
    for ((api_version, kind), name) in &kinds {
        writeln!(out, "K {api_version} {kind} #{}", index[name.as_str()])?;
    }
    Ok(out)
}

struct Source {
    messages: BTreeMap<String, Message>,
    definitions: Value,
    /// `TYPE.FIELD` to the default of OpenAPI v3, where it is more than Go's zero value.
    defaults: BTreeMap<String, String>,
    shapes: Shapes,
}

#[derive(Default)]
struct Shapes {
    /// Package to API group.
    groups: BTreeMap<String, String>,
    /// Types that embed `TypeMeta`.
    kinds: BTreeSet<String>,
    /// `TYPE.FIELD` to flags.
    fields: BTreeMap<String, String>,
}

fn shapes() -> Shapes {
    let mut shapes = Shapes::default();
    for line in GO_SHAPES.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        match columns.as_slice() {
            ["group", package, group] => {
                shapes.groups.insert((*package).to_owned(), (*group).to_owned());
            }
            [name, fields] => {
                for field in fields.split(' ') {
                    match field.split_once('=') {
                        Some((field, flags)) => {
                            shapes.fields.insert(format!("{name}.{field}"), flags.to_owned());
                        }
                        None => {
                            shapes.kinds.insert((*name).to_owned());
                        }
                    }
                }
            }
            _ => {}
        }
    }
    shapes
}

/// Defaults are only in OpenAPI v3; most of them are Go's zero values and mean nothing.
fn defaults(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let document: Value = serde_json::from_slice(&fs::read(entry?.path())?)?;
        for (name, definition) in document["components"]["schemas"].as_object().into_iter().flatten() {
            for (field, property) in definition["properties"].as_object().into_iter().flatten() {
                if let Some(text) = property["default"].as_str().filter(|text| !text.is_empty()) {
                    found.insert(format!("{name}.{field}"), text.to_owned());
                }
            }
        }
    }
    Ok(found)
}

impl Source {
    /// Every kind with its type.
    fn kinds(&self) -> BTreeMap<(String, String), String> {
        let mut kinds = BTreeMap::new();
        for name in self.messages.keys().filter(|name| self.shapes.kinds.contains(*name)) {
            let Some((package, kind)) = name.rsplit_once('.') else { continue };
            let Some(group) = self.shapes.groups.get(package) else { continue };
            let version = package.rsplit('.').next().unwrap_or_default();
            if package == META {
                if META_KINDS.contains(&kind) {
                    kinds.insert(("v1".to_owned(), kind.to_owned()), name.clone());
                    kinds.insert(("meta.k8s.io/v1".to_owned(), kind.to_owned()), name.clone());
                }
                continue;
            }
            let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
            kinds.insert((api_version, kind.to_owned()), name.clone());
        }
        kinds.insert(("v1".to_owned(), "WatchEvent".to_owned()), format!("{META}.WatchEvent"));
        kinds
    }

    /// These types and all they mention, sorted.
    fn reachable(&self, mut queue: Vec<String>) -> Vec<String> {
        queue.push(format!("{META}.ObjectMeta"));
        queue.push(format!("{META}.ListMeta"));
        let mut seen = BTreeSet::new();
        let mut inner = BTreeSet::new();
        while let Some(name) = queue.pop() {
            if leaf(&name).is_some() || !seen.insert(name.clone()) {
                continue;
            }
            let message = self.messages.get(&name).unwrap_or_else(|| panic!("no message {name}"));
            if self.wrapper(&name).is_some() {
                inner.insert(name.clone());
            }
            queue.extend(message.fields.iter().filter(|field| field.ty.contains('.')).map(|field| field.ty.clone()));
        }
        seen.into_iter().filter(|name| !inner.contains(name)).collect()
    }

    /// Messages around a list, which JSON does not have.
    fn wrapper(&self, name: &str) -> Option<&Field> {
        let wraps = matches!(name.rsplit('.').next(), Some("Verbs" | "ExtraValue"));
        self.messages.get(name).filter(|_| wraps)?.fields.first()
    }

    fn write_type(&self, out: &mut String, name: &str, index: &BTreeMap<&str, usize>) -> Result<()> {
        if let Some(or) = alternative(name) {
            let object = self.messages[name].fields.iter().find(|field| field.name == "schema");
            let object = object.context("an alternative without a schema")?;
            writeln!(out, "O {name} #{} {or}", index[object.ty.as_str()])?;
            return Ok(());
        }
        let definition = &self.definitions[name];
        let atomic = if definition["x-kubernetes-map-type"] == "atomic" { " a" } else { "" };
        writeln!(out, "T {name}{atomic}")?;
        if self.shapes.kinds.contains(name) {
            writeln!(out, "kind 0 s \napiVersion 0 s ")?;
        }
        self.write_fields(out, name, name, index)
    }

    /// The fields of `message`, as part of the JSON object `outer`.
    fn write_fields(&self, out: &mut String, outer: &str, message: &str, index: &BTreeMap<&str, usize>) -> Result<()> {
        for field in &self.messages[message].fields {
            let flags = self.shapes.fields.get(&format!("{message}.{}", field.name)).map_or("", String::as_str);
            let (flags, name) = flags.split_once('@').unwrap_or((flags, &field.name));
            if flags.contains('e') {
                writeln!(out, "> {}", field.number)?;
                self.write_fields(out, outer, &field.ty, index)?;
                writeln!(out, "<")?;
                continue;
            }
            let definition = &self.definitions[outer];
            let property = &definition["properties"][name];
            let required = definition["required"].as_array().is_some_and(|list| list.iter().any(|item| item == name));
            let patch = property["x-kubernetes-patch-strategy"].as_str().unwrap_or_default();
            let mut flags = flags.to_owned();
            for (wanted, flag) in [(required, 'r'), (patch.contains("merge"), 'M'), (patch.contains("retainKeys"), 'R')]
            {
                if wanted {
                    flags.push(flag);
                }
            }
            let ty = self.type_expression(field, property, index)?;
            write!(out, "{name} {} {ty} {flags}", field.number)?;
            if let Some(key) = property["x-kubernetes-patch-merge-key"].as_str() {
                write!(out, " {key}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn type_expression(&self, field: &Field, property: &Value, index: &BTreeMap<&str, usize>) -> Result<String> {
        let item = self.item_expression(&field.ty, index)?;
        Ok(match field.label {
            Label::One if property["x-kubernetes-map-type"] == "atomic" => format!("!{item}"),
            Label::One => item,
            Label::Map if property["x-kubernetes-map-type"] == "atomic" => format!("!{{{item}"),
            Label::Map => format!("{{{item}"),
            Label::List => self.list(&item, &field.ty, property)?,
        })
    }

    fn item_expression(&self, ty: &str, index: &BTreeMap<&str, usize>) -> Result<String> {
        if let Some(code) = leaf(ty) {
            return Ok(code.to_owned());
        }
        if let Some(field) = self.wrapper(ty) {
            return Ok(format!("w[{}", self.item_expression(&field.ty, index)?));
        }
        Ok(format!("#{}", index.get(ty).with_context(|| format!("no type {ty}"))?))
    }

    fn list(&self, item: &str, ty: &str, property: &Value) -> Result<String> {
        Ok(match property["x-kubernetes-list-type"].as_str() {
            Some("set") => format!("<{item}"),
            Some("map") => {
                let keys = property["x-kubernetes-list-map-keys"].as_array().context("a map list without keys")?;
                let keys: Vec<String> =
                    keys.iter().filter_map(Value::as_str).map(|key| self.list_key(ty, key)).collect();
                format!("({}){item}", keys.join(","))
            }
            _ => format!("[{item}"),
        })
    }

    fn list_key(&self, ty: &str, key: &str) -> String {
        match self.defaults.get(&format!("{ty}.{key}")) {
            Some(default) => format!("{key}={default}"),
            None => key.to_owned(),
        }
    }
}

fn leaf(ty: &str) -> Option<&'static str> {
    LEAVES.iter().chain(&SCALARS).find(|(name, _)| *name == ty).map(|(_, code)| *code)
}

/// Types that are an object of a schema or something else in JSON.
fn alternative(name: &str) -> Option<char> {
    let name = name.rsplit('.').next()?;
    match name {
        "JSONSchemaPropsOrBool" => Some('b'),
        "JSONSchemaPropsOrArray" => Some('l'),
        "JSONSchemaPropsOrStringArray" => Some('s'),
        _ => None,
    }
}
