//! The Swagger 2 document in parts: what is built in (with what aggregated servers say), and every group version of
//! custom kinds. Only what changed is made again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use skiff_kinds::Registry;
use skiff_object::{Map, Tree, json};

use super::parts::{self, Joined, Part};
use super::{proto, revision, v2};
use crate::aggregation::documents::{self, Documents as Said};
use crate::errors::ApiResult;
use crate::server::ApiServer;

/// The built-in half, and what aggregated servers said when it was made.
type KnownBase = (Vec<Arc<Said>>, Arc<Base>);
/// The part of a custom group version, and the revision it is of.
type KnownCustom = (String, Arc<Custom>);

/// Parts that were made before.
#[derive(Default)]
pub(super) struct Parts {
    base: Mutex<Option<KnownBase>>,
    /// By group and version, each with the revision it was made of.
    custom: Mutex<HashMap<(String, String), KnownCustom>>,
}

/// What is not custom.
struct Base {
    /// Up to the last path.
    paths: Part,
    /// From there to the last definition.
    definitions: Part,
    /// The rest.
    end: Part,
    protobuf: Part,
}

/// A group version of custom kinds.
struct Custom {
    paths: Part,
    definitions: Part,
    protobuf: Part,
}

impl Parts {
    /// The document as it is now, as protobuf or JSON. Others get a turn after each part that has to be made.
    pub(super) async fn document(&self, server: &ApiServer, registry: &Registry, protobuf: bool) -> ApiResult<Joined> {
        let base = self.base(server)?;
        let mut all: Vec<Arc<Custom>> = Vec::new();
        let versions = custom_versions(registry);
        for (group, version) in &versions {
            let made_of = revision(registry, group, version);
            let key = (group.clone(), version.clone());
            let known = self
                .custom
                .lock()
                .get(&key)
                .filter(|(revision, _)| *revision == made_of)
                .map(|(_, part)| Arc::clone(part));
            let part = match known {
                Some(part) => part,
                None => {
                    let part = Arc::new(Custom::new(registry, &server.config.registry, group, version)?);
                    self.custom.lock().insert(key, (made_of, Arc::clone(&part)));
                    tokio::task::yield_now().await;
                    part
                }
            };
            all.push(part);
        }
        let mut custom = self.custom.lock();
        if custom.len() > versions.len() {
            custom.retain(|key, _| versions.contains(key));
        }
        drop(custom);
        Ok(if protobuf {
            parts::join(std::iter::once(&base.protobuf).chain(all.iter().map(|part| &part.protobuf)))
        } else {
            let paths = all.iter().map(|part| &part.paths);
            let definitions = all.iter().map(|part| &part.definitions);
            let head = std::iter::once(&base.paths).chain(paths);
            parts::join(head.chain([&base.definitions]).chain(definitions).chain([&base.end]))
        })
    }

    fn base(&self, server: &ApiServer) -> ApiResult<Arc<Base>> {
        let said: Vec<Arc<Said>> = super::remotes(server).into_iter().map(|(_, said)| said).collect();
        let same =
            |known: &[Arc<Said>]| known.len() == said.len() && known.iter().zip(&said).all(|(a, b)| Arc::ptr_eq(a, b));
        if let Some((_, base)) = self.base.lock().as_ref().filter(|(known, _)| same(known)) {
            return Ok(Arc::clone(base));
        }
        let mut document = v2::document(&server.config.registry, skiff_kinds::schema());
        for part in said.iter().filter_map(|said| said.v2.as_ref()) {
            documents::merge(&mut document, part);
        }
        let base = Arc::new(Base::new(document)?);
        *self.base.lock() = Some((said, Arc::clone(&base)));
        Ok(base)
    }
}

/// The group versions that have custom kinds, in the order of discovery.
fn custom_versions(registry: &Registry) -> Vec<(String, String)> {
    let mut versions: Vec<(String, String)> = Vec::new();
    for kind in registry.iter().filter(|kind| kind.custom().is_some()) {
        let (group, version) = (kind.facts().group.as_str(), kind.facts().version.as_str());
        // Those of one version stand together.
        if versions.last().is_none_or(|last| (last.0.as_str(), last.1.as_str()) != (group, version)) {
            versions.push((group.to_owned(), version.to_owned()));
        }
    }
    versions
}

/// The entries of an object, without its braces.
fn entries(tree: Option<&Tree>) -> Vec<u8> {
    let mut json = json::encode_untyped(tree.unwrap_or(&Tree::Null));
    json.pop();
    json.split_off(1.min(json.len()))
}

impl Base {
    fn new(document: Tree) -> ApiResult<Self> {
        let pick = |keys: &[&str]| {
            let map: Map =
                keys.iter().filter_map(|key| Some(((*key).to_owned().into(), document.get(key)?.clone()))).collect();
            Tree::Map(map)
        };
        let mut head = vec![b'{'];
        head.extend(entries(Some(&pick(&["swagger", "info"]))));
        head.extend_from_slice(b",\"paths\":{");
        head.extend(entries(document.get("paths")));
        let mut middle = b"},\"definitions\":{".to_vec();
        middle.extend(entries(document.get("definitions")));
        let mut end = b"},".to_vec();
        end.extend(entries(Some(&pick(&["security", "securityDefinitions"]))));
        end.push(b'}');
        Ok(Self {
            paths: Part::new(&head)?,
            definitions: Part::new(&middle)?,
            end: Part::new(&end)?,
            protobuf: Part::new(&proto::document(&document))?,
        })
    }
}

impl Custom {
    fn new(registry: &Registry, builtin: &Registry, group: &str, version: &str) -> ApiResult<Self> {
        let part = v2::part(registry, builtin, skiff_kinds::schema(), group, version);
        // What is built in is never empty, so every part begins with a comma.
        let after_comma = |tree: Option<&Tree>| {
            let entries = entries(tree);
            if entries.is_empty() { entries } else { [&b","[..], &entries].concat() }
        };
        Ok(Self {
            paths: Part::new(&after_comma(part.get("paths")))?,
            definitions: Part::new(&after_comma(part.get("definitions")))?,
            // The paths and definitions of several messages are those of one.
            protobuf: Part::new(&proto::document(&part))?,
        })
    }
}
