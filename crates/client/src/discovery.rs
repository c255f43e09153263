//! Which resources a server serves, in their preferred versions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroupList, APIResourceList};
use std::borrow::Cow;

use http::Method;

use crate::{Client, Error, Resource, Result};

/// A resource and what can be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// The resource.
    pub resource: Resource,
    /// The verbs the server answers for it.
    pub verbs: Vec<String>,
}

impl Discovered {
    /// Whether every one of `verbs` is served.
    pub fn supports(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|served| served == verb))
    }
}

/// What discovery found, and which groups did not answer.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Every resource in its group's preferred version, without subresources.
    pub resources: Vec<Discovered>,
    /// Group versions that could not be read: their resources are unknown, not absent.
    pub failed: Vec<(String, Error)>,
}

impl Client {
    /// Reads the resources of every group in its preferred version; resources that only another
    /// version of the group serves are taken from that version.
    ///
    /// # Errors
    /// [`Error`] when the list of groups itself cannot be read.
    pub async fn discover(&self) -> Result<Discovery> {
        let mut found = Discovery::default();
        self.discover_version("", "v1", &mut found).await;
        let body = self.exchange(Method::GET, "/apis", "application/json", "", Vec::new()).await?;
        let groups: APIGroupList = serde_json::from_slice(&body)
            .map_err(|error| Error::Codec { attempt: "decode /apis".into(), cause: error.to_string() })?;
        for group in groups.groups {
            let preferred = group.preferred_version.as_ref().map(|version| version.version.clone());
            let rest = group.versions.iter().map(|version| version.version.clone());
            for version in preferred.iter().cloned().chain(rest.filter(|version| Some(version) != preferred.as_ref())) {
                self.discover_version(&group.name, &version, &mut found).await;
            }
        }
        Ok(found)
    }

    async fn discover_version(&self, group: &str, version: &str, found: &mut Discovery) {
        let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let answer = self.exchange(Method::GET, &path, "application/json", "", Vec::new()).await.and_then(|body| {
            serde_json::from_slice::<APIResourceList>(&body)
                .map_err(|error| Error::Codec { attempt: format!("decode {path}"), cause: error.to_string() })
        });
        let list = match answer {
            Ok(list) => list,
            Err(error) => {
                found.failed.push((path, error));
                return;
            }
        };
        for resource in list.resources.into_iter().filter(|resource| !resource.name.contains('/')) {
            let known = |known: &Discovered| known.resource.group == group && known.resource.plural == *resource.name;
            if found.resources.iter().any(known) {
                continue;
            }
            found.resources.push(Discovered {
                resource: Resource {
                    group: Cow::Owned(group.to_owned()),
                    version: Cow::Owned(version.to_owned()),
                    kind: Cow::Owned(resource.kind),
                    plural: Cow::Owned(resource.name),
                    namespaced: resource.namespaced,
                },
                verbs: resource.verbs,
            });
        }
    }
}
