//! `PodNodeSelector`: namespaces say on which nodes their pods run.

use std::collections::BTreeMap;

use async_trait::async_trait;
use skiff_object::{Map, Tree, json};

use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult};
use crate::server::ApiServer;

/// The annotation of a namespace that holds its selector.
const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// The key of the configuration that is not the name of a namespace.
const DEFAULT: &str = "clusterDefaultNodeSelector";

/// What the configuration says: a selector for namespaces without one, and for a namespace what its
/// pods may select at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    selectors: BTreeMap<String, Labels>,
}

type Labels = BTreeMap<String, String>;

impl Settings {
    /// Reads the value of `podNodeSelectorPluginConfig`.
    ///
    /// # Errors
    /// The first selector that is none.
    pub fn read(config: &Tree) -> Result<Self, String> {
        let mut selectors = BTreeMap::new();
        for (name, value) in config.as_map().into_iter().flat_map(Map::iter) {
            let text = value.as_str().ok_or_else(|| format!("{}: the selector is no text", name.as_str()))?;
            selectors.insert(name.as_str().to_owned(), labels(text)?);
        }
        Ok(Self { selectors })
    }
}

/// `a=b,c=d`
fn labels(text: &str) -> Result<Labels, String> {
    let pairs = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    pairs
        .map(|part| match part.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_owned(), value.trim().trim_start_matches('=').to_owned())),
            None => Err(format!("invalid selector: {text}")),
        })
        .collect()
}

/// See the [module](self).
pub struct PodNodeSelector {
    settings: Settings,
}

impl PodNodeSelector {
    /// With these settings.
    pub fn new(settings: &Settings) -> Self {
        Self { settings: settings.clone() }
    }

    async fn of_namespace(&self, server: &ApiServer, namespace: &str) -> ApiResult<Labels> {
        let found = server.collection("", "namespaces").get("", namespace).await?;
        if let Some(found) = found {
            let object = json::decode_untyped(&found.value).map_err(ApiError::internal)?;
            if let Some(text) = object.at(&["metadata", "annotations", ANNOTATION]).and_then(Tree::as_str) {
                return labels(text).map_err(ApiError::internal);
            }
        }
        Ok(self.settings.selectors.get(DEFAULT).cloned().unwrap_or_default())
    }
}

fn selected(pod: &Tree) -> Labels {
    let selector = pod.at(&["spec", "nodeSelector"]).and_then(Tree::as_map);
    let pairs = selector.into_iter().flat_map(Map::iter);
    pairs.map(|(key, value)| (key.as_str().to_owned(), value.as_str().unwrap_or_default().to_owned())).collect()
}

#[async_trait]
impl Plugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "pods")
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        pod: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let wanted = self.of_namespace(server, &attributes.subject.namespace).await?;
        let mut own = selected(pod);
        if wanted.iter().any(|(key, value)| own.get(key).is_some_and(|own| own != value)) {
            let why = "pod node label selector conflicts with its namespace node label selector";
            return Err(attributes.forbidden(pod, why));
        }
        own.extend(wanted);
        if !own.is_empty() {
            let mut selector = Map::new();
            for (key, value) in own {
                selector.insert(key, value);
            }
            pod.set(&["spec", "nodeSelector"], Tree::Map(selector));
        }
        Ok(())
    }

    async fn validate(
        &self,
        _server: &ApiServer,
        attributes: &Attributes<'_>,
        pod: &Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let allowed = self.settings.selectors.get(&attributes.subject.namespace).filter(|labels| !labels.is_empty());
        let Some(allowed) = allowed else { return Ok(()) };
        if selected(pod).iter().all(|(key, value)| allowed.get(key) == Some(value)) {
            return Ok(());
        }
        Err(attributes.forbidden(pod, "pod node label selector labels conflict with its namespace whitelist"))
    }
}
