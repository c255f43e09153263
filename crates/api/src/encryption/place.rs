//! Where upstream keeps what we keep under one of our keys.
//!
//! Ciphers bind a value to its key, so that nobody moves it. The key that counts is upstream's: what
//! one of the two has encrypted, the other can read. Upstream's paths leave out the group of what is
//! built in, keep it for custom resources, definitions and API services, and have some names of old.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

/// Groups that upstream serves from servers of their own inside the server, which keep the group.
const GROUPS_THAT_STAY: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];
/// Resources that are stored under another name than their own.
const OF_OLD: [(&str, &str, &str); 5] = [
    ("core", "replicationcontrollers", "controllers"),
    ("core", "endpoints", "services/endpoints"),
    ("core", "nodes", "minions"),
    ("core", "services", "services/specs"),
    ("networking.k8s.io", "ingresses", "ingress"),
];

/// Groups of built-in kinds.
static BUILT_IN: LazyLock<HashSet<String>> =
    LazyLock::new(|| skiff_kinds::builtin().iter().map(|kind| kind.facts().group.as_str().to_owned()).collect());

/// The key in upstream's etcd for `<cluster>/registry/<group or core>/<plural>/<namespace>/<name>`; anything else
/// is its own place.
pub(super) fn of(key: &[u8]) -> Cow<'_, [u8]> {
    upstream(key).map_or(Cow::Borrowed(key), |place| Cow::Owned(place.into_bytes()))
}

fn upstream(key: &[u8]) -> Option<String> {
    let mut parts = std::str::from_utf8(key).ok()?.splitn(6, '/');
    let (_, registry, group, plural) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (namespace, name) = (parts.next()?, parts.next()?);
    if registry != "registry" {
        return None;
    }
    let old = OF_OLD.iter().find(|(old_group, old_plural, _)| (*old_group, *old_plural) == (group, plural));
    let resource = match old {
        Some((.., path)) => Cow::Borrowed(*path),
        None if group == "core" => Cow::Borrowed(plural),
        None if BUILT_IN.contains(group) && !GROUPS_THAT_STAY.contains(&group) => Cow::Borrowed(plural),
        None => Cow::Owned(format!("{group}/{plural}")),
    };
    Some(if namespace.is_empty() {
        format!("/registry/{resource}/{name}")
    } else {
        format!("/registry/{resource}/{namespace}/{name}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_upstreams() {
        for (ours, theirs) in [
            ("c/registry/core/secrets/default/s", "/registry/secrets/default/s"),
            ("c/registry/core/namespaces//kube-system", "/registry/namespaces/kube-system"),
            ("c/registry/core/services/default/web", "/registry/services/specs/default/web"),
            ("c/registry/core/endpoints/default/web", "/registry/services/endpoints/default/web"),
            ("c/registry/core/nodes//n1", "/registry/minions/n1"),
            ("c/registry/networking.k8s.io/ingresses/default/i", "/registry/ingress/default/i"),
            ("c/registry/apps/deployments/default/d", "/registry/deployments/default/d"),
            ("c/registry/events.k8s.io/events/default/e", "/registry/events/default/e"),
            (
                "c/registry/apiregistration.k8s.io/apiservices//v1.apps",
                "/registry/apiregistration.k8s.io/apiservices/v1.apps",
            ),
            (
                "c/registry/apiextensions.k8s.io/customresourcedefinitions//boats.sea.io",
                "/registry/apiextensions.k8s.io/customresourcedefinitions/boats.sea.io",
            ),
            ("c/registry/sea.io/boats/default/b", "/registry/sea.io/boats/default/b"),
            ("c/lease/x", "c/lease/x"),
        ] {
            assert_eq!(std::str::from_utf8(&of(ours.as_bytes())).unwrap(), theirs);
        }
    }
}
