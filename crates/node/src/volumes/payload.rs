//! The files of configMap, secret, downwardAPI and projected volumes, from the objects they name.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Secret, ServiceAccountTokenProjection, Volume,
};
use skiff_base::Timestamp;

use super::VolumeError;
use super::atomic::{FileContent, Payload};
use crate::env::{metadata_field, resource_value};
use crate::node::Node;
use crate::objects::Reference;
use crate::pod::{PodView, from_time};

const DEFAULT_MODE: i32 = 0o644;
/// Tokens live at most this long without being renewed, whatever their expiry.
const TOKEN_AGE_MAX_SECS: i64 = 24 * 3600;

/// The files of one volume and when they are to be made again.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) payload: Payload,
    pub(crate) refresh_at: Option<Timestamp>,
}

/// The ConfigMaps and Secrets a pod refers to, from volumes, variables and pull secrets.
pub(crate) fn references(pod: &PodView) -> Vec<Reference> {
    let mut out = Vec::new();
    let config_map = |name: &str| Reference::ConfigMap(pod.namespace.clone(), name.to_owned());
    let secret = |name: &str| Reference::Secret(pod.namespace.clone(), name.to_owned());
    for volume in pod.spec().volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            out.push(config_map(&source.name));
        }
        if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.as_ref()) {
            out.push(secret(name));
        }
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            out.extend(source.config_map.as_ref().map(|source| config_map(&source.name)));
            out.extend(source.secret.as_ref().map(|source| secret(&source.name)));
        }
    }
    for spec in &pod.containers {
        for from in spec.container.env_from.iter().flatten() {
            out.extend(from.config_map_ref.as_ref().map(|source| config_map(&source.name)));
            out.extend(from.secret_ref.as_ref().map(|source| secret(&source.name)));
        }
        for from in spec.container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            out.extend(from.config_map_key_ref.as_ref().map(|source| config_map(&source.name)));
            out.extend(from.secret_key_ref.as_ref().map(|source| secret(&source.name)));
        }
    }
    out.extend(pod.spec().image_pull_secrets.iter().flatten().map(|source| secret(&source.name)));
    out.sort();
    out.dedup();
    out
}

/// The files of `volume`; `None` when it is of another type.
pub(crate) async fn make(node: &Node, pod: &PodView, volume: &Volume) -> Result<Option<Made>, VolumeError> {
    let mut made = Made::default();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional.unwrap_or(false);
        add_config_map(node, pod, &source.name, source.items.as_deref(), mode, optional, &mut made.payload).await?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional.unwrap_or(false);
        add_secret(node, pod, &name, source.items.as_deref(), mode, optional, &mut made.payload).await?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        add_downward(node, pod, source.items.as_deref().unwrap_or_default(), mode, &mut made.payload)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for source in source.sources.iter().flatten() {
            add_projection(node, pod, source, mode, &mut made).await?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(made))
}

async fn add_projection(
    node: &Node,
    pod: &PodView,
    source: &k8s_openapi::api::core::v1::VolumeProjection,
    mode: i32,
    made: &mut Made,
) -> Result<(), VolumeError> {
    if let Some(source) = &source.config_map {
        let optional = source.optional.unwrap_or(false);
        add_config_map(node, pod, &source.name, source.items.as_deref(), mode, optional, &mut made.payload).await
    } else if let Some(source) = &source.secret {
        let optional = source.optional.unwrap_or(false);
        add_secret(node, pod, &source.name, source.items.as_deref(), mode, optional, &mut made.payload).await
    } else if let Some(source) = &source.downward_api {
        add_downward(node, pod, source.items.as_deref().unwrap_or_default(), mode, &mut made.payload)
    } else if let Some(source) = &source.service_account_token {
        add_token(node, pod, source, mode, made).await
    } else {
        Err(VolumeError("this projected volume source is not supported by this node".into()))
    }
}

async fn add_config_map(
    node: &Node,
    pod: &PodView,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    let found = node.objects.config_map(&pod.namespace, name).await;
    let data = match &found {
        Some(map) => config_map_data(map),
        None if optional => BTreeMap::new(),
        None => return Err(VolumeError(format!("configmap \"{name}\" not found"))),
    };
    select(data, items, mode, optional, &format!("configmap references non-existent config key: {}", "{key}"), out)
}

async fn add_secret(
    node: &Node,
    pod: &PodView,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    let found = node.objects.secret(&pod.namespace, name).await;
    let data = match &found {
        Some(secret) => secret_data(secret),
        None if optional => BTreeMap::new(),
        None => return Err(VolumeError(format!("secret \"{name}\" not found"))),
    };
    select(data, items, mode, optional, "references non-existent secret key: {key}", out)
}

fn config_map_data(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    text.chain(map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()))).collect()
}

fn secret_data(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

fn select(
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    missing: &str,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        out.extend(data.into_iter().map(|(key, data)| (key, FileContent { data, mode: bits(mode), owner: None })));
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(data) => {
                let mode = bits(item.mode.unwrap_or(mode));
                out.insert(clean(&item.path), FileContent { data: data.clone(), mode, owner: None });
            }
            None if optional => {}
            None => return Err(VolumeError(missing.replace("{key}", &item.key))),
        }
    }
    Ok(())
}

fn add_downward(
    node: &Node,
    pod: &PodView,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    out: &mut Payload,
) -> Result<(), VolumeError> {
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            metadata_field(&field.field_path, pod).map_err(|error| VolumeError(error.0))?
        } else if let Some(resource) = &item.resource_field_ref {
            let container = pod.containers.first().map(|spec| spec.container.clone()).unwrap_or_default();
            let allocatable = node.allocatable();
            resource_value(resource, &container, pod, &allocatable).map_err(|error| VolumeError(error.0))?
        } else {
            continue;
        };
        let mode = bits(item.mode.unwrap_or(mode));
        out.insert(clean(&item.path), FileContent { data: text.into_bytes(), mode, owner: None });
    }
    Ok(())
}

async fn add_token(
    node: &Node,
    pod: &PodView,
    source: &ServiceAccountTokenProjection,
    mode: i32,
    made: &mut Made,
) -> Result<(), VolumeError> {
    let token = token(node, pod, source).await?;
    let refresh = token.refresh_at;
    made.refresh_at = Some(made.refresh_at.map_or(refresh, |known| known.min(refresh)));
    let security = pod.spec().security_context.as_ref();
    let user = shared_user(pod);
    let grouped = security.and_then(|security| security.fs_group).is_some();
    // A token is readable by everybody in the pod only when nobody in particular is to read it.
    let mode = if user.is_some() || grouped { 0o600 } else { bits(mode) };
    let content = FileContent { data: token.text.into_bytes(), mode, owner: user };
    made.payload.insert(clean(&source.path), content);
    Ok(())
}

/// The user all containers of the pod run as, when they agree and say so.
fn shared_user(pod: &PodView) -> Option<u32> {
    let default = pod.spec().security_context.as_ref().and_then(|security| security.run_as_user);
    let mut users = pod
        .containers
        .iter()
        .map(|spec| spec.container.security_context.as_ref().and_then(|security| security.run_as_user).or(default));
    let first = users.next().flatten()?;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

/// A service account token and when to renew it.
#[derive(Clone)]
pub(crate) struct Token {
    text: String,
    refresh_at: Timestamp,
}

async fn token(node: &Node, pod: &PodView, source: &ServiceAccountTokenProjection) -> Result<Token, VolumeError> {
    let key = (pod.uid.clone(), source.audience.clone().unwrap_or_default(), source.expiration_seconds.unwrap_or(3600));
    let now = node.clock.now();
    let known = node.tokens.lock().get(&key).cloned();
    if let Some(token) = known.as_ref().filter(|token| token.refresh_at > now) {
        return Ok(token.clone());
    }
    let spec = TokenRequestSpec {
        audiences: Some(source.audience.iter().filter(|audience| !audience.is_empty()).cloned().collect()),
        expiration_seconds: Some(key.2),
        bound_object_ref: Some(BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
        }),
    };
    let account =
        pod.spec().service_account_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| "default".into());
    let answer = match node.client.create_token(&pod.namespace, &account, spec).await {
        Ok(answer) => answer,
        // An old token is better than none while the server is away.
        Err(error) => match known {
            Some(token) => return Ok(Token { refresh_at: now.plus(std::time::Duration::from_secs(60)), ..token }),
            None => return Err(VolumeError(format!("failed to fetch token: {error}"))),
        },
    };
    let status = answer.status.ok_or_else(|| VolumeError("failed to fetch token: the answer has no status".into()))?;
    let lives = status.expiration_timestamp.as_ref().map_or(3600, |at| from_time(at).since(now).as_secs());
    let lives = i64::try_from(lives).unwrap_or(i64::MAX).min(TOKEN_AGE_MAX_SECS);
    let refresh_at = Timestamp::from_secs(now.as_secs() + (lives * 8 / 10).max(1));
    let token = Token { text: status.token.unwrap_or_default(), refresh_at };
    node.tokens.lock().insert(key, token.clone());
    Ok(token)
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}

fn clean(path: &str) -> String {
    path.trim_start_matches("./").to_owned()
}
