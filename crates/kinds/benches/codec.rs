//! What it costs to read and write a pod: `cargo bench -p skiff-kinds`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use skiff_object::{Tree, json, protobuf, yaml};

/// A pod as a Deployment makes it: three containers with probes, environment, mounts, a status.
fn pod() -> Tree {
    let container = |name: &str| {
        format!(
            r#"{{"name":"{name}","image":"registry.example.com/team/{name}:v1.2.3","command":["/bin/server"],
            "args":["--listen=:8080","--log-level=info"],"ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}}],
            "env":[{{"name":"POD_IP","valueFrom":{{"fieldRef":{{"apiVersion":"v1","fieldPath":"status.podIP"}}}}}},
            {{"name":"MODE","value":"production"}},{{"name":"TOKEN","valueFrom":{{"secretKeyRef":{{"name":"tokens","key":"api"}}}}}}],
            "resources":{{"limits":{{"cpu":"500m","memory":"256Mi"}},"requests":{{"cpu":"100m","memory":"128Mi"}}}},
            "volumeMounts":[{{"name":"config","mountPath":"/etc/config"}},
            {{"name":"kube-api-access","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}}],
            "livenessProbe":{{"httpGet":{{"path":"/healthz","port":"http","scheme":"HTTP"}},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3}},
            "readinessProbe":{{"httpGet":{{"path":"/ready","port":8080,"scheme":"HTTP"}},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3}},
            "terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent",
            "securityContext":{{"capabilities":{{"drop":["ALL"]}},"runAsNonRoot":true,"readOnlyRootFilesystem":true,"allowPrivilegeEscalation":false}}}}"#
        )
    };
    let status = |name: &str| {
        format!(
            r#"{{"name":"{name}","state":{{"running":{{"startedAt":"2026-11-22T10:00:05Z"}}}},"lastState":{{}},"ready":true,"restartCount":0,
            "image":"registry.example.com/team/{name}:v1.2.3","imageID":"registry.example.com/team/{name}@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "containerID":"skiff://0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","started":true}}"#
        )
    };
    let condition = |name: &str| {
        format!(
            r#"{{"type":"{name}","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-11-22T10:00:06Z"}}"#
        )
    };
    let names = ["app", "proxy", "metrics"];
    let text = format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"web-7d4b9c8f5-x2x9z","generateName":"web-7d4b9c8f5-","namespace":"default",
        "uid":"3f1b8f3e-8c1f-4a57-9a52-0c7e4c7b9d11","resourceVersion":"123456","creationTimestamp":"2026-11-22T10:00:00Z",
        "labels":{{"app":"web","pod-template-hash":"7d4b9c8f5","tier":"frontend"}},"annotations":{{"example.com/build":"1234","example.com/owner":"team-a"}},
        "ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7d4b9c8f5","uid":"0f2d2b32-7a35-4be4-8d6c-3a6f0f0c6f52","controller":true,"blockOwnerDeletion":true}}]}},
        "spec":{{"volumes":[{{"name":"config","configMap":{{"name":"web","defaultMode":420}}}},{{"name":"kube-api-access","projected":{{"sources":[
        {{"serviceAccountToken":{{"expirationSeconds":3607,"path":"token"}}}},{{"configMap":{{"name":"kube-root-ca.crt","items":[{{"key":"ca.crt","path":"ca.crt"}}]}}}}],"defaultMode":420}}}}],
        "containers":[{}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","serviceAccount":"default",
        "nodeName":"node-1","securityContext":{{}},"schedulerName":"default-scheduler","tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}},
        {{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}],"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority"}},
        "status":{{"phase":"Running","conditions":[{}],"hostIP":"10.89.0.2","hostIPs":[{{"ip":"10.89.0.2"}}],"podIP":"10.244.0.17","podIPs":[{{"ip":"10.244.0.17"}}],
        "startTime":"2026-11-22T10:00:00Z","containerStatuses":[{}],"qosClass":"Burstable"}}}}"#,
        names.map(container).join(","),
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
            .map(condition)
            .join(","),
        names.map(status).join(","),
    );
    let ty = skiff_kinds::type_of("v1", "Pod").expect("pods are built in");
    let (tree, issues) = json::decode(text.as_bytes(), skiff_kinds::schema(), ty).expect("well-formed");
    assert!(issues.is_empty(), "{issues}");
    tree
}

fn codec(c: &mut Criterion) {
    let schema = skiff_kinds::schema();
    let ty = skiff_kinds::type_of("v1", "Pod").expect("pods are built in");
    let tree = pod();
    let text = json::encode(&tree, schema, ty);
    let message = protobuf::encode(&tree, schema, ty);
    let yaml_text = yaml::encode_untyped(&tree);

    let mut group = c.benchmark_group(format!("pod of {} bytes", text.len()));
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("json decode", |b| b.iter(|| json::decode(black_box(&text), schema, ty)));
    group.bench_function("json decode untyped", |b| b.iter(|| json::decode_untyped(black_box(&text))));
    group.bench_function("json encode", |b| b.iter(|| json::encode(black_box(&tree), schema, ty)));
    group.bench_function("protobuf decode", |b| b.iter(|| protobuf::decode(black_box(&message), schema, ty)));
    group.bench_function("protobuf encode", |b| b.iter(|| protobuf::encode(black_box(&tree), schema, ty)));
    group.bench_function("yaml decode", |b| b.iter(|| yaml::decode(black_box(&yaml_text), schema, ty)));
    group.bench_function("clone", |b| b.iter(|| black_box(&tree).clone()));
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
