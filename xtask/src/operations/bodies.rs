//! The smallest object of each kind that is valid; `#` in one is a number that no other object has.

use anyhow::{Context, Result};
use serde_json::{Value, json};

const TEMPLATE: &str = r#"{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"a","image":"a"}]}}"#;
const CLAIM: &str = r#"{"devices":{"requests":[{"name":"a","exactly":{"deviceClassName":"a"}}]}}"#;

/// Kinds with what they must have; `@template` and `@claim` are the two above.
const OBJECTS: &[(&str, &str)] = &[
    (
        "APIService",
        r#"{"metadata":{"name":"v1.g#.example.com"},"spec":{"group":"g#.example.com","version":"v1",
            "groupPriorityMinimum":100,"versionPriority":100,"insecureSkipTLSVerify":true,
            "service":{"namespace":"default","name":"a"}}}"#,
    ),
    ("Binding", r#"{"target":{"kind":"Node","name":"a"}}"#),
    ("CSIDriver", r#"{"spec":{}}"#),
    ("CSINode", r#"{"spec":{"drivers":[]}}"#),
    ("CSIStorageCapacity", r#"{"storageClassName":"a"}"#),
    (
        "CertificateSigningRequest",
        r#"{"spec":{"request":"@request","signerName":"example.com/a","usages":["client auth"]}}"#,
    ),
    ("ClusterRole", r#"{"rules":[]}"#),
    (
        "ClusterRoleBinding",
        r#"{"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"}}"#,
    ),
    ("ConfigMap", "{}"),
    ("ControllerRevision", r#"{"revision":1,"data":{}}"#),
    (
        "CronJob",
        r#"{"spec":{"schedule":"* * * * *","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never",
            "containers":[{"name":"a","image":"a"}]}}}}}}"#,
    ),
    (
        "CustomResourceDefinition",
        r#"{"metadata":{"name":"as.g#.example.com"},"spec":{"group":"g#.example.com","scope":"Namespaced",
            "names":{"plural":"as","singular":"a","kind":"A","listKind":"AList"},"versions":[{"name":"v1","served":true,
            "storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}"#,
    ),
    ("DaemonSet", r#"{"spec":{"selector":{"matchLabels":{"a":"b"}},"template":@template}}"#),
    ("Deployment", r#"{"spec":{"selector":{"matchLabels":{"a":"b"}},"template":@template}}"#),
    ("DeviceClass", r#"{"spec":{}}"#),
    ("EndpointSlice", r#"{"addressType":"IPv4","endpoints":[]}"#),
    ("Endpoints", "{}"),
    (
        "Event",
        r#"{"involvedObject":{"kind":"Pod","name":"a","namespace":"default"},"regarding":{"kind":"Pod","name":"a",
            "namespace":"default"},"reason":"A","type":"Normal","action":"A","reportingController":"example.com/a",
            "reportingInstance":"a","reportingComponent":"a","eventTime":"2026-01-01T00:00:00.000000Z"}"#,
    ),
    ("FlowSchema", r#"{"spec":{"matchingPrecedence":500,"priorityLevelConfiguration":{"name":"exempt"}}}"#),
    (
        "HorizontalPodAutoscaler",
        r#"{"spec":{"maxReplicas":2,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"a"}}}"#,
    ),
    (
        "IPAddress",
        r#"{"metadata":{"name":"2001:db8::#"},"spec":{"parentRef":{"resource":"services","namespace":"default","name":"a"}}}"#,
    ),
    ("Ingress", r#"{"spec":{"defaultBackend":{"service":{"name":"a","port":{"number":80}}}}}"#),
    ("IngressClass", r#"{"spec":{"controller":"example.com/a"}}"#),
    ("Job", r#"{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"a","image":"a"}]}}}}"#),
    ("Lease", r#"{"spec":{}}"#),
    ("LimitRange", r#"{"spec":{"limits":[]}}"#),
    (
        "LocalSubjectAccessReview",
        r#"{"metadata":{"namespace":"default"},"spec":{"user":"a","resourceAttributes":{"namespace":"default",
            "verb":"get","resource":"pods"}}}"#,
    ),
    (
        "MutatingAdmissionPolicy",
        r#"{"spec":{"reinvocationPolicy":"Never","matchConstraints":{"resourceRules":[{"apiGroups":["example.com"],
            "apiVersions":["v1"],"operations":["CREATE"],"resources":["as"]}]},"mutations":[{"patchType":"JSONPatch",
            "jsonPatch":{"expression":"[JSONPatch{op: \"remove\", path: \"/a\"}]"}}]}}"#,
    ),
    ("MutatingAdmissionPolicyBinding", r#"{"spec":{"policyName":"a"}}"#),
    ("MutatingWebhookConfiguration", r#"{"webhooks":[]}"#),
    ("Namespace", "{}"),
    ("NetworkPolicy", r#"{"spec":{"podSelector":{}}}"#),
    ("Node", "{}"),
    (
        "PersistentVolume",
        r#"{"spec":{"accessModes":["ReadWriteOnce"],"capacity":{"storage":"1Gi"},"hostPath":{"path":"/a"}}}"#,
    ),
    (
        "PersistentVolumeClaim",
        r#"{"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}"#,
    ),
    ("Pod", r#"{"spec":{"containers":[{"name":"a","image":"a"}]}}"#),
    ("PodDisruptionBudget", r#"{"spec":{"minAvailable":1,"selector":{"matchLabels":{"no":"pod"}}}}"#),
    ("PodTemplate", r#"{"template":@template}"#),
    ("PriorityClass", r#"{"value":1}"#),
    ("PriorityLevelConfiguration", r#"{"spec":{"type":"Limited","limited":{"limitResponse":{"type":"Reject"}}}}"#),
    ("ReplicaSet", r#"{"spec":{"selector":{"matchLabels":{"a":"b"}},"template":@template}}"#),
    ("ReplicationController", r#"{"spec":{"selector":{"a":"b"},"template":@template}}"#),
    ("ResourceClaim", r#"{"spec":@claim}"#),
    ("ResourceClaimTemplate", r#"{"spec":{"spec":@claim}}"#),
    ("ResourceQuota", r#"{"spec":{"hard":{"count/widgets.example.com":"1"}}}"#),
    (
        "ResourceSlice",
        r#"{"spec":{"driver":"example.com","allNodes":true,"pool":{"name":"a#","generation":1,"resourceSliceCount":1}}}"#,
    ),
    ("Role", r#"{"rules":[]}"#),
    ("RoleBinding", r#"{"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"}}"#),
    ("RuntimeClass", r#"{"handler":"a"}"#),
    ("Secret", "{}"),
    ("SelfSubjectAccessReview", r#"{"spec":{"nonResourceAttributes":{"verb":"get","path":"/"}}}"#),
    ("SelfSubjectReview", "{}"),
    ("SelfSubjectRulesReview", r#"{"spec":{"namespace":"default"}}"#),
    ("Service", r#"{"spec":{"ports":[{"port":80}]}}"#),
    ("ServiceAccount", "{}"),
    ("ServiceCIDR", r#"{"spec":{"cidrs":["2001:db8:#::/64"]}}"#),
    ("StatefulSet", r#"{"spec":{"serviceName":"a","selector":{"matchLabels":{"a":"b"}},"template":@template}}"#),
    ("StorageClass", r#"{"provisioner":"example.com/a"}"#),
    ("SubjectAccessReview", r#"{"spec":{"user":"a","nonResourceAttributes":{"verb":"get","path":"/"}}}"#),
    ("TokenReview", r#"{"spec":{"token":"a"}}"#),
    (
        "ValidatingAdmissionPolicy",
        r#"{"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":["example.com"],"apiVersions":["v1"],
            "operations":["CREATE"],"resources":["as"]}]},"validations":[{"expression":"true"}]}}"#,
    ),
    ("ValidatingAdmissionPolicyBinding", r#"{"spec":{"policyName":"a","validationActions":["Deny"]}}"#),
    ("ValidatingWebhookConfiguration", r#"{"webhooks":[]}"#),
    ("VolumeAttachment", r#"{"spec":{"attacher":"example.com","nodeName":"a","source":{"persistentVolumeName":"a"}}}"#),
    ("VolumeAttributesClass", r#"{"driverName":"example.com","parameters":{"a":"b"}}"#),
];

/// The kind of the objects in a collection.
pub(super) fn kind_of(collection: &str) -> &'static str {
    let plural = collection.rsplit('/').next().unwrap_or_default();
    let found = OBJECTS.iter().map(|(kind, _)| *kind).find(|kind| plural_of(kind) == plural);
    found.unwrap_or("?")
}

fn plural_of(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.as_str() {
        "endpoints" => kind,
        _ if kind.ends_with('y') => format!("{}ies", &kind[..kind.len() - 1]),
        _ if kind.ends_with('s') => format!("{kind}es"),
        _ => format!("{kind}s"),
    }
}

/// An object of the kind, with a name of its own.
pub(super) fn object(kind: &str, group: &str, version: &str, number: usize) -> Result<Value> {
    let (_, text) = OBJECTS.iter().find(|(known, _)| *known == kind).with_context(|| format!("no body for {kind}"))?;
    let text = text.replace("@template", TEMPLATE).replace("@claim", CLAIM).replace('#', &number.to_string());
    let mut object: Value = serde_json::from_str(&text).with_context(|| format!("the body for {kind}"))?;
    if object["spec"]["request"] == "@request" {
        object["spec"]["request"] = json!(REQUEST);
    }
    object["kind"] = json!(kind);
    object["apiVersion"] = json!(if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") });
    if object["metadata"]["name"].is_null() && !kind.ends_with("Review") {
        object["metadata"]["name"] = json!(format!("x{number}"));
    }
    Ok(object)
}

/// What is posted to the subresource of an object.
pub(super) fn subresource(kind: &str, name: &str) -> Result<Value> {
    Ok(match kind {
        "Binding" => {
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "target": {"kind": "Node", "name": "a"}})
        }
        "Eviction" => json!({"apiVersion": "policy/v1", "kind": kind, "metadata": {"name": name}}),
        "TokenRequest" => json!({"apiVersion": "authentication.k8s.io/v1", "kind": kind, "spec": {}}),
        _ => anyhow::bail!("no body for {kind}"),
    })
}

/// `connectCoreV1GetNodeProxy`: GET.
pub(super) fn connect_method(id: &str) -> Option<&'static str> {
    let rest = id.strip_prefix("connectCoreV1")?;
    let methods = ["Delete", "Get", "Head", "Options", "Patch", "Post", "Put"];
    let found = methods.into_iter().find(|method| rest.starts_with(method))?;
    ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
        .into_iter()
        .find(|method| method.eq_ignore_ascii_case(found))
}

/// A certificate signing request (PEM in base64) for the name `a`.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIRk1HNENBUUF3RERFS01BZ0dBMVVFQXd3QllUQlpNQk1HQnlxR1NNNDlBZ0\
    VHQ0NxR1NNNDlBd0VIQTBJQQpCTU5ScUpMckowbjBERnJUNk9VUjVRUEFTSHRvZjNGZS83NGFwNlVSRTllUEZBQ1lIeExTOXRQeFpibUFQNHVE\
    Cm02czNkZWszNnRXNGg4TWtQU1JPMGZtZ0FEQUtCZ2dxaGtqT1BRUURBZ05IQURCRUFpQmU1RGR2czkwa0VZcmMKSGh0UHFSaExaNzNDbEZYRU\
    dlK3RMS3lxc0J3blhBSWdjWVEvNVJxNjg5UTA0cFJldmJtZDBaVkpkcnZVbHQrbgowSjIvdUJoUEs1ST0KLS0tLS1FTkQgQ0VSVElGSUNBVEUg\
    UkVRVUVTVC0tLS0tCg==";
