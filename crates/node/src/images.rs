//! Images for containers: presence, policy, pulling with the pod's secrets.

use base64::Engine;
use k8s_openapi::api::core::v1::Secret;
use skiff_runtime::cri;

use crate::events::Severity;
use crate::node::Node;
use crate::observed::Waiting;
use crate::pod::PodView;

/// An image that is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Present {
    /// What the runtime calls it.
    pub(crate) reference: String,
    /// The user its configuration names: a number, or a name.
    pub(crate) uid: Option<i64>,
    pub(crate) username: String,
}

/// An image a container (or an image volume) of a pod wants.
pub(crate) struct Wanted<'a> {
    pub(crate) image: &'a str,
    pub(crate) policy: Option<&'a str>,
    /// The container events are about.
    pub(crate) container: Option<&'a str>,
}

/// Makes sure the image is present, as its pull policy says.
pub(crate) async fn ensure(node: &Node, pod: &PodView, wanted: &Wanted<'_>) -> Result<Present, Waiting> {
    let image = wanted.image;
    if let Err(cause) = check_name(image) {
        let message = format!("Failed to apply default image tag \"{image}\": {cause}");
        node.events.pod(pod, wanted.container, Severity::Warning, "InspectFailed", message.clone());
        node.events.pod(pod, wanted.container, Severity::Warning, "Failed", "Error: InvalidImageName");
        return Err(Waiting::new("InvalidImageName", message));
    }
    let policy = wanted.policy.unwrap_or(if is_latest(image) { "Always" } else { "IfNotPresent" });
    let spec =
        cri::ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned(), ..cri::ImageSpec::default() };
    let present = if policy == "Always" { None } else { lookup(node, &spec).await? };
    if let Some(present) = present {
        let message = format!("Container image \"{image}\" already present on machine and can be accessed by the pod");
        node.events.pod(pod, wanted.container, Severity::Normal, "Pulled", message);
        return Ok(present);
    }
    if policy == "Never" {
        let message = format!("Container image \"{image}\" is not present with pull policy of Never");
        node.events.pod(pod, wanted.container, Severity::Warning, "ErrImageNeverPull", message.clone());
        node.events.pod(pod, wanted.container, Severity::Warning, "Failed", "Error: ErrImageNeverPull");
        return Err(Waiting::new("ErrImageNeverPull", message));
    }
    pull(node, pod, wanted, spec).await
}

async fn pull(node: &Node, pod: &PodView, wanted: &Wanted<'_>, spec: cri::ImageSpec) -> Result<Present, Waiting> {
    let image = wanted.image;
    node.events.pod(pod, wanted.container, Severity::Normal, "Pulling", format!("Pulling image \"{image}\""));
    let started = node.clock.now();
    let mut failure = None;
    for auth in credentials(node, pod, image).await {
        let request = cri::PullImageRequest { image: Some(spec.clone()), auth, sandbox_config: None };
        match node.images.pull_image(request).await {
            Ok(answer) => {
                let took = node.clock.now().since(started);
                let took = format!("{}ms", took.as_millis());
                let pulled = cri::ImageSpec { image: answer.image_ref.clone(), ..cri::ImageSpec::default() };
                let found = match lookup(node, &pulled).await? {
                    Some(found) => Some(found),
                    None => lookup(node, &spec).await?,
                };
                let message = format!("Successfully pulled image \"{image}\" in {took} ({took} including waiting).");
                node.events.pod(pod, wanted.container, Severity::Normal, "Pulled", message);
                return Ok(found.unwrap_or(Present { reference: answer.image_ref, ..Present::default() }));
            }
            Err(status) => failure = Some(status.message().to_owned()),
        }
    }
    let cause = failure.unwrap_or_else(|| "no answer from the runtime".into());
    let message = format!("Failed to pull image \"{image}\": {cause}");
    node.events.pod(pod, wanted.container, Severity::Warning, "Failed", message);
    node.events.pod(pod, wanted.container, Severity::Warning, "Failed", "Error: ErrImagePull");
    Err(Waiting::new("ErrImagePull", cause))
}

async fn lookup(node: &Node, spec: &cri::ImageSpec) -> Result<Option<Present>, Waiting> {
    let request = cri::ImageStatusRequest { image: Some(spec.clone()), verbose: false };
    match node.images.image_status(request).await {
        Ok(answer) => Ok(answer.image.map(|image| Present {
            reference: image.id,
            uid: image.uid.map(|uid| uid.value),
            username: image.username,
        })),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(Waiting::new(
            "ImageInspectError",
            format!("Failed to inspect image \"{}\": {}", spec.image, status.message()),
        )),
    }
}

/// The credentials to try, in order: those of the pod's pull secrets for this registry, and none.
async fn credentials(node: &Node, pod: &PodView, image: &str) -> Vec<Option<cri::AuthConfig>> {
    let mut out = Vec::new();
    for reference in pod.spec().image_pull_secrets.iter().flatten() {
        if let Some(secret) = node.objects.secret(&pod.namespace, &reference.name).await {
            out.extend(from_secret(&secret, registry(image)).into_iter().map(Some));
        }
    }
    if out.is_empty() {
        out.push(None);
    }
    out
}

fn from_secret(secret: &Secret, registry: &str) -> Vec<cri::AuthConfig> {
    let data = secret.data.iter().flatten();
    let mut out = Vec::new();
    for (key, value) in data {
        let parsed: serde_json::Value = serde_json::from_slice(&value.0).unwrap_or_default();
        let auths = match key.as_str() {
            ".dockerconfigjson" => parsed.get("auths").cloned().unwrap_or_default(),
            ".dockercfg" => parsed,
            _ => continue,
        };
        for (server, entry) in auths.as_object().into_iter().flatten() {
            let host = server.trim_start_matches("https://").trim_start_matches("http://");
            let host = host.split('/').next().unwrap_or(host);
            let same = host == registry || (registry == "docker.io" && host == "index.docker.io");
            if same {
                out.push(auth(entry));
            }
        }
    }
    out
}

fn auth(entry: &serde_json::Value) -> cri::AuthConfig {
    let text = |key: &str| entry.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(text("auth"))
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|pair| pair.split_once(':'));
    let or = |own: String, other: Option<&str>| if own.is_empty() { other.unwrap_or_default().to_owned() } else { own };
    cri::AuthConfig {
        username: or(text("username"), pair.map(|pair| pair.0)),
        password: or(text("password"), pair.map(|pair| pair.1)),
        identity_token: text("identitytoken"),
        ..cri::AuthConfig::default()
    }
}

/// The registry in an image name; the first part counts only when it looks like a host.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

fn is_latest(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn check_name(image: &str) -> Result<(), String> {
    let invalid = || format!("couldn't parse image name \"{image}\": invalid reference format");
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    if digest.is_some_and(|digest| digest.split_once(':').is_none_or(|(_, hex)| hex.len() < 32)) {
        return Err(invalid());
    }
    let (host, path) = match name.split_once('/') {
        Some((first, rest)) if registry(image) == first => (Some(first), rest),
        _ => (None, name),
    };
    let (path, tag) = path.rsplit_once(':').map_or((path, None), |(path, tag)| (path, Some(tag)));
    let part = |part: &str| {
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        edge(part.bytes().next())
            && edge(part.bytes().last())
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-'))
    };
    let tag_ok = tag.is_none_or(|tag| {
        (1..=128).contains(&tag.len())
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    });
    let host_ok = host.is_none_or(|host| {
        host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']'))
    });
    if tag_ok && host_ok && path.split('/').all(part) { Ok(()) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names() {
        for good in [
            "busybox",
            "skiff.local/demo",
            "r.io:5000/a/b:v1",
            "a@sha256:0123456789abcdef0123456789abcdef",
            "localhost/x:y",
        ] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["Busy Box", "a:", "a//b", "", "UPPER/x", "a@sha256:1"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(is_latest("a") && is_latest("r:5000/a:latest") && is_latest("r:5000/a"));
        assert!(!is_latest("a:1") && !is_latest("a@sha256:00"));
        assert_eq!(registry("library/a"), "docker.io");
    }
}
