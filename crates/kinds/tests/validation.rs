//! What is refused, in upstream's words.

mod support;

use expect_test::expect;
use support::{create, kind, lines, object, update};

const POD: &str = r#"{"containers":[{"name":"a","image":"nginx:1","ports":[{"name":"http","containerPort":80}]}]}"#;

fn workload(selector: &str, labels: &str, pod: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"x"}},"spec":{{"selector":{selector},"template":{{"metadata":{{"labels":{labels}}},"spec":{pod}}}}}}}"#
    )
}

#[test]
fn good_objects_are_accepted() {
    let good = workload(r#"{"matchLabels":{"app":"web"}}"#, r#"{"app":"web"}"#, POD);
    for plural in ["deployments", "replicasets", "daemonsets", "statefulsets"] {
        create("apps", plural, &good, expect![[""]]);
        update("apps", plural, &good, &good, expect![[""]]);
    }
    let pod = format!(r#"{{"metadata":{{"name":"x"}},"spec":{POD}}}"#);
    create("", "pods", &pod, expect![[""]]);
    update("", "pods", &pod, &pod.replace("nginx:1", "nginx:2"), expect![""]);
    let job = r#"{"metadata":{"name":"x","uid":"u"},"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"a","image":"b"}]}}}}"#;
    create("batch", "jobs", job, expect![[""]]);
    create("", "services", r#"{"spec":{"ports":[{"port":80}],"selector":{"a":"b"}}}"#, expect![[""]]);
    create("", "services", r#"{"spec":{"clusterIP":"None"}}"#, expect![[""]]);
    create("", "configmaps", r#"{"data":{"a.b":"c"}}"#, expect![[""]]);
    create("", "secrets", r#"{"stringData":{"a.b":"c"}}"#, expect![[""]]);
    create(
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        r#"{"roleRef":{"kind":"ClusterRole","name":"a:b"},"subjects":[{"kind":"User","name":"u"}]}"#,
        expect![[""]],
    );
}

#[test]
fn pods_say_everything_that_is_wrong() {
    create(
        "",
        "pods",
        r#"{"spec":{"restartPolicy":"x","dnsPolicy":"None","volumes":[{"name":"v"},{"name":"v","secret":{},"hostPath":{"path":"/a"}}],
            "tolerations":[{"operator":"Equal"}],"containers":[
            {"name":"A","image":" x","ports":[{"name":"8","containerPort":70000,"protocol":"X"},{}],
             "env":[{"name":"a=b"},{"name":"c","valueFrom":{}}],"volumeMounts":[{"name":"w","mountPath":"/m","subPath":"../x"}],
             "resources":{"requests":{"cpu":"2","foo":"1"},"limits":{"cpu":"1"}},"livenessProbe":{"successThreshold":2},
             "readinessProbe":{"httpGet":{"port":"x_y"}}},
            {"name":"b"},{"name":"b","image":"i","imagePullPolicy":"Maybe"}]}}"#,
        expect![[r#"
            spec.volumes[1].secret: Forbidden: may not specify more than 1 volume type
            spec.volumes[1].name: Duplicate value: "v"
            spec.containers[0].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace
            spec.containers[0].ports[0].name: Invalid value: "8": must contain at least one letter (a-z)
            spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
            spec.containers[0].ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"
            spec.containers[0].ports[1].containerPort: Required value
            spec.containers[0].env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='
            spec.containers[0].env[1].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`
            spec.containers[0].volumeMounts[0].name: Not found: "w"
            spec.containers[0].volumeMounts[0].subPath: Invalid value: "../x": must not contain '..'
            spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
            spec.containers[0].resources.requests[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
            spec.containers[0].resources.requests[foo]: Invalid value: "foo": must be a standard resource for containers
            spec.containers[0].livenessProbe: Required value: must specify a handler type
            spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1
            spec.containers[0].readinessProbe.httpGet.port: Invalid value: "x_y": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
            spec.containers[1].image: Required value
            spec.containers[2].imagePullPolicy: Unsupported value: "Maybe": supported values: "Always", "IfNotPresent", "Never"
            spec.containers[2].name: Duplicate value: "b"
            spec.restartPolicy: Unsupported value: "x": supported values: "Always", "OnFailure", "Never"
            spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None
            spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"
        "#]],
    );
    create(
        "",
        "pods",
        r#"{"spec":{}}"#,
        expect![[r#"
        spec.containers: Required value
    "#]],
    );
}

#[test]
fn pods_hardly_change() {
    let pod = format!(r#"{{"metadata":{{"name":"x"}},"spec":{POD}}}"#);
    update(
        "",
        "pods",
        &pod,
        &pod.replace("\"http\"", "\"web\""),
        expect![[r#"
        spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
        differing: containers
    "#]],
    );
    update(
        "",
        "pods",
        &pod,
        r#"{"spec":{"containers":[{"name":"a","image":"b"},{"name":"c","image":"b"}]}}"#,
        expect![[r#"
            spec.containers: Forbidden: pod updates may not add or remove containers
        "#]],
    );
}

#[test]
fn workloads_must_select_their_own_pods() {
    let wrong = workload(r#"{"matchLabels":{"app":"web"}}"#, r#"{"app":"db"}"#, POD);
    create(
        "apps",
        "deployments",
        &wrong,
        expect![[r#"
        spec.template.metadata.labels: Invalid value: map[string]string{"app":"db"}: `selector` does not match template `labels`
    "#]],
    );
    create(
        "apps",
        "daemonsets",
        &workload("{}", "{}", POD),
        expect![[r#"
        spec.selector: Invalid value: {}: empty selector is invalid for daemonset
    "#]],
    );
    create(
        "apps",
        "statefulsets",
        &workload("null", "{}", POD),
        expect![[r#"
        spec.selector: Required value
    "#]],
    );
    let good = workload(r#"{"matchLabels":{"app":"web"}}"#, r#"{"app":"web"}"#, POD);
    let other = workload(r#"{"matchLabels":{"app":"db"}}"#, r#"{"app":"db"}"#, POD);
    update(
        "apps",
        "deployments",
        &good,
        &other,
        expect![[r#"
        spec.selector: Invalid value: {"matchLabels":{"app":"db"}}: field is immutable
    "#]],
    );
    update(
        "apps",
        "statefulsets",
        &good,
        &good.replacen(r#""spec":{"#, r#""spec":{"serviceName":"s","#, 1),
        expect![[r#"
            spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden
        "#]],
    );
    let never = good.replace(r#"{"containers""#, r#"{"restartPolicy":"Never","containers""#);
    create(
        "apps",
        "deployments",
        &never,
        expect![[r#"
        spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
    "#]],
    );
}

#[test]
fn other_kinds_say_what_is_wrong() {
    create(
        "",
        "services",
        r#"{"spec":{"type":"x","ports":[{"port":0,"nodePort":1},{"port":80,"name":"A"}]}}"#,
        expect![[r#"
            spec.ports[0].name: Required value
            spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.ports[1].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.type: Unsupported value: "x": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
        "#]],
    );
    create(
        "",
        "services",
        r#"{"spec":{"type":"ExternalName"}}"#,
        expect![[r#"
        spec.externalName: Required value
    "#]],
    );
    update(
        "",
        "services",
        r#"{"spec":{"clusterIPs":["10.0.0.1"],"ports":[{"port":1}]}}"#,
        r#"{"spec":{"clusterIPs":["10.0.0.2"],"ports":[{"port":1}]}}"#,
        expect![[r#"
            spec.clusterIPs: Invalid value: ["10.0.0.2"]: first value must match `clusterIP`
            spec.clusterIPs[0]: Invalid value: "10.0.0.2": may not change once set
        "#]],
    );
    create(
        "",
        "configmaps",
        r#"{"data":{"a/b":"c","d":""},"binaryData":{"d":""}}"#,
        expect![[r#"
        data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
        binaryData[d]: Invalid value: "d": duplicate of key present in data
    "#]],
    );
    create(
        "",
        "secrets",
        &format!(r#"{{"type":"kubernetes.io/tls","data":{{"x":"{}"}}}}"#, "A".repeat(1_500_000)),
        expect![[r#"
            data: Too long: may not be more than 1048576 bytes
            data[tls.crt]: Required value
            data[tls.key]: Required value
        "#]],
    );
    update(
        "",
        "configmaps",
        r#"{"immutable":true,"data":{"a":"b"}}"#,
        r#"{"data":{"a":"c"}}"#,
        expect![[r#"
        immutable: Forbidden: field is immutable when `immutable` is set
        data: Forbidden: field is immutable when `immutable` is set
    "#]],
    );
    create(
        "batch",
        "jobs",
        r#"{"metadata":{"name":"x","uid":"u"},"spec":{"completions":-1,"template":{"spec":{"containers":[{"name":"a","image":"b"}]}}}}"#,
        expect![[r#"
            spec.completions: Invalid value: -1: must be greater than or equal to 0
            spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"
        "#]],
    );
    create(
        "rbac.authorization.k8s.io",
        "roles",
        r#"{"rules":[{"verbs":["get"]},{"apiGroups":[""],"resources":["pods"]},{"verbs":["get"],"nonResourceURLs":["/x"]}]}"#,
        expect![[r#"
            rules[0].apiGroups: Required value: resource rules must supply at least one api group
            rules[0].resources: Required value: resource rules must supply at least one resource
            rules[1].verbs: Required value: verbs must contain at least one value
            rules[2].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs
        "#]],
    );
    create(
        "networking.k8s.io",
        "ingresses",
        r#"{"spec":{"rules":[{"host":"A","http":{"paths":[{"path":"x","pathType":"Prefix","backend":{}}]}}]}}"#,
        expect![[r#"
            spec.rules[0].host: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path
            spec.rules[0].http.paths[0].backend: Required value: port name or number is required
        "#]],
    );
}

#[test]
fn webhooks_and_slices_say_what_is_wrong() {
    create(
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        r#"{"webhooks":[{"name":"a.b","clientConfig":{"url":"http://x"},"timeoutSeconds":31}]}"#,
        expect![[r#"
            webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots
            webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun
            webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds
            webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]
            webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1
        "#]],
    );
    create(
        "discovery.k8s.io",
        "endpointslices",
        r#"{"addressType":"IPv4","endpoints":[{"addresses":["x"]},{}]}"#,
        expect![[r#"
        endpoints[0].addresses[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        endpoints[1].addresses: Required value: must contain at least 1 address
    "#]],
    );
}

#[test]
fn debugging_containers_only_come() {
    let pods = kind("", "pods");
    let old = object(pods, &format!(r#"{{"metadata":{{"name":"x","generation":1}},"spec":{POD}}}"#));
    let mut new = old.clone();
    new.set(&["spec", "nodeName"], "elsewhere");
    let debugger = object(pods, r#"{"spec":{"ephemeralContainers":[{"name":"d","image":"sh"}]}}"#);
    new.set(&["spec", "ephemeralContainers"], debugger.list_at(&["spec", "ephemeralContainers"]).to_vec());
    pods.prepare_subresource("ephemeralcontainers", &mut new, &old);
    assert_eq!(new.str_at(&["spec", "nodeName"]), "");
    assert_eq!(new.int_at(&["metadata", "generation"]), Some(2));
    assert_eq!(lines(&pods.validate_subresource("ephemeralcontainers", &new, &old)), "");
    assert_eq!(
        lines(&pods.validate_subresource("ephemeralcontainers", &old, &new)),
        "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"
    );
}
