//! `ServiceAccount`: every pod runs as one, and finds its token where clients look for it.

use async_trait::async_trait;
use skiff_object::{Map, Tree, json};

use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::registry;
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
/// An account whose pods may name only the secrets that it lists.
const LIMIT_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";
/// Pods that a node made for itself.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create => attributes.is("", "pods"),
            // Ephemeral containers are the one way to name a secret later.
            Operation::Update => {
                registry::is(attributes.subject.kind.as_ref(), "", "pods")
                    && attributes.subject.subresource == "ephemeralcontainers"
            }
            _ => false,
        }
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        pod: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        // The spec of a mirror pod is the kubelet's: it must stay what the node has.
        if attributes.operation != Operation::Create || meta::annotation(pod, MIRROR).is_some() {
            return Ok(());
        }
        let given = pod.str_at(&["spec", "serviceAccountName"]).to_owned();
        let name = if given.is_empty() { "default".to_owned() } else { given };
        let account = account(server, attributes, pod, &name, &MUTATING).await?;
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

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        pod: &Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let checked = if meta::annotation(pod, MIRROR).is_some() {
            check_mirror(pod)
        } else {
            let name = pod.str_at(&["spec", "serviceAccountName"]);
            let name = if name.is_empty() { "default" } else { name };
            let account = account(server, attributes, pod, name, &[LIMIT_SECRETS]).await?;
            let limits = meta::annotation(&account, LIMIT_SECRETS).is_some_and(is_true);
            if limits { limit_secrets(&account, pod) } else { Ok(()) }
        };
        checked.map_err(|why| attributes.forbidden(pod, &why))
    }
}

/// What of an account changes a pod.
const MUTATING: [&str; 2] = ["imagePullSecrets", "automountServiceAccountToken"];

/// The account of a pod; an empty one where it holds none of `words`, since most accounts have nothing to say and
/// every pod asks.
async fn account(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    pod: &Tree,
    name: &str,
    words: &[&str],
) -> ApiResult<Tree> {
    let namespace = attributes.subject.namespace.as_str();
    match server.collection("", "serviceaccounts").known_get(namespace, name).await? {
        Some(stored) if words.iter().all(|word| memchr::memmem::find(&stored.value, word.as_bytes()).is_none()) => {
            Ok(Tree::map())
        }
        Some(stored) => json::decode_untyped(&stored.value).map_err(ApiError::internal),
        None => {
            let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
            Err(attributes.forbidden(pod, &why))
        }
    }
}

/// Go's `strconv.ParseBool`.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// What a mirror pod may not have: a node must not get at secrets by making pods for itself.
fn check_mirror(pod: &Tree) -> Result<(), String> {
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return Err("a mirror pod may not reference service accounts".into());
    }
    if !super::node_restriction::references(pod).is_disjoint(&["secrets"].into()) {
        return Err("a mirror pod may not reference secrets".into());
    }
    let mut sources =
        pod.list_at(&["spec", "volumes"]).iter().flat_map(|volume| volume.list_at(&["projected", "sources"]));
    if sources.any(|source| source.get("serviceAccountToken").is_some_and(|token| !token.is_null())) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections".into());
    }
    Ok(())
}

/// Where an account lists its secrets and wants its pods held to the list, no others are named.
fn limit_secrets(account: &Tree, pod: &Tree) -> Result<(), String> {
    let names = |list: &str| -> Vec<String> {
        account.list_at(&[list]).iter().map(|one| one.str_at(&["name"]).to_owned()).collect()
    };
    let (secrets, pull_secrets, own) = (names("secrets"), names("imagePullSecrets"), meta::name(account));
    let is_listed = |list: &[String], name: &str| list.iter().any(|one| one == name);
    let tail = format!("is not allowed because service account {own} does not reference that");
    for volume in pod.list_at(&["spec", "volumes"]) {
        let name = volume.str_at(&["secret", "secretName"]);
        if !name.is_empty() && !is_listed(&secrets, name) {
            return Err(format!("volume with secret.secretName=\"{name}\" {tail} secret"));
        }
    }
    for (list, word) in [
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ] {
        for container in pod.list_at(&["spec", list]) {
            let owner = container.str_at(&["name"]);
            for env in container.list_at(&["env"]) {
                let name = env.str_at(&["valueFrom", "secretKeyRef", "name"]);
                if !name.is_empty() && !is_listed(&secrets, name) {
                    let env = env.str_at(&["name"]);
                    return Err(format!(
                        "{word} {owner} with envVar {env} referencing secret.secretName=\"{name}\" {tail} secret"
                    ));
                }
            }
            for source in container.list_at(&["envFrom"]) {
                let name = source.str_at(&["secretRef", "name"]);
                if !name.is_empty() && !is_listed(&secrets, name) {
                    return Err(format!(
                        "{word} {owner} with envFrom referencing secret.secretName=\"{name}\" {tail} secret"
                    ));
                }
            }
        }
    }
    for (index, secret) in pod.list_at(&["spec", "imagePullSecrets"]).iter().enumerate() {
        let name = secret.str_at(&["name"]);
        if !is_listed(&pull_secrets, name) {
            return Err(format!("imagePullSecrets[{index}].name=\"{name}\" {tail} imagePullSecret"));
        }
    }
    Ok(())
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
