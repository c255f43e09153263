//! What is refused of cluster configuration: storage, admission, quotas, flow control, certificates.

mod support;

use expect_test::expect;
use support::{create, good, kind, lines, object, update};

const CSR_PEM: &str =
    "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUFBPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

#[test]
fn good_objects_are_accepted_and_stay_so() {
    let csr = format!(
        r#"{{"metadata":{{"name":"x"}},"spec":{{"request":"{CSR_PEM}","signerName":"a.b/c","usages":["client auth"]}}}}"#
    );
    for (group, plural, text) in [
        (
            "storage.k8s.io",
            "storageclasses",
            r#"{"metadata":{"name":"x"},"provisioner":"Example.com/x","allowedTopologies":[{"matchLabelExpressions":[{"key":"zone","values":["a"]}]}]}"#,
        ),
        (
            "storage.k8s.io",
            "volumeattributesclasses",
            r#"{"metadata":{"name":"x"},"driverName":"a.b","parameters":{"a":"b"}}"#,
        ),
        (
            "storage.k8s.io",
            "volumeattachments",
            r#"{"metadata":{"name":"x"},"spec":{"attacher":"a.b","nodeName":"n","source":{"persistentVolumeName":"v"}}}"#,
        ),
        (
            "storage.k8s.io",
            "csistoragecapacities",
            r#"{"metadata":{"name":"x"},"storageClassName":"a","capacity":"1Gi"}"#,
        ),
        (
            "storage.k8s.io",
            "csinodes",
            r#"{"metadata":{"name":"x"},"spec":{"drivers":[{"name":"a.b","nodeID":"n","topologyKeys":["a/b"]}]}}"#,
        ),
        ("storage.k8s.io", "csidrivers", r#"{"metadata":{"name":"a.b"},"spec":{}}"#),
        ("coordination.k8s.io", "leases", r#"{"metadata":{"name":"x"},"spec":{"leaseDurationSeconds":1}}"#),
        (
            "networking.k8s.io",
            "ipaddresses",
            r#"{"metadata":{"name":"10.0.0.1"},"spec":{"parentRef":{"resource":"services","name":"x","namespace":"y"}}}"#,
        ),
        (
            "networking.k8s.io",
            "servicecidrs",
            r#"{"metadata":{"name":"x"},"spec":{"cidrs":["10.0.0.0/8","fd00::/108"]}}"#,
        ),
        ("apps", "controllerrevisions", r#"{"metadata":{"name":"x"},"revision":1,"data":{"a":1}}"#),
        ("", "namespaces", r#"{"metadata":{"name":"x"}}"#),
        (
            "",
            "nodes",
            r#"{"metadata":{"name":"x"},"spec":{"podCIDR":"10.0.0.0/24","taints":[{"key":"a","effect":"NoSchedule"}]},"status":{"capacity":{"cpu":"1"}}}"#,
        ),
        ("", "serviceaccounts", r#"{"metadata":{"name":"x"}}"#),
        (
            "",
            "limitranges",
            r#"{"metadata":{"name":"x"},"spec":{"limits":[{"type":"Container","min":{"cpu":"1"},"max":{"cpu":"2"}}]}}"#,
        ),
        (
            "",
            "resourcequotas",
            r#"{"metadata":{"name":"x"},"spec":{"hard":{"pods":"1","requests.cpu":"1","count/widgets.example.com":"2"},"scopes":["NotTerminating"]}}"#,
        ),
        (
            "node.k8s.io",
            "runtimeclasses",
            r#"{"metadata":{"name":"x"},"handler":"a","overhead":{"podFixed":{"cpu":"1"}}}"#,
        ),
        (
            "policy",
            "poddisruptionbudgets",
            r#"{"metadata":{"name":"x"},"spec":{"minAvailable":"50%","selector":{"matchLabels":{"a":"b"}}}}"#,
        ),
        ("certificates.k8s.io", "certificatesigningrequests", csr.as_str()),
        (
            "apiregistration.k8s.io",
            "apiservices",
            r#"{"metadata":{"name":"v1.a.b"},"spec":{"group":"a.b","version":"v1","groupPriorityMinimum":1,"versionPriority":1,"service":{"name":"a","namespace":"b"}}}"#,
        ),
        (
            "flowcontrol.apiserver.k8s.io",
            "flowschemas",
            r#"{"metadata":{"name":"x"},"spec":{"priorityLevelConfiguration":{"name":"a"},"rules":[{"subjects":[{"kind":"ServiceAccount","serviceAccount":{"name":"*","namespace":"x"}}],"nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["/healthz","/a/*"]}]}]}}"#,
        ),
        (
            "flowcontrol.apiserver.k8s.io",
            "prioritylevelconfigurations",
            r#"{"metadata":{"name":"x"},"spec":{"type":"Limited","limited":{"limitResponse":{"type":"Queue","queuing":{}}}}}"#,
        ),
        ("", "events", r#"{"metadata":{"name":"x","namespace":"a"},"involvedObject":{"namespace":"a"}}"#),
        (
            "events.k8s.io",
            "events",
            r#"{"metadata":{"name":"x","namespace":"a"},"regarding":{"namespace":"a"},"eventTime":"2026-01-02T03:04:05.000006Z","reportingController":"a.b/c","reportingInstance":"x","action":"a","reason":"r","type":"Normal"}"#,
        ),
        (
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations",
            r#"{"metadata":{"name":"x"},"webhooks":[{"name":"a.b.c","clientConfig":{"service":{"name":"a","namespace":"b","path":"/x/y"}},"sideEffects":"None","admissionReviewVersions":["v1"],"rules":[{"apiGroups":["*"],"apiVersions":["*"],"resources":["pods","pods/*"],"operations":["CREATE"]}]}]}"#,
        ),
        (
            "admissionregistration.k8s.io",
            "validatingadmissionpolicies",
            r#"{"metadata":{"name":"x"},"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"resources":["pods"],"operations":["*"]}]},"validations":[{"expression":"true"}]}}"#,
        ),
        (
            "admissionregistration.k8s.io",
            "mutatingadmissionpolicies",
            r#"{"metadata":{"name":"x"},"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"resources":["pods"],"operations":["*"]}]},"mutations":[{"patchType":"JSONPatch","jsonPatch":{"expression":"[]"}}]}}"#,
        ),
        (
            "admissionregistration.k8s.io",
            "validatingadmissionpolicybindings",
            r#"{"metadata":{"name":"x"},"spec":{"policyName":"a","validationActions":["Deny","Audit"],"paramRef":{"name":"x","parameterNotFoundAction":"Deny"}}}"#,
        ),
        (
            "admissionregistration.k8s.io",
            "mutatingadmissionpolicybindings",
            r#"{"metadata":{"name":"x"},"spec":{"policyName":"a"}}"#,
        ),
        (
            "rbac.authorization.k8s.io",
            "rolebindings",
            r#"{"metadata":{"name":"x"},"roleRef":{"kind":"Role","name":"a:b"},"subjects":[{"kind":"ServiceAccount","name":"u"}]}"#,
        ),
        (
            "rbac.authorization.k8s.io",
            "clusterroles",
            r#"{"metadata":{"name":"x"},"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"a":"b"}}]},"rules":null}"#,
        ),
        ("scheduling.k8s.io", "priorityclasses", r#"{"metadata":{"name":"x"},"value":1}"#),
        (
            "discovery.k8s.io",
            "endpointslices",
            r#"{"metadata":{"name":"x"},"addressType":"IPv6","endpoints":[{"addresses":["fd00::1"]}],"ports":[{"name":"a","port":1},{"port":2}]}"#,
        ),
        (
            "",
            "endpoints",
            r#"{"metadata":{"name":"x"},"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":1}]}]}"#,
        ),
    ] {
        good(group, plural, text);
    }
}

#[test]
fn storage_says_what_is_wrong() {
    create(
        "storage.k8s.io",
        "storageclasses",
        r#"{"provisioner":"a b","parameters":{"":"x"},"reclaimPolicy":"x","volumeBindingMode":"y",
        "allowedTopologies":[{"matchLabelExpressions":[{"key":"a","values":["x","x"]},{"key":"a"}]}]}"#,
        expect![[r#"
            provisioner: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            parameters: Invalid value: "": field can not be empty.
            reclaimPolicy: Unsupported value: "x": supported values: "Delete", "Retain"
            volumeBindingMode: Unsupported value: "y": supported values: "Immediate", "WaitForFirstConsumer"
            allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: "x"
            allowedTopologies[0].matchLabelExpressions[1].values: Required value
            allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: "a"
        "#]],
    );
    update(
        "storage.k8s.io",
        "storageclasses",
        r#"{"provisioner":"a","parameters":{"a":"x"}}"#,
        r#"{"provisioner":"b","parameters":{"a":"y"},"reclaimPolicy":"Retain","volumeBindingMode":"WaitForFirstConsumer"}"#,
        expect![[r#"
            parameters: Forbidden: updates to parameters are forbidden.
            provisioner: Forbidden: updates to provisioner are forbidden.
            reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.
            volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable
        "#]],
    );
    create(
        "storage.k8s.io",
        "csidrivers",
        r#"{"metadata":{"name":"a_b"},"spec":{"fsGroupPolicy":"x","volumeLifecycleModes":["y"],
        "tokenRequests":[{"audience":"a","expirationSeconds":1},{"audience":"a"}],"nodeAllocatableUpdatePeriodSeconds":1}}"#,
        expect![[r#"
            metadata.name: Invalid value: "a_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.fsGroupPolicy: Unsupported value: "x": supported values: "File", "None", "ReadWriteOnceWithFSType"
            spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes
            spec.tokenRequests[1].audience: Duplicate value: "a"
            spec.volumeLifecycleModes: Unsupported value: "y": supported values: "Ephemeral", "Persistent"
            spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 1: must be greater than or equal to 10 seconds
        "#]],
    );
    update(
        "storage.k8s.io",
        "csidrivers",
        r#"{"metadata":{"name":"a"}}"#,
        r#"{"metadata":{"name":"a"},"spec":{"attachRequired":false,"volumeLifecycleModes":["Ephemeral"]}}"#,
        expect![[r#"
            spec.attachedRequired: Invalid value: false: field is immutable
            spec.volumeLifecycleModes: Invalid value: ["Ephemeral"]: field is immutable
        "#]],
    );
    create(
        "storage.k8s.io",
        "csinodes",
        r#"{"spec":{"drivers":[{"name":"a"},{"name":"a","nodeID":"x","topologyKeys":["b","b","/"],"allocatable":{"count":-1}}]}}"#,
        expect![[r#"
        spec.drivers[0].nodeID: Required value
        spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0
        spec.drivers[1].topologyKeys: Duplicate value: "b"
        spec.drivers[1].topologyKeys: Invalid value: "/": prefix part must be non-empty
        spec.drivers[1].topologyKeys: Invalid value: "/": name part must be non-empty
        spec.drivers[1].topologyKeys: Invalid value: "/": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        spec.drivers[1].name: Duplicate value: "a"
    "#]],
    );
    create(
        "storage.k8s.io",
        "csistoragecapacities",
        r#"{"capacity":"-1"}"#,
        expect![[r#"
        storageClassName: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        capacity: Invalid value: "-1": must be greater than or equal to 0
    "#]],
    );
    create(
        "storage.k8s.io",
        "volumeattachments",
        r#"{"spec":{"attacher":"a","source":{},"nodeName":"n"}}"#,
        expect![[r#"
        spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName
    "#]],
    );
    update(
        "storage.k8s.io",
        "volumeattachments",
        r#"{"spec":{"attacher":"a","source":{"persistentVolumeName":"a"},"nodeName":"n"}}"#,
        r#"{"spec":{"attacher":"a","source":{"persistentVolumeName":"b"},"nodeName":"n"}}"#,
        expect![[r#"
            spec: Invalid value: {"attacher":"a","source":{"persistentVolumeName":"b"},"nodeName":"n"}: field is immutable
        "#]],
    );
    create(
        "storage.k8s.io",
        "volumeattributesclasses",
        r#"{}"#,
        expect![[r#"
        driverName: Required value
        parameters: Required value: must contain at least one key/value pair
    "#]],
    );
    update(
        "storage.k8s.io",
        "volumeattributesclasses",
        r#"{"driverName":"a","parameters":{"a":"b"}}"#,
        r#"{"driverName":"b","parameters":{"a":"c"}}"#,
        expect![[r#"
        driverName: Forbidden: updates to driverName are forbidden.
        parameters: Forbidden: updates to parameters are forbidden.
    "#]],
    );
}

#[test]
fn core_kinds_say_what_is_wrong() {
    create(
        "",
        "namespaces",
        r#"{"spec":{"finalizers":["x","a b"]}}"#,
        expect![[r#"
        spec.finalizers: Invalid value: "x": name is neither a standard finalizer name nor is it fully qualified
        spec.finalizers: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
    "#]],
    );
    create(
        "",
        "nodes",
        r#"{"spec":{"podCIDRs":["10.0.0.0/8","11.0.0.1/8"],"taints":[{"key":"a","effect":"NoSchedule"},{"key":"a","effect":"NoSchedule"},{"key":"","effect":"x"}]},
        "status":{"capacity":{"example.com/gpu":"500m","cpu":"-1"}}}"#,
        expect![[r#"
            spec.taints[1]: Duplicate value: {"key":"a","effect":"NoSchedule"}: taints must be unique by key and effect pair
            spec.taints[2].key: Invalid value: "": name part must be non-empty
            spec.taints[2].key: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.taints[2].effect: Unsupported value: "x": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
            spec.podCIDRs[1]: Invalid value: "11.0.0.1/8": must not have bits set beyond the prefix length
            spec.podCIDRs: Invalid value: ["10.0.0.0/8","11.0.0.1/8"]: may specify no more than one CIDR for each IP family
            status.capacity.example.com/gpu: Invalid value: "500m": must be an integer
            status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0
            status.allocatable.example.com/gpu: Invalid value: "500m": must be an integer
            status.allocatable.cpu: Invalid value: "-1": must be greater than or equal to 0
        "#]],
    );
    update(
        "",
        "nodes",
        r#"{"spec":{"podCIDR":"10.0.0.0/8","providerID":"a"}}"#,
        r#"{"spec":{"podCIDR":"11.0.0.0/8","providerID":"b"},"status":{"addresses":[{"type":"Hostname","address":"x"},{"type":"Hostname","address":"x"}]}}"#,
        expect![[r#"
        spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid
        spec.providerID: Forbidden: node updates may not change providerID except from "" to valid
    "#]],
    );
    create(
        "",
        "limitranges",
        r#"{"spec":{"limits":[{"type":"Container","min":{"cpu":"2","foo":"1"},"max":{"cpu":"1"}},{"type":"Pod","default":{"cpu":"1"}},
        {"type":"Pod"},{"type":"x"},{"type":"PersistentVolumeClaim"},{"type":"Container","maxLimitRequestRatio":{"memory":"3","cpu":"100m"},"min":{"memory":"1"},"max":{"memory":"2"}}]}}"#,
        expect![[r#"
            spec.limits[0].min[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
            spec.limits[0].min[foo]: Invalid value: "foo": must be a standard resource for containers
            spec.limits[0].defaultRequest[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
            spec.limits[0].defaultRequest[foo]: Invalid value: "foo": must be a standard resource for containers
            spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1
            spec.limits[0].defaultRequest[cpu]: Invalid value: "1": min value 2 is greater than default request value 1
            spec.limits[0].default[cpu]: Invalid value: "2": min value 2 is greater than default value 1
            spec.limits[1].default: Forbidden: may not be specified when `type` is 'Pod'
            spec.limits[2].type: Duplicate value: "Pod"
            spec.limits[3].type: Invalid value: "x": must be a standard limit type or fully qualified
            spec.limits[4].limits: Required value: either minimum or maximum storage value is required, but neither was provided
            spec.limits[5].type: Duplicate value: "Container"
            spec.limits[5].maxLimitRequestRatio[cpu]: Invalid value: "100m": ratio 100m is less than 1
            spec.limits[5].maxLimitRequestRatio[memory]: Invalid value: "3": ratio 3 is greater than max/min = 2.000000
        "#]],
    );
    create(
        "",
        "resourcequotas",
        r#"{"spec":{"hard":{"pods":"-1","foo":"1","storage":"1","requests.cpu":"1","secrets":"100m"},"scopes":["BestEffort","NotBestEffort","x"],
        "scopeSelector":{"matchExpressions":[{"scopeName":"PriorityClass","operator":"In"},{"scopeName":"Terminating","operator":"In","values":["a"]},{"scopeName":"y","operator":"z"}]}}}"#,
        expect![[r#"
            spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0
            spec.hard[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
            spec.hard[foo]: Invalid value: "foo": must be a standard resource for quota
            spec.hard[storage]: Invalid value: "storage": must be a standard resource for quota
            spec.hard[secrets]: Invalid value: "100m": must be an integer
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","x"]: unsupported scope applied to resource
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","x"]: unsupported scope applied to resource
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","x"]: unsupported scope applied to resource
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","x"]: unsupported scope
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","x"]: conflicting scopes
            spec.scopeSelector.matchExpressions: Invalid value: {"matchExpressions":[{"scopeName":"PriorityClass","operator":"In"},{"scopeName":"Terminating","operator":"In","values":["a"]},{"scopeName":"y","operator":"z"}]}: unsupported scope applied to resource
            spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector
            spec.scopeSelector.matchExpressions: Invalid value: {"matchExpressions":[{"scopeName":"PriorityClass","operator":"In"},{"scopeName":"Terminating","operator":"In","values":["a"]},{"scopeName":"y","operator":"z"}]}: unsupported scope applied to resource
            spec.scopeSelector.matchExpressions.operator: Invalid value: "In": must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity
            spec.scopeSelector.matchExpressions.scopeName: Invalid value: "y": unsupported scope
            spec.scopeSelector.matchExpressions.operator: Invalid value: "z": not a valid selector operator
        "#]],
    );
    update(
        "",
        "resourcequotas",
        r#"{"spec":{"scopes":["Terminating"]}}"#,
        r#"{"spec":{}}"#,
        expect![[r#"
        spec.scopes: Invalid value: null: field is immutable
    "#]],
    );
    create(
        "",
        "endpoints",
        r#"{"subsets":[{},{"addresses":[{"ip":"127.0.0.1"},{"ip":"x","hostname":"A"},{"ip":"010.0.0.1"}],"ports":[{"port":1},{"port":0,"name":"A","protocol":"x","appProtocol":"/"}]}]}"#,
        expect![[r#"
        subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`
        subsets[1].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
        subsets[1].addresses[1].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        subsets[1].addresses[1].hostname: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        subsets[1].addresses[2].ip: Invalid value: "010.0.0.1": must not have leading 0s
        subsets[1].ports[0].name: Required value
        subsets[1].ports[1].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        subsets[1].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive
        subsets[1].ports[1].protocol: Unsupported value: "x": supported values: "SCTP", "TCP", "UDP"
        subsets[1].ports[1].appProtocol: Invalid value: "/": prefix part must be non-empty
        subsets[1].ports[1].appProtocol: Invalid value: "/": name part must be non-empty
        subsets[1].ports[1].appProtocol: Invalid value: "/": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
    "#]],
    );
    update(
        "",
        "endpoints",
        r#"{"subsets":[{"addresses":[{"ip":"010.0.0.1"}]}]}"#,
        r#"{"subsets":[{"addresses":[{"ip":"010.0.0.1"},{"ip":"011.0.0.1"}]}]}"#,
        expect![[r#"
        subsets[0].addresses[1].ip: Invalid value: "011.0.0.1": must not have leading 0s
    "#]],
    );
    create(
        "",
        "events",
        r#"{"metadata":{"namespace":"a"},"involvedObject":{"namespace":"b"},"eventTime":"2026-01-02T03:04:05.000006Z"}"#,
        expect![[r#"
        involvedObject.namespace: Invalid value: "b": does not match event.namespace
        reportingController: Required value
        reportingController: Invalid value: "": name part must be non-empty
        reportingController: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        reportingInstance: Required value
        action: Required value
        reason: Required value
    "#]],
    );
    create(
        "events.k8s.io",
        "events",
        r#"{"metadata":{"namespace":"default"},"type":"x","eventTime":"2026-01-02T03:04:05.000006Z","reportingController":"a","reportingInstance":"b","action":"c","reason":"d","series":{"count":1}}"#,
        expect![[r#"
        type: Invalid value: "": has invalid value: x
        series.count: Invalid value: "": should be at least 2
        series.lastObservedTime: Required value
    "#]],
    );
    create(
        "events.k8s.io",
        "events",
        r#"{"metadata":{"namespace":"default"}}"#,
        expect![[r#"
        eventTime: Required value
    "#]],
    );
    create(
        "scheduling.k8s.io",
        "priorityclasses",
        r#"{"metadata":{"name":"system-x"},"value":2000000000,"preemptionPolicy":"x"}"#,
        expect![[r#"
        metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: this name is reserved
        preemptionPolicy: Unsupported value: "x": supported values: "Never", "PreemptLowerPriority"
    "#]],
    );
    create(
        "node.k8s.io",
        "runtimeclasses",
        r#"{"handler":"A","overhead":{"podFixed":{"foo":"1","memory":"-1"}},"scheduling":{"tolerations":[{"key":"a"},{"key":"a"},{"effect":"x"}]}}"#,
        expect![[r#"
        handler: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        overhead.limits[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
        overhead.limits[foo]: Invalid value: "foo": must be a standard resource for containers
        overhead.limits[memory]: Invalid value: "-1": must be greater than or equal to 0
        scheduling.tolerations[1]: Duplicate value: {"key":"a"}
        scheduling.tolerations[2].operator: Invalid value: "": operator must be Exists when `key` is empty, which means "match all values and all keys"
        scheduling.tolerations[2].effect: Unsupported value: "x": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
    "#]],
    );
    create(
        "policy",
        "poddisruptionbudgets",
        r#"{"spec":{"minAvailable":"101%","maxUnavailable":-1,"unhealthyPodEvictionPolicy":"x"}}"#,
        expect![[r#"
        spec: Invalid value: {"minAvailable":"101%","maxUnavailable":-1,"unhealthyPodEvictionPolicy":"x"}: minAvailable and maxUnavailable cannot be both set
        spec.minAvailable: Invalid value: "101%": must not be greater than 100%
        spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0
        spec.unhealthyPodEvictionPolicy: Unsupported value: "x": supported values: "AlwaysAllow", "IfHealthyBudget"
    "#]],
    );
    create(
        "coordination.k8s.io",
        "leases",
        r#"{"spec":{"leaseDurationSeconds":0,"leaseTransitions":-1,"preferredHolder":"x"}}"#,
        expect![[r#"
        spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0
        spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0
        spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined
    "#]],
    );
    create(
        "networking.k8s.io",
        "ipaddresses",
        r#"{"spec":{"parentRef":{"group":"A"}}}"#,
        expect![[r#"
        spec.parentRef.group: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        spec.parentRef.resource: Required value
        spec.parentRef.name: Required value
    "#]],
    );
    create(
        "networking.k8s.io",
        "servicecidrs",
        r#"{"spec":{"cidrs":["10.0.0.0/8","11.0.0.0/8"]}}"#,
        expect![[r#"
        spec.cidrs: Invalid value: ["10.0.0.0/8","11.0.0.0/8"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96
    "#]],
    );
    update(
        "networking.k8s.io",
        "servicecidrs",
        r#"{"spec":{"cidrs":["10.0.0.0/8"]}}"#,
        r#"{"spec":{"cidrs":["11.0.0.0/8","fd00::/64"]}}"#,
        expect![[r#"
        spec.cidrs[0]: Invalid value: "11.0.0.0/8": field is immutable
    "#]],
    );
    create(
        "apps",
        "controllerrevisions",
        r#"{"revision":-1}"#,
        expect![[r#"
        data: Required value: data is mandatory
        revision: Invalid value: -1: must be greater than or equal to 0
    "#]],
    );
    update(
        "apps",
        "controllerrevisions",
        r#"{"revision":1,"data":{"a":1}}"#,
        r#"{"revision":2,"data":{"a":2}}"#,
        expect![[r#"
        data: Invalid value: {"a":2}: field is immutable
    "#]],
    );
    create(
        "discovery.k8s.io",
        "endpointslices",
        r#"{"addressType":"IPv4","endpoints":[{"addresses":["fd00::1","127.0.0.1"],"hostname":"A","hints":{"forZones":[{"name":"a"},{"name":"a"}]}}],"ports":[{},{}]}"#,
        expect![[r#"
        endpoints[0].addresses[0]: Invalid value: "fd00::1": must be an IPv4 address
        endpoints[0].addresses[1]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
        endpoints[0].hostname: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        endpoints[0].hints.forZones[1].name: Duplicate value: "a"
        ports[1].name: Duplicate value: ""
    "#]],
    );
    create(
        "discovery.k8s.io",
        "endpointslices",
        r#"{"addressType":"FQDN","endpoints":[{"addresses":["a","a.b"]}]}"#,
        expect![[r#"
        endpoints[0].addresses[0]: Invalid value: "a": should be a domain with at least two segments separated by dots
    "#]],
    );
}

#[test]
fn admission_says_what_is_wrong() {
    create(
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        r#"{"webhooks":[
        {"name":"a.b.c","clientConfig":{},"sideEffects":"Some","admissionReviewVersions":["v9","v9"],"failurePolicy":"x","matchPolicy":"y","reinvocationPolicy":"z",
         "rules":[{"operations":["*","CREATE"],"apiGroups":["*","a"],"apiVersions":[""],"resources":["*","pods","pods/*","pods/log"],"scope":"x"},{}],
         "matchConditions":[{"name":"a","expression":"true"},{"name":"a"}]},
        {"name":"a.b.c","clientConfig":{"service":{"port":0,"path":"//x"},"url":"https://a"},"sideEffects":"None","admissionReviewVersions":["v1"]},
        {"name":"a.b.d","clientConfig":{"service":{"name":"x","namespace":"y","port":70000,"path":"/A/"}},"sideEffects":"None","admissionReviewVersions":["v1"]},
        {"name":"a.b.e","clientConfig":{"url":"https://u@/x?q#f"},"sideEffects":"None","admissionReviewVersions":["v1"]}]}"#,
        expect![[r#"
            webhooks[0].rules[0].operations: Invalid value: ["*","CREATE"]: if '*' is present, must not specify other operations
            webhooks[0].rules[0].apiGroups: Invalid value: ["*","a"]: if '*' is present, must not specify other API groups
            webhooks[0].rules[0].apiVersions[0]: Required value
            webhooks[0].rules[0].resources[3]: Invalid value: "pods/log": if 'pods/*' is present, must not specify pods/log
            webhooks[0].rules[0].resources: Invalid value: ["*","pods","pods/*","pods/log"]: if '*' is present, must not specify other resources without subresources
            webhooks[0].rules[0].scope: Unsupported value: "x": supported values: "*", "Cluster", "Namespaced"
            webhooks[0].rules[1].operations: Required value
            webhooks[0].rules[1].apiGroups: Required value
            webhooks[0].rules[1].apiVersions: Required value
            webhooks[0].rules[1].resources: Required value
            webhooks[0].failurePolicy: Unsupported value: "x": supported values: "Fail", "Ignore"
            webhooks[0].matchPolicy: Unsupported value: "y": supported values: "Equivalent", "Exact"
            webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"
            webhooks[0].clientConfig: Required value: exactly one of url or service is required
            webhooks[0].reinvocationPolicy: Unsupported value: "z": supported values: "IfNeeded", "Never"
            webhooks[0].matchConditions[1].expression: Required value
            webhooks[0].matchConditions[1].name: Duplicate value: "a"
            webhooks[0].admissionReviewVersions[1]: Duplicate value: "v9"
            webhooks[0].admissionReviewVersions: Invalid value: ["v9","v9"]: must include at least one of v1, v1beta1
            webhooks[1].clientConfig: Required value: exactly one of url or service is required
            webhooks[1].name: Duplicate value: "a.b.c"
            webhooks[2].clientConfig.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive
            webhooks[2].clientConfig.service.path: Invalid value: "/A/": segment[0]: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            webhooks[3].clientConfig.url: Invalid value: "": host must be specified; desired format: https://host[/path]
            webhooks[3].clientConfig.url: Invalid value: "u": user information is not permitted in the URL
            webhooks[3].clientConfig.url: Invalid value: "f": fragments are not permitted in the URL
            webhooks[3].clientConfig.url: Invalid value: "q": query parameters are not permitted in the URL
        "#]],
    );
    let old = r#"{"webhooks":[{"name":"a.b.c","clientConfig":{"url":"https://a"},"sideEffects":"Some","admissionReviewVersions":["v9"]}]}"#;
    update("admissionregistration.k8s.io", "validatingwebhookconfigurations", old, old, expect![[""]]);
    create(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        r#"{"metadata":{"name":"p"},"spec":{"failurePolicy":"x","paramKind":{"apiVersion":"a/b/c","kind":"9"},
        "variables":[{"name":"a-b"},{"name":"a","expression":"1"},{"name":"a","expression":"1"}],
        "auditAnnotations":[{"key":"a b"},{"key":"x","valueExpression":"1"},{"key":"x","valueExpression":"1"}],
        "validations":[{"message":" "},{"expression":"a\nb","reason":"x"},{"expression":"a","message":"a\nb"}]}}"#,
        expect![[r#"
            spec.failurePolicy: Unsupported value: "x": supported values: "Fail", "Ignore"
            spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c
            spec.paramKind.kind: Invalid value: "9": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
            spec.matchConstraints: Required value
            spec.variables[0].name: Invalid value: "a-b": name is not a valid CEL identifier
            spec.variables[0].expression: Required value: expression is not specified
            spec.variables[2].name: Duplicate value: "a"
            spec.validations[0].expression: Required value: expression is not specified
            spec.validations[0].message: Invalid value: " ": message must be non-empty if specified
            spec.validations[1].message: Required value: message must be specified if expression contains line breaks
            spec.validations[1].reason: Unsupported value: "x": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"
            spec.validations[2].message: Invalid value: "a\nb": message must not contain line breaks
            spec.auditAnnotations[0].key: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.auditAnnotations[0].valueExpression: Required value: valueExpression is required
            spec.auditAnnotations[2].key: Duplicate value: "x"
        "#]],
    );
    create(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        r#"{"spec":{"matchConstraints":{}}}"#,
        expect![[r#"
        spec.matchConstraints.resourceRules: Required value
        spec.validations: Required value: validations or auditAnnotations must be provided
        spec.auditAnnotations: Required value: validations or auditAnnotations must be provided
    "#]],
    );
    create(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicies",
        r#"{"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"resources":["pods"],"operations":["*"],"resourceNames":["a","a","%"]}]},
        "reinvocationPolicy":"x","mutations":[{},{"patchType":"JSONPatch","applyConfiguration":{"expression":"x"}}]}}"#,
        expect![[r#"
            spec.matchConstraints.resourceRules[0].resourceNames[2]: Invalid value: "%": may not contain '%'
            spec.matchConstraints.resourceRules[0].resourceNames[1]: Duplicate value: "a"
            spec.mutations[0].patchType: Required value
            spec.mutations[1].applyConfiguration: Forbidden: must not be specified when patchType is JSONPatch
            spec.mutations[1].jsonPatch: Required value: must be specified when patchType is JSONPatch
            spec.reinvocationPolicy: Unsupported value: "x": supported values: "IfNeeded", "Never"
        "#]],
    );
    create(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicies",
        r#"{"spec":{}}"#,
        expect![[r#"
        spec.matchConstraints: Required value
        spec.mutations: Required value: mutations must contain at least one item
    "#]],
    );
    create(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
        r#"{"spec":{"paramRef":{"name":"a","selector":{}},"validationActions":["Deny","Warn","Deny","x"],"matchResources":{"matchPolicy":"x"}}}"#,
        expect![[r#"
        spec.policyName: Required value
        spec.paramRef.name: Forbidden: name and selector are mutually exclusive
        spec.paramRef.selector: Forbidden: name and selector are mutually exclusive
        spec.paramRef.parameterNotFoundAction: Required value
        spec.matchResources.matchPolicy: Unsupported value: "x": supported values: "Equivalent", "Exact"
        spec.validationActions[3]: Unsupported value: "x": supported values: "Audit", "Deny", "Warn"
        spec.validationActions[2]: Duplicate value: "Deny"
        spec.validationActions: Invalid value: ["Deny","Warn","Deny","x"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)
    "#]],
    );
    create(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings",
        r#"{"spec":{"policyName":"A","paramRef":{}}}"#,
        expect![[r#"
        spec.policyName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        spec.paramRef: Required value: one of name or selector must be specified
        spec.paramRef.parameterNotFoundAction: Required value
    "#]],
    );
}

#[test]
fn flow_control_and_certificates_say_what_is_wrong() {
    create(
        "flowcontrol.apiserver.k8s.io",
        "flowschemas",
        r#"{"metadata":{"name":"x"},"spec":{"matchingPrecedence":1,"distinguisherMethod":{"type":"x"},"rules":[{},
        {"subjects":[{"kind":"x"},{"kind":"User","group":{"name":"g"}},{"kind":"ServiceAccount","serviceAccount":{}}],
         "resourceRules":[{"verbs":["*","get"],"apiGroups":[],"resources":["*","x"]},{"verbs":["fly"],"apiGroups":["a"],"resources":["b"],"namespaces":["A","*"]}],
         "nonResourceRules":[{"verbs":["get"],"nonResourceURLs":["x","/a//b","/*/a","/a b"]}]}]}}"#,
        expect![[r#"
             spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1
             spec.priorityLevelConfiguration.name: Required value: must reference a priority level
             spec.distinguisherMethod: Unsupported value: {"type":"x"}: supported values: "ByNamespace", "ByUser"
             spec.rules[0].subjects: Required value: subjects must contain at least one value
             spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty
             spec.rules[1].subjects[0].kind: Unsupported value: "x": supported values: "Group", "ServiceAccount", "User"
             spec.rules[1].subjects[1].group: Forbidden: group is forbidden when subject kind is not 'Group'
             spec.rules[1].subjects[1].user: Required value: user is required when subject kind is 'User'
             spec.rules[1].subjects[2].serviceAccount.name: Required value
             spec.rules[1].subjects[2].serviceAccount.namespace: Required value: must specify namespace for service account
             spec.rules[1].resourceRules[0].verbs: Invalid value: ["*","get"]: if '*' is present, must not specify other verbs
             spec.rules[1].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group
             spec.rules[1].resourceRules[0].resources: Invalid value: ["*","x"]: if '*' is present, must not specify other resources
             spec.rules[1].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace
             spec.rules[1].resourceRules[1].verbs: Unsupported value: ["fly"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"
             spec.rules[1].resourceRules[1].namespaces: Invalid value: ["A","*"]: if '*' is present, must not specify other namespaces
             spec.rules[1].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "x": must start with slash
             spec.rules[1].nonResourceRules[0].nonResourceURLs[1]: Invalid value: "/a//b": must not contain double slash
             spec.rules[1].nonResourceRules[0].nonResourceURLs[2]: Invalid value: "/*/a": wildcard can only do suffix matching
             spec.rules[1].nonResourceRules[0].nonResourceURLs[3]: Invalid value: "/a b": must not contain white-space
         "#]],
    );
    create(
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
        r#"{"metadata":{"name":"exempt"},"spec":{"type":"Limited","exempt":{"lendablePercent":101},
        "limited":{"nominalConcurrencyShares":-1,"borrowingLimitPercent":-1,"limitResponse":{"type":"Queue","queuing":{"queues":4,"handSize":8}}}}}"#,
        expect![[r#"
            spec.type: Invalid value: "Limited": type must be 'Exempt' if and only if `name` is 'exempt'
            spec.exempt: Forbidden: must be nil if the type is Limited
            spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer
            spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer
            spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (4)
        "#]],
    );
    create(
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
        r#"{"metadata":{"name":"a"},"spec":{"type":"Limited","limited":{"limitResponse":{"type":"Queue","queuing":{"queues":128,"handSize":10}}}}}"#,
        expect![[r#"
        spec.limited.limitResponse.queuing.handSize: Invalid value: 10: required entropy bits of deckSize 128 and handSize 10 should not be greater than 60
    "#]],
    );
    create(
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
        r#"{"metadata":{"name":"a"},"spec":{"type":"Limited"}}"#,
        expect![[r#"
        spec.limited: Required value: must not be empty when type is Limited
    "#]],
    );
    create(
        "certificates.k8s.io",
        "certificatesigningrequests",
        r#"{"spec":{"request":"eA==","usages":["x","signing","signing"],"signerName":"a/b","expirationSeconds":1}}"#,
        expect![[r#"
        spec.request: Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST
        spec.usages[0]: Unsupported value: "x": supported values: "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping"
        spec.usages[2]: Duplicate value: "signing"
        spec.signerName: Invalid value: "a": should be a domain with at least two segments separated by dots
        spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 600 seconds (10 minutes)
    "#]],
    );
    create(
        "certificates.k8s.io",
        "certificatesigningrequests",
        &format!(r#"{{"spec":{{"request":"{CSR_PEM}","signerName":"x"}}}}"#),
        expect![[r#"
        spec.usages: Required value: usages must be provided
        spec.signerName: Invalid value: "x": must be a fully qualified domain and path of the form 'example.com/signer-name'
    "#]],
    );
    create(
        "apiregistration.k8s.io",
        "apiservices",
        r#"{"metadata":{"name":"x"},"spec":{"group":"A","version":"1","caBundle":"eA==","insecureSkipTLSVerify":true}}"#,
        expect![[r#"
        metadata.name: Invalid value: "x": must be `spec.version+"."+spec.group`: "1.A"
        spec.group: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        spec.version: Invalid value: "1": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
        spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000
        spec.versionPriority: Invalid value: 0: must be positive and less than 1000
        spec.caBundle: Invalid value: "1 bytes": local APIServices may not have a caBundle
        spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify
    "#]],
    );
    create(
        "apiregistration.k8s.io",
        "apiservices",
        r#"{"metadata":{"name":"v1.a"},"spec":{"group":"a","version":"v1","groupPriorityMinimum":1,"versionPriority":2000,"caBundle":"eA==","insecureSkipTLSVerify":true,"service":{"port":70000}}}"#,
        expect![[r#"
        spec.versionPriority: Invalid value: 2000: must be positive and less than 1000
        spec.service.namespace: Required value
        spec.service.name: Required value
        spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive
        spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present
    "#]],
    );
    create(
        "rbac.authorization.k8s.io",
        "rolebindings",
        r#"{"roleRef":{"kind":"x","apiGroup":"y"},"subjects":[{"kind":"User","name":"a","apiGroup":"z"},{"kind":"ServiceAccount","name":"A","apiGroup":"z"},{"kind":"q"}]}"#,
        expect![[r#"
        roleRef.apiGroup: Unsupported value: "y": supported values: "rbac.authorization.k8s.io"
        roleRef.kind: Unsupported value: "x": supported values: "Role", "ClusterRole"
        roleRef.name: Required value
        subjects[0].apiGroup: Unsupported value: "z": supported values: "rbac.authorization.k8s.io"
        subjects[1].name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        subjects[1].apiGroup: Unsupported value: "z": supported values: ""
        subjects[2].name: Required value
        subjects[2].kind: Unsupported value: "q": supported values: "ServiceAccount", "User", "Group"
    "#]],
    );
    update(
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        r#"{"roleRef":{"kind":"ClusterRole","name":"a"}}"#,
        r#"{"roleRef":{"kind":"ClusterRole","name":"b"}}"#,
        expect![[r#"
        roleRef: Invalid value: {"kind":"ClusterRole","name":"b","apiGroup":"rbac.authorization.k8s.io"}: cannot change roleRef
    "#]],
    );
    create(
        "rbac.authorization.k8s.io",
        "clusterroles",
        r#"{"aggregationRule":{}}"#,
        expect![[r#"
        aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil
    "#]],
    );
}

#[test]
fn status_is_judged_too() {
    let status = |group, plural, text: &str| {
        let kind = kind(group, plural);
        let object = object(kind, text);
        lines(&kind.validate_subresource("status", &object, &skiff_object::Tree::map()))
    };
    let found = [
        status("", "namespaces", r#"{"status":{"phase":"Terminating"}}"#),
        status(
            "",
            "namespaces",
            r#"{"metadata":{"deletionTimestamp":"2026-01-02T03:04:05Z"},"status":{"phase":"Active"}}"#,
        ),
        status(
            "policy",
            "poddisruptionbudgets",
            r#"{"status":{"disruptionsAllowed":-1,"conditions":[{"type":"a","status":"x"},{"type":"a","status":"True","reason":"1","lastTransitionTime":"2026-01-02T03:04:05Z"}]}}"#,
        ),
        status("", "resourcequotas", r#"{"status":{"hard":{"foo":"1"},"used":{"pods":"-1"}}}"#),
        status(
            "certificates.k8s.io",
            "certificatesigningrequests",
            r#"{"status":{"conditions":[{"type":"Approved","status":"False"},{"type":"Denied","status":"True"},{"status":"x"}]}}"#,
        ),
        status("storage.k8s.io", "volumeattachments", r#"{"status":{"attachmentMetadata":{"":"x"}}}"#),
    ];
    expect![[r#"
        status.Phase: Invalid value: "Terminating": may only be 'Active' if `deletionTimestamp` is empty
        status.Phase: Invalid value: "Active": may only be 'Terminating' if `deletionTimestamp` is not empty
        status.conditions[0].status: Unsupported value: "x": supported values: "False", "True", "Unknown"
        status.conditions[0].lastTransitionTime: Required value: must be set
        status.conditions[0].reason: Required value: must be set
        status.conditions[1].type: Duplicate value: "a"
        status.conditions[1].reason: Invalid value: "1": a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')
        status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0
        status.hard[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
        status.hard[foo]: Invalid value: "foo": must be a standard resource for quota
        status.used[pods]: Invalid value: "-1": must be greater than or equal to 0
        status.conditions[0].status: Unsupported value: "False": supported values: "True"
        status.conditions[1].type: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive
        status.conditions[2].type: Required value
        status.conditions[2].status: Unsupported value: "x": supported values: "False", "True", "Unknown"
        status.attachmentMetadata: Invalid value: "": field can not be empty.
    "#]].assert_eq(&found.concat());
}
