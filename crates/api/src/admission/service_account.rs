//! `ServiceAccount`: every pod runs as one, and finds its token where clients look for it.

use async_trait::async_trait;
use skiff_object::{Map, Tree, json};

use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::server::ApiServer;

/// See the [module](self).
pub struct ServiceAccount;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const ROOT_CA: &str = "kube-root-ca.crt";
/// An hour and the seven seconds by which upstream tells these tokens from others.
const TOKEN_SECONDS: i64 = 3_607;
/// `0644`
const FILE_MODE: i64 = 0o644;
/// Pods that a node made for itself.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
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
        let forbidden = |why: String| Err(ApiError::forbidden(attributes.subject.resource(), attributes.name, &why));
        let given = pod.str_at(&["spec", "serviceAccountName"]).to_owned();
        if meta::annotation(pod, MIRROR).is_some() {
            if !given.is_empty() {
                return forbidden("a mirror pod may not reference service accounts".into());
            }
            return Ok(());
        }
        let name = if given.is_empty() { "default".to_owned() } else { given };
        let namespace = attributes.subject.namespace.as_str();
        let Some(stored) = server.collection("", "serviceaccounts").get(namespace, &name).await? else {
            return forbidden(format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            ));
        };
        let account = json::decode_untyped(&stored.value).map_err(ApiError::internal)?;
        pod.set(&["spec", "serviceAccountName"], name.as_str());
        pod.set(&["spec", "serviceAccount"], name.as_str());
        if pod.list_at(&["spec", "imagePullSecrets"]).is_empty()
            && let Some(secrets) = account.get("imagePullSecrets").filter(|secrets| !secrets.is_null())
        {
            pod.set(&["spec", "imagePullSecrets"], secrets.clone());
        }
        let wanted = pod
            .bool_at(&["spec", "automountServiceAccountToken"])
            .or_else(|| account.bool_at(&["automountServiceAccountToken"]));
        if wanted != Some(false) {
            mount_token(server, pod);
        }
        Ok(())
    }
}

/// Mounts the token into every container that has nothing there yet.
fn mount_token(server: &ApiServer, pod: &mut Tree) {
    let existing = pod
        .list_at(&["spec", "volumes"])
        .iter()
        .map(|volume| volume.str_at(&["name"]))
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let has_volume = existing.is_some();
    let volume = existing.unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", server.random().suffix(5)));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod.at_mut(&["spec", list]).and_then(Tree::as_list_mut) else { continue };
        for container in containers {
            let mounts = container.list_at(&["volumeMounts"]);
            if mounts.iter().any(|mount| mount.str_at(&["mountPath"]) == MOUNT_PATH) {
                continue;
            }
            let mut mount = Map::new();
            mount.insert("name", volume.as_str());
            mount.insert("readOnly", true);
            mount.insert("mountPath", MOUNT_PATH);
            push(container, "volumeMounts", Tree::Map(mount));
            mounted = true;
        }
    }
    if mounted
        && !has_volume
        && let Some(spec) = pod.get_mut("spec")
    {
        push(spec, "volumes", token_volume(&volume));
    }
}

fn push(tree: &mut Tree, list: &'static str, item: Tree) {
    match tree.ensure_map().entry_or(list, Tree::list) {
        Tree::List(items) => items.push(item),
        other => *other = Tree::List(vec![item]),
    }
}

fn token_volume(name: &str) -> Tree {
    let mut token = Tree::map();
    token.set(&["serviceAccountToken", "expirationSeconds"], TOKEN_SECONDS);
    token.set(&["serviceAccountToken", "path"], "token");
    let mut ca_item = Tree::map();
    ca_item.set(&["key"], "ca.crt");
    ca_item.set(&["path"], "ca.crt");
    let mut ca = Tree::map();
    ca.set(&["configMap", "name"], ROOT_CA);
    ca.set(&["configMap", "items"], vec![ca_item]);
    let mut namespace_item = Tree::map();
    namespace_item.set(&["path"], "namespace");
    namespace_item.set(&["fieldRef", "apiVersion"], "v1");
    namespace_item.set(&["fieldRef", "fieldPath"], "metadata.namespace");
    let mut namespace = Tree::map();
    namespace.set(&["downwardAPI", "items"], vec![namespace_item]);
    let mut volume = Tree::map();
    volume.set(&["name"], name);
    volume.set(&["projected", "sources"], vec![token, ca, namespace]);
    volume.set(&["projected", "defaultMode"], FILE_MODE);
    volume
}
