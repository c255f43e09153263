//! What is refused of pods, jobs, services and workloads beyond the most common mistakes.

mod support;

use expect_test::expect;
use support::{create, good, kind, lines, object, update};

const CONTAINER: &str = r#""name":"a","image":"b""#;

fn pod(spec: &str) -> String {
    format!(r#"{{"metadata":{{"name":"x"}},"spec":{spec}}}"#)
}

fn job(spec: &str, policy: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"x","uid":"u"}},"spec":{{{spec}"template":{{"spec":{{"restartPolicy":"{policy}","containers":[{{{CONTAINER}}}]}}}}}}}}"#
    )
}

fn cron(spec: &str) -> String {
    let job = job("", "Never");
    let job = job.split_once(r#""spec":"#).map_or("", |(_, rest)| rest.strip_suffix('}').unwrap_or(rest));
    format!(r#"{{"metadata":{{"name":"x"}},"spec":{{{spec}"jobTemplate":{{"spec":{job}}}}}}}"#)
}

#[test]
fn good_objects_are_accepted_and_stay_so() {
    let full = pod(&format!(
        r#"{{"volumes":[{{"name":"c","configMap":{{"name":"x","items":[{{"key":"k","path":"p/q"}}]}}}},{{"name":"e","emptyDir":{{}}}},
            {{"name":"t","projected":{{"sources":[{{"serviceAccountToken":{{"path":"token","expirationSeconds":3607}}}},{{"configMap":{{"name":"kube-root-ca.crt","items":[{{"key":"ca.crt","path":"ca.crt"}}]}}}},
             {{"downwardAPI":{{"items":[{{"path":"namespace","fieldRef":{{"fieldPath":"metadata.namespace"}}}}]}}}}]}}}}],
            "securityContext":{{"runAsUser":1,"sysctls":[{{"name":"net.ipv4.ip_unprivileged_port_start","value":"0"}}],"seccompProfile":{{"type":"RuntimeDefault"}}}},
            "initContainers":[{{"name":"i","image":"b","restartPolicy":"Always","startupProbe":{{"tcpSocket":{{"port":1}}}}}}],
            "containers":[{{{CONTAINER},"ports":[{{"containerPort":1}}],"env":[{{"name":"N","valueFrom":{{"fieldRef":{{"fieldPath":"metadata.labels['a']"}}}}}},
             {{"name":"C","valueFrom":{{"resourceFieldRef":{{"resource":"limits.cpu","divisor":"1m"}}}}}}],
             "volumeMounts":[{{"name":"c","mountPath":"/c"}},{{"name":"e","mountPath":"/e","subPath":"x"}},{{"name":"t","mountPath":"/t","readOnly":true}}],
             "resources":{{"requests":{{"cpu":"1","memory":"1Gi"}},"limits":{{"cpu":"1","memory":"1Gi","example.com/gpu":"1"}}}},
             "lifecycle":{{"preStop":{{"sleep":{{"seconds":5}}}}}}}}],
            "topologySpreadConstraints":[{{"maxSkew":1,"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule","labelSelector":{{"matchLabels":{{"a":"b"}}}}}}],
            "affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{{"matchFields":[{{"key":"metadata.name","operator":"In","values":["n"]}}]}}]}}}}}},
            "tolerations":[{{"operator":"Exists"}}],"hostAliases":[{{"ip":"10.0.0.1","hostnames":["h"]}}],"dnsConfig":{{"searches":["."]}}}}"#
    ));
    good("", "pods", &full);
    good("batch", "jobs", &job("", "Never"));
    good(
        "batch",
        "jobs",
        &job(
            r#""completionMode":"Indexed","completions":3,"successPolicy":{"rules":[{"succeededIndexes":"0-1","succeededCount":1}]},"#,
            "Never",
        ),
    );
    good("batch", "cronjobs", &cron(r#""schedule":"*/5 0-3 1,2 jan-mar mon","timeZone":"Europe/Berlin","#));
    good(
        "",
        "services",
        r#"{"metadata":{"name":"x"},"spec":{"ports":[{"port":80}],"selector":{"a":"b"},"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"],"ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack"}}"#,
    );
    good(
        "",
        "services",
        r#"{"metadata":{"name":"x"},"spec":{"type":"LoadBalancer","externalTrafficPolicy":"Local","healthCheckNodePort":30000,"ports":[{"port":80}]}}"#,
    );
    good(
        "networking.k8s.io",
        "networkpolicies",
        r#"{"metadata":{"name":"x"},"spec":{"podSelector":{},"ingress":[{"from":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}],"ports":[{"port":1,"endPort":2}]}]}}"#,
    );
    good(
        "networking.k8s.io",
        "ingressclasses",
        r#"{"metadata":{"name":"x"},"spec":{"controller":"a.b/c","parameters":{"kind":"K","name":"n"}}}"#,
    );
    good(
        "autoscaling",
        "horizontalpodautoscalers",
        r#"{"metadata":{"name":"x"},"spec":{"maxReplicas":2,"scaleTargetRef":{"kind":"Deployment","name":"x"},"targetCPUUtilizationPercentage":50}}"#,
    );
    good(
        "",
        "persistentvolumes",
        r#"{"metadata":{"name":"x"},"spec":{"capacity":{"storage":"1Gi"},"accessModes":["ReadWriteOnce"],"hostPath":{"path":"/a"}}}"#,
    );
    good(
        "",
        "persistentvolumeclaims",
        r#"{"metadata":{"name":"x"},"spec":{"resources":{"requests":{"storage":"1Gi"}},"accessModes":["ReadWriteOnce"]}}"#,
    );
    good(
        "resource.k8s.io",
        "resourceclaims",
        r#"{"metadata":{"name":"x"},"spec":{"devices":{"requests":[{"name":"a","exactly":{"deviceClassName":"gpu"}}],"constraints":[{"requests":["a"],"matchAttribute":"a.b/c"}],"config":[{"opaque":{"driver":"a.b","parameters":{"x":1}}}]}}}"#,
    );
    good(
        "resource.k8s.io",
        "deviceclasses",
        r#"{"metadata":{"name":"x"},"spec":{"selectors":[{"cel":{"expression":"true"}}]}}"#,
    );
    good(
        "resource.k8s.io",
        "resourceslices",
        r#"{"metadata":{"name":"x"},"spec":{"driver":"a.b","nodeName":"n","pool":{"name":"p","resourceSliceCount":1},"devices":[{"name":"d","attributes":{"a":{"version":"1.2.3"},"b.c/d":{"int":1}},"capacity":{"m":{"value":"1Gi"}}}]}}"#,
    );
}

#[test]
fn containers_say_what_is_wrong() {
    create(
        "",
        "pods",
        &pod(&format!(
            r#"{{"hostNetwork":true,"shareProcessNamespace":true,"hostPID":true,"containers":[{{{CONTAINER},"ports":[{{"containerPort":1,"hostPort":2}}],
        "env":[{{"name":"A","valueFrom":{{"fieldRef":{{"fieldPath":"spec.x"}}}}}},{{"name":"B","valueFrom":{{"fieldRef":{{"fieldPath":"status.phase"}}}}}},{{"name":"C","valueFrom":{{"resourceFieldRef":{{"resource":"limits.x"}}}}}},
          {{"name":"D","valueFrom":{{"resourceFieldRef":{{"resource":"limits.cpu","divisor":"2"}}}}}},{{"name":"E","valueFrom":{{"fileKeyRef":{{"key":"k","volumeName":"v","path":"/p"}}}}}}],
        "envFrom":[{{}},{{"prefix":"a=","configMapRef":{{}}}}],"volumeMounts":[{{"name":"v","mountPath":"/a","mountPropagation":"Bidirectional","recursiveReadOnly":"Enabled"}}],
        "volumeDevices":[{{"name":"w","devicePath":"../x"}}],
        "resources":{{"requests":{{"hugepages-2Mi":"3Mi","example.com/gpu":"1","kubernetes.io/x":"-1"}},"limits":{{"example.com/gpu":"2"}},"claims":[{{"name":"c"}}]}},
        "resizePolicy":[{{"resourceName":"x","restartPolicy":"y"}}],"restartPolicyRules":[{{"action":"x"}}],
        "lifecycle":{{"postStart":{{"sleep":{{"seconds":-1}}}},"preStop":{{}},"stopSignal":"SIGTERM"}},
        "securityContext":{{"runAsUser":-1,"procMount":"x","seccompProfile":{{"type":"Localhost"}},"appArmorProfile":{{"localhostProfile":"p"}},"privileged":true,"allowPrivilegeEscalation":false,"capabilities":{{"add":["CAP_SYS_ADMIN"]}}}}}}],
        "initContainers":[{{"name":"i","image":"b","livenessProbe":{{"exec":{{"command":["x"]}}}}}}],
        "ephemeralContainers":[{{"name":"e","image":"b","targetContainerName":"z","ports":[{{"containerPort":1}}]}}]}}"#
        )),
        expect![[r#"
            spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.x": error converting fieldPath: field label not supported: spec.x
            spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"
            spec.containers[0].env[2].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.x": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"
            spec.containers[0].env[3].valueFrom.resourceFieldRef.divisor: Invalid value: "2": only divisor's values 1m and 1 are supported with the cpu resource
            spec.containers[0].env[4].valueFrom.fileKeyRef.volumeName: Not found: "v"
            spec.containers[0].env[4].valueFrom.fileKeyRef.path: Invalid value: "/p": must be a relative path
            spec.containers[0].envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or `secretRef`
            spec.containers[0].envFrom[1].prefix: Invalid value: "a=": a valid environment variable name must consist only of printable ASCII characters other than '='
            spec.containers[0].envFrom[1].configMapRef.name: Required value
            spec.containers[0].volumeMounts[0].name: Not found: "v"
            spec.containers[0].volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true
            spec.containers[0].volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified
            spec.containers[0].volumeDevices[0].name: Not found: "w"
            spec.containers[0].volumeDevices[0].devicePath: Invalid value: "../x": can not contain backsteps ('..')
            spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi
            spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources
            spec.containers[0].resources.requests: Invalid value: "1": must be equal to example.com/gpu limit of 2
            spec.containers[0].resources.requests[kubernetes.io/x]: Invalid value: "-1": must be greater than or equal to 0
            spec.containers[0].resources: Forbidden: HugePages require cpu or memory
            spec.containers[0].resources.claims[0]: Not found: "c"
            spec.containers[0].resizePolicy: Unsupported value: "x": supported values: "cpu", "memory"
            spec.containers[0].resizePolicy: Unsupported value: "y": supported values: "NotRequired", "RestartContainer"
            spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive
            spec.containers[0].securityContext.procMount: Unsupported value: "x": supported values: "Default", "Unmasked"
            spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost
            spec.containers[0].securityContext.appArmorProfile.type: Required value: type is required when appArmorProfile is set
            spec.containers[0].securityContext.appArmorProfile.localhostProfile: Invalid value: "p": can only be set when AppArmor type is Localhost
            spec.containers[0].securityContext: Invalid value: {"runAsUser":-1,"procMount":"x","seccompProfile":{"type":"Localhost"},"appArmorProfile":{"localhostProfile":"p"},"privileged":true,"allowPrivilegeEscalation":false,"capabilities":{"add":["CAP_SYS_ADMIN"]}}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true
            spec.containers[0].securityContext: Invalid value: {"runAsUser":-1,"procMount":"x","seccompProfile":{"type":"Localhost"},"appArmorProfile":{"localhostProfile":"p"},"privileged":true,"allowPrivilegeEscalation":false,"capabilities":{"add":["CAP_SYS_ADMIN"]}}: cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN
            spec.containers[0].lifecycle.postStart.sleep: Invalid value: -1: must be non-negative and less than terminationGracePeriodSeconds (30)
            spec.containers[0].lifecycle.preStop: Required value: must specify a handler type
            spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`
            spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used
            spec.containers[0].restartPolicyRules[0].action: Unsupported value: "x": supported values: "Restart", "RestartAllContainers"
            spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified
            spec.containers[0].ports[0].hostPort: Invalid value: 2: must match `containerPort` when `hostNetwork` is true
            spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always
            spec.ephemeralContainers[0].targetContainerName: Not found: "z"
            spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container
            spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled
            spec.ephemeralContainers: Forbidden: cannot be set on create
        "#]],
    );
}

#[test]
fn pod_specs_say_what_is_wrong() {
    create(
        "",
        "pods",
        &pod(&format!(
            r#"{{"containers":[{{{CONTAINER}}}],"volumes":[
        {{"name":"a","hostPath":{{"path":"/a/../b","type":"x"}}}},{{"name":"b","configMap":{{"name":"x","defaultMode":1000,"items":[{{"key":"k","path":"/p"}},{{"path":"..p"}}]}}}},
        {{"name":"c","downwardAPI":{{"items":[{{"path":"p"}},{{"path":"q","fieldRef":{{"fieldPath":"spec.nodeName"}}}},{{"path":"r","resourceFieldRef":{{"resource":"limits.cpu"}}}}]}}}},
        {{"name":"d","projected":{{"sources":[{{}},{{"serviceAccountToken":{{"expirationSeconds":1}}}},{{"secret":{{"name":"s","items":[{{"key":"k","path":"p"}},{{"key":"l","path":"p"}}]}}}},{{"clusterTrustBundle":{{"path":"x"}}}}]}}}},
        {{"name":"e","emptyDir":{{"sizeLimit":"-1"}}}},{{"name":"f","csi":{{"driver":"a_b"}}}},{{"name":"g","ephemeral":{{"volumeClaimTemplate":{{"spec":{{}}}}}}}},{{"name":"h","image":{{"pullPolicy":"x"}}}},{{"name":"i","nfs":{{"server":"s","path":"p"}}}}],
        "resourceClaims":[{{"name":"A"}},{{"name":"b","resourceClaimName":"x","resourceClaimTemplateName":"y"}}],
        "resources":{{"requests":{{"storage":"1"}}}},"schedulingGates":[{{"name":"x"}},{{"name":"x"}}],"nodeName":"n",
        "securityContext":{{"supplementalGroups":[-1],"supplementalGroupsPolicy":"x","fsGroupChangePolicy":"y","sysctls":[{{"name":"A"}},{{"name":""}}],"windowsOptions":{{"runAsUserName":""}}}},
        "topologySpreadConstraints":[{{"maxSkew":0,"topologyKey":"a","whenUnsatisfiable":"DoNotSchedule"}},{{"maxSkew":1,"topologyKey":"a","whenUnsatisfiable":"DoNotSchedule","matchLabelKeys":["k"]}},{{"maxSkew":1,"topologyKey":"b","whenUnsatisfiable":"ScheduleAnyway","minDomains":0,"nodeTaintsPolicy":"x"}}],
        "affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{{"matchExpressions":[{{"key":"a","operator":"In","values":["a b"]}}],"matchFields":[{{"key":"x","operator":"Gt"}}]}}]}}}},
          "podAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{"namespaces":["A"],"topologyKey":""}}]}}}},
        "dnsConfig":{{"nameservers":["1.1.1.1","1.1.1.1","1.1.1.1","x"],"searches":["a b"],"options":[{{}}]}},"os":{{"name":"windows"}},"hostUsers":false,"hostIPC":true,"preemptionPolicy":"x","overhead":{{"foo":"1"}}}}"#
        )),
        expect![[r#"
            spec.volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain '..'
            spec.volumes[0].hostPath.type: Unsupported value: "x": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"
            spec.volumes[1].configMap.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive
            spec.volumes[1].configMap.items[0].path: Invalid value: "/p": must be a relative path
            spec.volumes[1].configMap.items[1].key: Required value
            spec.volumes[1].configMap.items[1].path: Invalid value: "..p": must not start with '..'
            spec.volumes[2].downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef is required
            spec.volumes[2].downwardAPI.items[1].fieldRef.fieldPath: Unsupported value: "spec.nodeName": supported values: "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"
            spec.volumes[2].downwardAPI.items[2].resourceFieldRef.containerName: Required value
            spec.volumes[3].projected.sources[0]: Required value: must specify a volume type
            spec.volumes[3].projected.sources[1].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes
            spec.volumes[3].projected.sources[1].serviceAccountToken.path: Required value
            spec.volumes[3].projected.sources[2].secret: Invalid value: "s": conflicting duplicate paths
            spec.volumes[3].projected.sources[3].clusterTrustBundle: Required value: either name or signerName must be specified
            spec.volumes[4].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity
            spec.volumes[5].csi.driver: Invalid value: "a_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.volumes[6].ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required
            spec.volumes[6].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value
            spec.volumes[7].image.reference: Required value
            spec.volumes[7].image.pullPolicy: Unsupported value: "x": supported values: "Always", "IfNotPresent", "Never"
            spec.volumes[8].nfs.path: Invalid value: "p": must be an absolute path
            spec.resourceClaims[0].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.resourceClaims[0]: Invalid value: {"name":"A"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`
            spec.resourceClaims[1]: Invalid value: {"name":"b","resourceClaimName":"x","resourceClaimTemplateName":"y"}: at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified
            spec.resources.requests[storage]: Unsupported value: "storage": supported values: "cpu", "hugepages-", "memory"
            spec.resources.requests[storage]: Invalid value: "storage": must be a standard resource for containers
            spec.hostIPC: Forbidden: when `hostUsers` is false
            spec.securityContext.supplementalGroups: Invalid value: -1: must be between 0 and 2147483647, inclusive
            spec.securityContext.supplementalGroupsPolicy: Unsupported value: "x": supported values: "Merge", "Strict"
            spec.securityContext.fsGroupChangePolicy: Unsupported value: "y": supported values: "Always", "OnRootMismatch"
            spec.securityContext.sysctls[0].name: Invalid value: "A": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$
            spec.securityContext.sysctls[1].name: Required value
            spec.securityContext.windowsOptions.runAsUserName: Invalid value: "": runAsUserName cannot be an empty string
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values[0]: Invalid value: "a b": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].operator: Invalid value: "Gt": not a valid selector operator
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: Invalid value: "x": not a valid field selector key
            spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespaces[0]: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty
            spec.dnsConfig.nameservers: Invalid value: ["1.1.1.1","1.1.1.1","1.1.1.1","x"]: must not have more than 3 nameservers
            spec.dnsConfig.nameservers[3]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            spec.dnsConfig.searches[0]: Invalid value: "a b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')
            spec.dnsConfig.options[0]: Required value: must not be empty
            spec.schedulingGates[1]: Duplicate value: "x"
            spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero
            spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{a, DoNotSchedule}"
            spec.topologySpreadConstraints[1].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set
            spec.topologySpreadConstraints[2].minDomains: Invalid value: 0: must be greater than zero
            spec.topologySpreadConstraints[2].minDomains: Invalid value: 0: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway
            spec.topologySpreadConstraints[2].nodeTaintsPolicy: Unsupported value: "x": supported values: "Honor", "Ignore"
            spec.preemptionPolicy: Unsupported value: "x": supported values: "Never", "PreemptLowerPriority"
            spec.overhead.limits[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
            spec.overhead.limits[foo]: Invalid value: "foo": must be a standard resource for containers
            spec.hostIPC: Forbidden: cannot be set for a windows pod
            spec.hostUsers: Forbidden: cannot be set for a windows pod
            spec.securityContext.fsGroupChangePolicy: Forbidden: cannot be set for a windows pod
            spec.securityContext.sysctls: Forbidden: cannot be set for a windows pod
            spec.securityContext.supplementalGroups: Forbidden: cannot be set for a windows pod
            spec.securityContext.supplementalGroupsPolicy: Forbidden: cannot be set for a windows pod
            spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared
        "#]],
    );
}

#[test]
fn pods_change_only_where_they_may() {
    let old = pod(&format!(
        r#"{{"activeDeadlineSeconds":5,"tolerations":[{{"key":"a","operator":"Exists"}}],"containers":[{{{CONTAINER}}}]}}"#
    ));
    update(
        "",
        "pods",
        &old,
        &old.replace(":5,", ":6,"),
        expect![[r#"
        spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value
    "#]],
    );
    update(
        "",
        "pods",
        &old,
        &old.replace(r#""activeDeadlineSeconds":5,"#, ""),
        expect![[r#"
        spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value
    "#]],
    );
    update(
        "",
        "pods",
        &old,
        &old.replace(r#""key":"a""#, r#""key":"b""#),
        expect![[r#"
        spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds
    "#]],
    );
    update(
        "",
        "pods",
        &old,
        &old.replace(r#""tolerations""#, r#""schedulingGates":[{"name":"a/b"}],"tolerations""#),
        expect![[r#"
        spec.schedulingGates: Forbidden: only deletion is allowed, but found new scheduling gate 'a/b'
    "#]],
    );
    let kind = kind("", "pods");
    let sized =
        |resources: &str| object(kind, &pod(&format!(r#"{{"containers":[{{{CONTAINER},"resources":{resources}}}]}}"#)));
    let old = sized(r#"{"requests":{"cpu":"1","ephemeral-storage":"1Gi"},"limits":{"cpu":"2"}}"#);
    let mut new = sized(r#"{"requests":{"cpu":"2","ephemeral-storage":"2Gi"}}"#);
    kind.prepare_subresource("resize", &mut new, &old);
    expect![[r#"
        spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed
        spec.containers[0].resources.requests: Forbidden: only cpu and memory resources are mutable
    "#]]
    .assert_eq(&lines(&kind.validate_subresource("resize", &new, &old)));
}

#[test]
fn jobs_say_what_is_wrong() {
    create(
        "batch",
        "jobs",
        &job(
            r#""completionMode":"Indexed","parallelism":100001,"maxFailedIndexes":3,"completions":2,"podReplacementPolicy":"TerminatingOrFailed","managedBy":"x",
        "podFailurePolicy":{"rules":[{"action":"x"},{"action":"FailIndex","onExitCodes":{"containerName":"z","operator":"In","values":[2,0,2]}},{"action":"Count","onPodConditions":[{"type":"a","status":"x"}]}]},
        "successPolicy":{"rules":[{},{"succeededIndexes":"1,0"},{"succeededCount":3},{"succeededIndexes":"0","succeededCount":2}]},"#,
            "OnFailure",
        ),
        expect![[r#"
            spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed
            spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions
            spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified
            spec.podFailurePolicy.rules[0].action: Unsupported value: "x": supported values: "Count", "FailIndex", "FailJob", "Ignore"
            spec.podFailurePolicy.rules[0]: Invalid value: {"action":"x"}: specifying one of OnExitCodes and OnPodConditions is required
            spec.podFailurePolicy.rules[1].action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set
            spec.podFailurePolicy.rules[1].onExitCodes.containerName: Invalid value: "z": must be one of the container or initContainer names in the pod template
            spec.podFailurePolicy.rules[1].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator
            spec.podFailurePolicy.rules[1].onExitCodes.values[2]: Duplicate value: 2
            spec.podFailurePolicy.rules[1].onExitCodes.values: Invalid value: [2,0,2]: must be ordered
            spec.podFailurePolicy.rules[2].onPodConditions[0].status: Unsupported value: "x": supported values: "False", "True", "Unknown"
            spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified
            spec.successPolicy.rules[1].succeededIndexes: Invalid value: "1,0": error parsing succeededIndexes: non-increasing order, previous: 1, current: 0
            spec.successPolicy.rules[2].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of specified completions)
            spec.successPolicy.rules[3].succeededCount: Invalid value: 2: must be less than or equal to 1 (the number of indexes in the specified succeededIndexes field)
            spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"
            spec.managedBy: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")
            spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified
        "#]],
    );
    create(
        "batch",
        "jobs",
        &job(r#""backoffLimitPerIndex":1,"completionMode":"x","successPolicy":{},"#, "x"),
        expect![[r#"
        spec.completionMode: Unsupported value: "x": supported values: "NonIndexed", "Indexed"
        spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode
        spec.successPolicy: Invalid value: {}: requires indexed completion mode
        spec.template.spec.restartPolicy: Unsupported value: "x": supported values: "Always", "OnFailure", "Never"
        spec.template.spec.restartPolicy: Unsupported value: "x": supported values: "OnFailure", "Never"
    "#]],
    );
    update(
        "batch",
        "jobs",
        &job("", "Never"),
        &job(r#""completions":2,"#, "OnFailure").replace(r#""image":"b""#, r#""image":"c""#),
        expect![[r#"
        spec.selector: Required value
        spec.completions: Invalid value: 2: field is immutable
        spec.selector: Invalid value: null: field is immutable
        spec.template: Invalid value: {"spec":{"restartPolicy":"OnFailure","containers":[{"name":"a","image":"c","imagePullPolicy":"Always","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","securityContext":{},"terminationGracePeriodSeconds":30,"schedulerName":"default-scheduler"}}: field is immutable
    "#]],
    );
    for (schedule, zone) in [
        ("61 * * * *", "Local"),
        ("* * *", ""),
        ("@never", "a b"),
        ("TZ=UTC * * * * *", "UTC"),
        ("5-1 * * * *", "UTC"),
        ("*/0 x * * *", "UTC"),
        ("@every 5m", "UTC"),
    ] {
        let found = {
            let kind = kind("batch", "cronjobs");
            let object = object(kind, &cron(&format!(r#""schedule":"{schedule}","timeZone":"{zone}","#)));
            lines(&kind.validate_create(&object))
        };
        let want = match schedule {
            "61 * * * *" => expect![[r#"
                spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61
                spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones
            "#]],
            "* * *" => expect![[r#"
                spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]
                spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string
            "#]],
            "@never" => expect![[r#"
                spec.schedule: Invalid value: "@never": unrecognized descriptor: @never
                spec.timeZone: Invalid value: "a b": unknown time zone a b
            "#]],
            "TZ=UTC * * * * *" => expect![[r#"
                spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead
                spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use both timeZone field and TZ or CRON_TZ in schedule
            "#]],
            "5-1 * * * *" => expect![[r#"
                spec.schedule: Invalid value: "5-1 * * * *": beginning of range (5) beyond end of range (1): 5-1
            "#]],
            "*/0 x * * *" => expect![[r#"
                spec.schedule: Invalid value: "*/0 x * * *": step of range should be a positive number: */0
            "#]],
            _ => expect![],
        };
        want.assert_eq(&found);
    }
}

#[test]
fn services_and_networks_say_what_is_wrong() {
    create(
        "",
        "services",
        r#"{"spec":{"type":"ClusterIP","clusterIP":"fd00::1","clusterIPs":["fd00::1","fd00::2","x"],"ipFamilies":["IPv4","IPv4","x"],"ipFamilyPolicy":"y","ports":[{"port":80}],
        "externalIPs":["127.0.0.1"],"loadBalancerClass":"a b","loadBalancerSourceRanges":["x"],"healthCheckNodePort":1,"trafficDistribution":"z","sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":90000}}}}"#,
        expect![[r#"
            spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000: must be greater than 0 and less than 86400
            spec.ipFamilyPolicy: Unsupported value: "y": supported values: "SingleStack", "PreferDualStack", "RequireDualStack"
            spec.ipFamilies[2]: Unsupported value: "x": supported values: "IPv4", "IPv6"
            spec.ipFamilies[1]: Duplicate value: "IPv4"
            spec.clusterIPs: Invalid value: ["fd00::1","fd00::2","x"]: may only hold up to 2 values
            spec.clusterIPs[0]: Invalid value: "fd00::1": expected an IPv4 value as indicated by `ipFamilies[0]`
            spec.clusterIPs[1]: Invalid value: "fd00::2": expected an IPv4 value as indicated by `ipFamilies[1]`
            spec.clusterIPs[2]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
            spec.loadBalancerSourceRanges[0]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'
            spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'
            spec.loadBalancerClass: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.healthCheckNodePort: Invalid value: 1: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'
            spec.trafficDistribution: Unsupported value: "z": supported values: "PreferClose", "PreferSameNode", "PreferSameZone"
        "#]],
    );
    create(
        "",
        "services",
        r#"{"spec":{"type":"ExternalName","externalName":"a.b","ipFamilyPolicy":"SingleStack","externalTrafficPolicy":"Local"}}"#,
        expect![[r#"
        spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services
        spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services
    "#]],
    );
    create(
        "networking.k8s.io",
        "networkpolicies",
        r#"{"spec":{"policyTypes":["x"],"ingress":[{"ports":[{"endPort":1},{"port":5,"endPort":1},{"port":"http","endPort":1,"protocol":"x"}],"from":[{"ipBlock":{}},{"ipBlock":{"cidr":"10.0.0.0/8","except":["11.0.0.0/16","x"]}}]}]}}"#,
        expect![[r#"
        spec.ingress[0].ports[0].port: Required value: must be specified when `endPort` is specified
        spec.ingress[0].ports[1].endPort: Invalid value: 1: must be greater than or equal to `port`
        spec.ingress[0].ports[2].protocol: Unsupported value: "x": supported values: "TCP", "UDP", "SCTP"
        spec.ingress[0].ports[2].endPort: Invalid value: 1: may not be specified when `port` is non-numeric
        spec.ingress[0].from[0].ipBlock.cidr: Required value
        spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`
        spec.ingress[0].from[1].ipBlock.except[1]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
        spec.policyTypes[0]: Unsupported value: "x": supported values: "Ingress", "Egress"
    "#]],
    );
    create(
        "networking.k8s.io",
        "ingressclasses",
        r#"{"spec":{"controller":"x","parameters":{"scope":"Namespace"}}}"#,
        expect![[r#"
        spec.controller: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")
        spec.parameters.kind: Required value
        spec.parameters.name: Required value
        spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'
    "#]],
    );
    create(
        "networking.k8s.io",
        "ingresses",
        r#"{"spec":{"tls":[{"hosts":["A"],"secretName":"B"}],"rules":[{"host":"10.0.0.1","http":{"paths":[{"path":"/a//b/..","pathType":"Exact","backend":{"service":{"name":"a","port":{"number":1}}}}]}}]}}"#,
        expect![[r#"
        spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address
        spec.rules[0].http.paths[0].path: Invalid value: "/a//b/..": must not contain '//'
        spec.rules[0].http.paths[0].path: Invalid value: "/a//b/..": cannot end with '/..'
        spec.tls[0].hosts[0]: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        spec.tls[0].secretName: Invalid value: "B": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
    "#]],
    );
    create(
        "autoscaling",
        "horizontalpodautoscalers",
        r#"{"spec":{"minReplicas":3,"maxReplicas":2,"targetCPUUtilizationPercentage":0}}"#,
        expect![[r#"
        spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`
        spec.scaleTargetRef.kind: Required value
        spec.scaleTargetRef.name: Required value
        spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0
    "#]],
    );
}

#[test]
fn workloads_say_what_is_wrong() {
    let set = |spec: &str| {
        format!(
            r#"{{"metadata":{{"name":"x"}},"spec":{{{spec}"selector":{{"matchLabels":{{"a":"b"}}}},"template":{{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[{{{CONTAINER}}}]}}}}}}}}"#
        )
    };
    create(
        "apps",
        "daemonsets",
        &set(r#""updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":1,"maxSurge":"101%"}},"#),
        expect![[r#"
        spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "101%": must not be greater than 100%
        spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "101%": may not be set when maxUnavailable is non-zero
    "#]],
    );
    create(
        "apps",
        "statefulsets",
        &set(
            r#""podManagementPolicy":"x","updateStrategy":{"type":"OnDelete","rollingUpdate":{}},"ordinals":{"start":-1},"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"x"},"#,
        ),
        expect![[r#"
        spec.podManagementPolicy: Invalid value: "x": must be 'OrderedReady' or 'Parallel'
        spec.updateStrategy.rollingUpdate: Invalid value: {}: only allowed for updateStrategy 'RollingUpdate'
        spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "x": supported values: "Retain", "Delete"
        spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0
    "#]],
    );
    let kind = kind("apps", "deployments");
    let status = |text: &str| object(kind, &format!(r#"{{"status":{text}}}"#));
    let new = status(r#"{"replicas":1,"updatedReplicas":2,"availableReplicas":1,"collisionCount":1}"#);
    let old = status(r#"{"collisionCount":2}"#);
    expect![[r#"
        status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas
        status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas
        status.collisionCount: Invalid value: 1: cannot be decremented
    "#]]
    .assert_eq(&lines(&kind.validate_subresource("status", &new, &old)));
}

#[test]
fn volumes_and_devices_say_what_is_wrong() {
    create(
        "",
        "persistentvolumes",
        r#"{"spec":{"capacity":{"storage":"0","cpu":"1"},"accessModes":["x","ReadWriteOncePod"],"local":{"path":"/a/../b"},"volumeMode":"x","volumeAttributesClassName":""}}"#,
        expect![[r#"
        spec.accessModes: Unsupported value: "x": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"
        spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes
        spec.capacity: Unsupported value: {"storage":"0","cpu":"1"}: supported values: "storage"
        spec.capacity[storage]: Invalid value: "0": must be greater than zero
        spec.nodeAffinity: Required value: Local volume requires node affinity
        spec.local.path: Invalid value: "/a/../b": must not contain '..'
        spec.volumeMode: Unsupported value: "x": supported values: "Block", "Filesystem"
        spec.volumeAttributesClassName: Required value: an empty string is disallowed
        spec.csi: Required value: has to be specified when using volumeAttributesClassName
    "#]],
    );
    let volume = r#"{"metadata":{"name":"x"},"spec":{"capacity":{"storage":"1"},"accessModes":["ReadWriteOnce"],"hostPath":{"path":"/a"}}}"#;
    update(
        "",
        "persistentvolumes",
        volume,
        &volume.replace("/a", "/b").replace(r#""hostPath""#, r#""volumeMode":"Block","hostPath""#),
        expect![[r#"
        spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation
        spec.volumeMode: Invalid value: "Block": field is immutable
    "#]],
    );
    create(
        "",
        "persistentvolumeclaims",
        r#"{"spec":{"resources":{"requests":{"storage":"0"}},"accessModes":["ReadWriteOncePod","ReadOnlyMany"],"dataSource":{"kind":"x"},"storageClassName":"A"}}"#,
        expect![[r#"
        spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes
        spec.resources[storage]: Invalid value: "0": must be greater than zero
        spec.storageClassName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        spec.dataSource.name: Required value
        spec.dataSource: Invalid value: "x": must be 'PersistentVolumeClaim' when referencing the default apiGroup
    "#]],
    );
    let claim = r#"{"metadata":{"name":"x"},"spec":{"resources":{"requests":{"storage":"2Gi"}},"accessModes":["ReadWriteOnce"]}}"#;
    update(
        "",
        "persistentvolumeclaims",
        claim,
        &claim.replace("2Gi", "1Gi"),
        expect![[r#"
        spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
    "#]],
    );
    create(
        "resource.k8s.io",
        "resourceclaims",
        r#"{"spec":{"devices":{"requests":[{"name":"A"},{"name":"b","exactly":{"allocationMode":"x","selectors":[{}],"tolerations":[{"operator":"Exists","value":"v"}]}},{"name":"b","exactly":{"deviceClassName":"c"},"firstAvailable":[{"name":"d"}]}],
        "constraints":[{"requests":["z","z"]},{"matchAttribute":"a"}],"config":[{"opaque":{"driver":"D","parameters":"x"}}]}}}"#,
        expect![[r#"
            spec.devices.requests[0].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required
            spec.devices.requests[1].exactly.deviceClassName: Required value
            spec.devices.requests[1].exactly.selectors[0].cel: Required value
            spec.devices.requests[1].exactly.allocationMode: Unsupported value: "x": supported values: "All", "ExactCount"
            spec.devices.requests[1].exactly.tolerations[0].value: Invalid value: "v": must be empty for operator `Exists`
            spec.devices.requests[2]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set
            spec.devices.requests[2]: Duplicate value: "b"
            spec.devices.constraints[0].requests[0]: Invalid value: "z": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'
            spec.devices.constraints[0].requests[1]: Invalid value: "z": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'
            spec.devices.constraints[0].requests[1]: Duplicate value: "z"
            spec.devices.constraints[0]: Required value: exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set
            spec.devices.constraints[1].matchAttribute: Invalid value: "a": must include a domain
            spec.devices.config[0].opaque.driver: Invalid value: "D": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.devices.config[0].opaque.parameters: Invalid value: "x": parameters must be a valid JSON object
        "#]],
    );
    create(
        "resource.k8s.io",
        "deviceclasses",
        r#"{"spec":{"selectors":[{}],"config":[{}],"extendedResourceName":"x"}}"#,
        expect![[r#"
        spec.selectors[0].cel: Required value
        spec.config[0].opaque: Required value
        spec.extendedResourceName: Invalid value: "x": must be a valid extended resource name
    "#]],
    );
    create(
        "resource.k8s.io",
        "resourceslices",
        r#"{"spec":{"driver":"","nodeName":"n","allNodes":false,"perDeviceNodeSelection":true,"pool":{"name":"A","generation":-1},"devices":[{"name":"d","nodeName":"n","allNodes":true,"attributes":{"a-b":{},"c":{"version":"1"}},"capacity":{"m":{"value":"1","requestPolicy":{}}},"taints":[{"key":"k","effect":"x"}]},{"name":"d"}]}}"#,
        expect![[r#"
        spec.driver: Required value
        spec.pool.name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero
        spec.pool.generation: Invalid value: -1: must be greater than or equal to zero
        spec.allNodes: Invalid value: false: must be either unset or set to true
        spec: Invalid value: "{`nodeName`, `perDeviceNodeSelection`}": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set
        spec.devices[0].attributes[a-b]: Invalid value: "a-b": a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')
        spec.devices[0].attributes[a-b]: Invalid value: "": exactly one value must be specified
        spec.devices[0].attributes[c].version: Invalid value: "1": must be a string compatible with semver.org spec 2.0.0
        spec.devices[0].capacity[m].requestPolicy: Forbidden: allowMultipleAllocations must be true
        spec.devices[0].taints[0].effect: Unsupported value: "x": supported values: "NoExecute", "NoSchedule", "None"
        spec.devices[0]: Invalid value: "{`nodeName`, `allNodes`}": exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec
        spec.devices[1]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec
        spec.devices[1]: Duplicate value: "d"
    "#]],
    );
    update(
        "resource.k8s.io",
        "resourceclaims",
        r#"{"spec":{"devices":{"requests":[{"name":"a","exactly":{"deviceClassName":"c"}}]}}}"#,
        r#"{"spec":{}}"#,
        expect![[r#"
        spec: Invalid value: {}: field is immutable
    "#]],
    );
}
