//! Stored keys and etcd keys, one to one.
//!
//! Skiff stores `<cluster>/registry/<group or core>/<plural>/<namespace or nothing>/<name>`.
//! kube-apiserver keeps the same object at `/registry/<plural>/<namespace>/<name>`, with a few
//! resources under older names (nodes are `minions`) and custom resources under their group. On
//! an etcd cluster, and where the embedded store answers as one, keys look like upstream's, so
//! what people know about them holds.
//!
//! Keys of any other form stay what they are on the etcd side and lie below `<cluster>/etcd/` on
//! the stored side. Within one collection both sides have the same order; across collections
//! they have not.

use bytes::Bytes;
use skiff_store::{Error, prefix_end};

/// The built-in resources: group in stored keys, plural, and their place below the prefix in etcd
/// where it is not the plural. Everything else lies at `<group>/<plural>`.
const BUILT_IN: &[(&str, &str, &str)] = &[
    ("core", "configmaps", ""),
    ("core", "endpoints", "services/endpoints"),
    ("core", "events", ""),
    ("core", "limitranges", ""),
    ("core", "masterleases", ""),
    ("core", "namespaces", ""),
    ("core", "nodes", "minions"),
    ("core", "persistentvolumeclaims", ""),
    ("core", "persistentvolumes", ""),
    ("core", "pods", ""),
    ("core", "podtemplates", ""),
    ("core", "replicationcontrollers", "controllers"),
    ("core", "resourcequotas", ""),
    ("core", "secrets", ""),
    ("core", "serviceaccounts", ""),
    ("core", "services", "services/specs"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies", ""),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings", ""),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", ""),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", ""),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", ""),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", ""),
    ("apps", "controllerrevisions", ""),
    ("apps", "daemonsets", ""),
    ("apps", "deployments", ""),
    ("apps", "replicasets", ""),
    ("apps", "statefulsets", ""),
    ("autoscaling", "horizontalpodautoscalers", ""),
    ("batch", "cronjobs", ""),
    ("batch", "jobs", ""),
    ("certificates.k8s.io", "certificatesigningrequests", ""),
    ("certificates.k8s.io", "clustertrustbundles", ""),
    ("certificates.k8s.io", "podcertificaterequests", ""),
    ("coordination.k8s.io", "leasecandidates", ""),
    ("coordination.k8s.io", "leases", ""),
    ("discovery.k8s.io", "endpointslices", ""),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", ""),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", ""),
    ("internal.apiserver.k8s.io", "storageversions", ""),
    ("networking.k8s.io", "ingressclasses", ""),
    ("networking.k8s.io", "ingresses", "ingress"),
    ("networking.k8s.io", "ipaddresses", ""),
    ("networking.k8s.io", "networkpolicies", ""),
    ("networking.k8s.io", "servicecidrs", ""),
    ("node.k8s.io", "runtimeclasses", ""),
    ("policy", "poddisruptionbudgets", ""),
    ("rbac.authorization.k8s.io", "clusterrolebindings", ""),
    ("rbac.authorization.k8s.io", "clusterroles", ""),
    ("rbac.authorization.k8s.io", "rolebindings", ""),
    ("rbac.authorization.k8s.io", "roles", ""),
    ("resource.k8s.io", "deviceclasses", ""),
    ("resource.k8s.io", "devicetaintrules", ""),
    ("resource.k8s.io", "resourceclaims", ""),
    ("resource.k8s.io", "resourceclaimtemplates", ""),
    ("resource.k8s.io", "resourceslices", ""),
    ("scheduling.k8s.io", "priorityclasses", ""),
    ("storage.k8s.io", "csidrivers", ""),
    ("storage.k8s.io", "csinodes", ""),
    ("storage.k8s.io", "csistoragecapacities", ""),
    ("storage.k8s.io", "storageclasses", ""),
    ("storage.k8s.io", "volumeattachments", ""),
    ("storage.k8s.io", "volumeattributesclasses", ""),
    ("storagemigration.k8s.io", "storageversionmigrations", ""),
];

/// kube-apiserver's `--etcd-prefix` when it is not given.
pub const PREFIX: &str = "/registry";

/// How stored keys and etcd keys belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Every key lies below the prefix as it is.
    Plain {
        /// What etcd keys begin with; may be empty.
        prefix: Bytes,
    },
    /// As kube-apiserver lays them out.
    Kubernetes {
        /// The `--etcd-prefix`, beginning and not ending with a slash.
        prefix: String,
        /// The cluster's identity in stored keys.
        cluster: String,
    },
}

/// A collection of a cluster: where its keys begin on both sides.
struct Collection {
    stored: Vec<u8>,
    etcd: Vec<u8>,
}

impl Keys {
    /// Upstream's layout of `cluster` below `prefix`.
    ///
    /// # Errors
    /// The prefix names nothing.
    pub fn kubernetes(prefix: &str, cluster: &str) -> Result<Self, Error> {
        let prefix = format!("/{}", prefix.trim_matches('/'));
        if prefix == "/" {
            return Err(Error::Invalid("the etcd prefix is empty".into()));
        }
        Ok(Self::Kubernetes { prefix, cluster: cluster.to_owned() })
    }

    /// The etcd key of a stored key; `None` for one that has no place there.
    pub fn to_etcd(&self, key: &[u8]) -> Option<Bytes> {
        let (prefix, cluster) = match self {
            Self::Plain { prefix } => return Some([prefix, key].concat().into()),
            Self::Kubernetes { prefix, cluster } => (prefix, cluster),
        };
        let rest = key.strip_prefix(cluster.as_bytes())?;
        if let Some(other) = rest.strip_prefix(b"/etcd/") {
            // A key that would be taken for an object's is stored as one.
            return (!other.is_empty() && self.to_object(other).is_none()).then(|| Bytes::copy_from_slice(other));
        }
        let (group, plural, tail) = split(rest.strip_prefix(b"/registry/")?)?;
        let mut etcd = place(prefix, group, plural)?;
        match *tail.split(|byte| *byte == b'/').collect::<Vec<_>>() {
            [namespace, name] if !name.is_empty() => {
                etcd.extend_from_slice(if namespace.is_empty() { name } else { tail });
                Some(etcd.into())
            }
            _ => None,
        }
    }

    /// The stored key of an etcd key; `None` for one outside of the prefix.
    pub fn to_stored(&self, key: &[u8]) -> Option<Bytes> {
        match self {
            Self::Plain { prefix } => key.strip_prefix(prefix.as_ref()).map(Bytes::copy_from_slice),
            Self::Kubernetes { cluster, .. } => {
                Some(self.to_object(key).unwrap_or_else(|| [cluster.as_bytes(), b"/etcd/", key].concat().into()))
            }
        }
    }

    /// The range of etcd keys of a range of stored keys (an empty `end` for no upper bound).
    ///
    /// # Errors
    /// The range spans collections, which lie in another order on the other side.
    pub fn range_to_etcd(&self, start: &[u8], end: &[u8]) -> Result<(Bytes, Bytes), Error> {
        let refused = || {
            Error::Invalid(format!(
                "the keys from {} to {} do not lie together in etcd",
                start.escape_ascii(),
                end.escape_ascii()
            ))
        };
        let (prefix, cluster) = match self {
            Self::Plain { prefix } => {
                let end = if end.is_empty() { prefix_end(prefix) } else { [prefix, end].concat().into() };
                return Ok(([prefix, start].concat().into(), end));
            }
            Self::Kubernetes { prefix, cluster } => (prefix, cluster),
        };
        let registry = [cluster.as_bytes(), b"/registry/"].concat();
        let (group, plural, _) = start.strip_prefix(&registry[..]).and_then(split).ok_or_else(refused)?;
        let stored = [&registry[..], group, b"/", plural, b"/"].concat();
        let collection = Collection { stored, etcd: place(prefix, group, plural).ok_or_else(refused)? };
        let etcd_start = collection.bound(start).ok_or_else(refused)?;
        let etcd_end = collection.bound(end).ok_or_else(refused)?;
        Ok((etcd_start, etcd_end))
    }

    /// A range of stored keys that holds everything of a range of etcd keys, and usually more.
    pub fn range_to_stored(&self, start: &[u8], end: &[u8]) -> (Bytes, Bytes) {
        let (prefix, cluster) = match self {
            Self::Plain { prefix } => {
                let start = start.strip_prefix(prefix.as_ref()).unwrap_or_default();
                let end = end.strip_prefix(prefix.as_ref()).unwrap_or_default();
                return (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
            }
            Self::Kubernetes { prefix, cluster } => (prefix, cluster),
        };
        let all = Bytes::from(format!("{cluster}/"));
        let found = self.collection(start).filter(|(_, _, etcd, _)| {
            let last = prefix_end(etcd);
            !end.is_empty() && (last.is_empty() || *end <= last[..])
        });
        let stored = found.and_then(|(group, plural, ..)| {
            place(prefix, group.as_bytes(), plural.as_bytes())?;
            Some(Bytes::from(format!("{cluster}/registry/{group}/{plural}/")))
        });
        let range = stored.unwrap_or(all);
        (range.clone(), prefix_end(&range))
    }

    /// The stored key of an etcd key that an object has.
    fn to_object(&self, key: &[u8]) -> Option<Bytes> {
        let Self::Kubernetes { cluster, .. } = self else { return None };
        let (group, plural, _, tail) = self.collection(key)?;
        let head = format!("{cluster}/registry/{group}/{plural}/");
        match *tail.split(|byte| *byte == b'/').collect::<Vec<_>>() {
            [name] if !name.is_empty() => Some([head.as_bytes(), b"/", name].concat().into()),
            [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                Some([head.as_bytes(), tail].concat().into())
            }
            _ => None,
        }
    }

    /// Group and plural of an etcd key, what the keys of its collection begin with, and the rest.
    fn collection<'a>(&self, key: &'a [u8]) -> Option<(&'a str, &'a str, Vec<u8>, &'a [u8])> {
        let Self::Kubernetes { prefix, .. } = self else { return None };
        let rest = key.strip_prefix(prefix.as_bytes())?.strip_prefix(b"/")?;
        for (group, plural, path) in BUILT_IN {
            let path = if path.is_empty() { plural } else { path };
            if let Some(tail) = rest.strip_prefix(path.as_bytes()).and_then(|tail| tail.strip_prefix(b"/")) {
                let begin = key.len() - tail.len();
                return Some((group, plural, key[..begin].to_vec(), tail));
            }
        }
        let (group, plural, tail) = split(rest)?;
        // Only what a group can be called: `services/other` is nobody's.
        place(prefix, group, plural)?;
        let begin = key.len() - tail.len();
        let is_group = group.contains(&b'.') && !is_built_in(group, plural);
        let names = (std::str::from_utf8(group).ok()?, std::str::from_utf8(plural).ok()?);
        is_group.then(|| (names.0, names.1, key[..begin].to_vec(), tail))
    }
}

impl Collection {
    /// The etcd form of a bound of a range within the collection.
    fn bound(&self, key: &[u8]) -> Option<Bytes> {
        if let Some(tail) = key.strip_prefix(&self.stored[..]) {
            return Some([&self.etcd[..], tail.strip_prefix(b"/").unwrap_or(tail)].concat().into());
        }
        (*key == prefix_end(&self.stored)[..]).then(|| prefix_end(&self.etcd))
    }
}

/// What the etcd keys of a collection begin with; `None` for names that no resource has.
fn place(prefix: &str, group: &[u8], plural: &[u8]) -> Option<Vec<u8>> {
    let (group, plural) = (std::str::from_utf8(group).ok()?, std::str::from_utf8(plural).ok()?);
    let known = BUILT_IN.iter().find(|row| (row.0, row.1) == (group, plural));
    let path = match known {
        Some((_, plural, "")) => format!("{prefix}/{plural}/"),
        Some((_, _, path)) => format!("{prefix}/{path}/"),
        // A group has a dot and a built-in plural has none, so neither is taken for the other.
        None if group.contains('.') && !plural.is_empty() => format!("{prefix}/{group}/{plural}/"),
        None => return None,
    };
    Some(path.into_bytes())
}

fn is_built_in(group: &[u8], plural: &[u8]) -> bool {
    BUILT_IN.iter().any(|row| row.0.as_bytes() == group && row.1.as_bytes() == plural)
}

/// `group/plural/rest`
fn split(key: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut parts = key.splitn(3, |byte| *byte == b'/');
    Some((parts.next()?, parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::kubernetes("registry/", "c").unwrap()
    }

    fn check(stored: &str, etcd: &str) {
        let text = |bytes: Option<Bytes>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        assert_eq!(text(keys().to_etcd(stored.as_bytes())).as_deref(), Some(etcd));
        assert_eq!(text(keys().to_stored(etcd.as_bytes())).as_deref(), Some(stored));
    }

    #[test]
    fn keys_look_as_upstreams_and_come_back() {
        check("c/registry/core/pods/default/web", "/registry/pods/default/web");
        check("c/registry/core/nodes//one", "/registry/minions/one");
        check("c/registry/core/services/default/web", "/registry/services/specs/default/web");
        check("c/registry/core/endpoints/default/web", "/registry/services/endpoints/default/web");
        check("c/registry/apps/deployments/default/web", "/registry/deployments/default/web");
        check("c/registry/networking.k8s.io/ingresses/default/web", "/registry/ingress/default/web");
        check(
            "c/registry/apiextensions.k8s.io/customresourcedefinitions//widgets.example.com",
            "/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.example.com",
        );
        check("c/registry/example.com/widgets/default/one", "/registry/example.com/widgets/default/one");
        check("c/registry/skiff.internal/nodeports//30000", "/registry/skiff.internal/nodeports/30000");
    }

    #[test]
    fn other_keys_stay_what_they_are() {
        for key in [
            "a",
            "/registry",
            "/registry/",
            "/registry/pods",
            "/registry/pods/",
            "/registry/pods//x",
            "/registry/pods/a/b/c",
            "/registry/services/web",
            "/registry/foo/bar",
            // Not where a built-in resource lies.
            "/registry/networking.k8s.io/ingresses/default/web",
            "compact_rev_key",
        ] {
            check(&format!("c/etcd/{key}"), key);
        }
        assert_eq!(keys().to_etcd(b"other/registry/core/pods/default/web"), None);
        assert_eq!(keys().to_etcd(b"c/etcd//registry/pods/default/web"), None, "it would come back as another");
        assert_eq!(keys().to_etcd(b"c/registry/core/unheard/default/web"), None);
    }

    #[test]
    fn ranges_within_a_collection_have_a_range_on_the_other_side() {
        let check = |start: &str, end: Bytes, expected: (&str, &str)| {
            let (from, to) = keys().range_to_etcd(start.as_bytes(), &end).unwrap();
            assert_eq!((from, to), (Bytes::from(expected.0.to_owned()), Bytes::from(expected.1.to_owned())));
        };
        let within = |prefix: &str| prefix_end(prefix.as_bytes());
        check("c/registry/core/pods/", within("c/registry/core/pods/"), ("/registry/pods/", "/registry/pods0"));
        check("c/registry/core/pods/a/", within("c/registry/core/pods/a/"), ("/registry/pods/a/", "/registry/pods/a0"));
        check(
            "c/registry/core/pods/a/x\0",
            within("c/registry/core/pods/"),
            ("/registry/pods/a/x\0", "/registry/pods0"),
        );
        check(
            "c/registry/core/nodes//",
            within("c/registry/core/nodes/"),
            ("/registry/minions/", "/registry/minions0"),
        );
        check(
            "c/registry/core/nodes//a",
            "c/registry/core/nodes//a\0".into(),
            ("/registry/minions/a", "/registry/minions/a\0"),
        );
        for (start, end) in [("c/registry/core/", "c/registry/core0"), ("", ""), ("c/registry/core/pods/", "")] {
            assert!(keys().range_to_etcd(start.as_bytes(), end.as_bytes()).is_err(), "{start}..{end}");
        }
    }

    #[test]
    fn a_range_of_etcd_keys_is_found_in_one_collection_or_in_all() {
        let check = |start: &str, end: &str, expected: &str| {
            let (from, to) = keys().range_to_stored(start.as_bytes(), end.as_bytes());
            assert_eq!((from, to), (Bytes::from(expected.to_owned()), prefix_end(expected.as_bytes())));
        };
        check("/registry/pods/", "/registry/pods0", "c/registry/core/pods/");
        check("/registry/pods/a/x", "/registry/pods/a/y", "c/registry/core/pods/");
        check("/registry/example.com/widgets/", "/registry/example.com/widgets0", "c/registry/example.com/widgets/");
        check("/registry/pods/", "/registry/podt", "c/");
        check("/registry/pods", "/registry/podt", "c/");
        check("/registry", "/registrz", "c/");
        check("a", "", "c/");
    }
}
