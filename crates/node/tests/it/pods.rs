//! Pods from the API to running and away.

use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Node, Pod};
use serde_json::json;
use skiff_client::{DeleteOptions, Patch};

use crate::cluster::{Cluster, holds, phase};

fn container(pod: &Pod, index: usize) -> ContainerStatus {
    pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[index].clone()
}

/// Why the first container waits; empty when it does not, or nothing is known of it.
fn waiting(pod: &Pod) -> String {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut waiting = statuses.filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    waiting.next().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_and_goes_away() {
    let cluster = Cluster::start().await;
    let node: Node = cluster.get("", "node").await;
    let ready = node.status.unwrap().conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready");
    assert_eq!(ready.unwrap().status, "True");

    cluster.create("web", json!({"containers": [{"name": "app", "image": "i:1", "command": ["run"]}]})).await;
    let pod = cluster.until("web", |pod| phase(pod) == "Running" && holds(pod, "Ready")).await;
    let status = pod.status.clone().unwrap();
    assert!(status.pod_ip.unwrap().starts_with("10.244."));
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let app = container(&pod, 0);
    assert!(app.ready && app.started == Some(true) && app.restart_count == 0);
    assert!(app.container_id.unwrap().starts_with("skiff://"));
    let reasons = cluster.events("web", "Started").await;
    assert!(["Pulled", "Created"].iter().all(|reason| reasons.iter().any(|known| known == reason)), "{reasons:?}");

    cluster.client.delete::<Pod>("default", "web", &DeleteOptions::default()).await.unwrap();
    cluster.gone("web").await;
    cluster.emptied().await;
    assert_eq!(std::fs::read_dir(cluster.dir.path().join("data/pods")).unwrap().count(), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_restart_and_back_off() {
    let cluster = Cluster::start().await;
    cluster.create("crash", json!({"containers": [{"name": "app", "image": "i:1", "command": ["exit", "3"]}]})).await;
    let pod = cluster.until("crash", |pod| waiting(pod) == "CrashLoopBackOff").await;
    let app = container(&pod, 0);
    assert_eq!(app.restart_count, 1);
    assert_eq!(app.last_state.unwrap().terminated.unwrap().exit_code, 3);
    assert_eq!(phase(&pod), "Running");
    cluster.events("crash", "BackOff").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_end_as_their_containers_do() {
    let cluster = Cluster::start().await;
    let one = |policy: &str, code: &str| json!({"restartPolicy": policy, "containers": [{"name": "app", "image": "i:1", "command": ["exit", code]}]});
    cluster.create("good", one("OnFailure", "0")).await;
    cluster.create("bad", one("Never", "2")).await;
    let good = cluster.until("good", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(container(&good, 0).state.unwrap().terminated.unwrap().reason.as_deref(), Some("Completed"));
    let bad = cluster.until("bad", |pod| phase(pod) == "Failed").await;
    assert_eq!(container(&bad, 0).state.unwrap().terminated.unwrap().exit_code, 2);
    assert!(!holds(&bad, "Ready"));
    cluster.client.delete::<Pod>("default", "bad", &DeleteOptions::default()).await.unwrap();
    cluster.gone("bad").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_kubelet_adopts_what_runs() {
    let mut cluster = Cluster::start().await;
    cluster.create("stay", json!({"containers": [{"name": "app", "image": "i:1", "command": ["run"]}]})).await;
    cluster.until("stay", |pod| holds(pod, "Ready")).await;
    let (first, _) = cluster.runtime.container("app").unwrap();
    cluster.runtime.end(&first, 1);
    let before = cluster.until("stay", |pod| container(pod, 0).restart_count == 1 && holds(pod, "Ready")).await;
    cluster.restart_kubelet().await;
    cluster
        .client
        .patch::<Pod>("default", "stay", &Patch::Merge(json!({"metadata": {"labels": {"seen": "again"}}})))
        .await
        .unwrap();
    // The new kubelet is at work once it starts another pod.
    cluster.create("next", json!({"containers": [{"name": "other", "image": "i:1", "command": ["run"]}]})).await;
    cluster.until("next", |pod| holds(pod, "Ready")).await;
    let after: Pod = cluster.get("default", "stay").await;
    assert_eq!(container(&after, 0), container(&before, 0));
    let starts = cluster.runtime.state.lock().journal.iter().filter(|line| *line == "start stay/app").count();
    assert_eq!(starts, 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_containers_sidecars_and_apps_keep_their_order() {
    let cluster = Cluster::start().await;
    cluster
        .create(
            "order",
            json!({
                "terminationGracePeriodSeconds": 5,
                "initContainers": [
                    {"name": "first", "image": "i:1", "command": ["exit", "0"]},
                    {"name": "side", "image": "i:1", "command": ["run"], "restartPolicy": "Always"},
                    {"name": "second", "image": "i:1", "command": ["exit", "0"]},
                ],
                "containers": [{"name": "app", "image": "i:1", "command": ["run"]}],
            }),
        )
        .await;
    let pod = cluster.until("order", |pod| holds(pod, "Ready")).await;
    assert!(holds(&pod, "Initialized"));
    cluster.client.delete::<Pod>("default", "order", &DeleteOptions::default()).await.unwrap();
    cluster.gone("order").await;
    cluster.emptied().await;
    let journal = cluster.runtime.state.lock().journal.clone();
    let want = [
        "start order/first",
        "start order/side",
        "start order/second",
        "start order/app",
        "stop order/app",
        "stop order/side",
    ];
    assert_eq!(journal, want);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_and_volumes_follow_their_config_map() {
    let cluster = Cluster::start().await;
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "conf", "namespace": "default"}, "data": {"key": "one"}}))
            .unwrap();
    let spec = json!({
        "containers": [{
            "name": "app", "image": "i:1", "command": ["run", "$(KEY)"],
            "env": [{"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "key"}}}],
            "volumeMounts": [{"name": "conf", "mountPath": "/conf"}],
        }],
        "volumes": [{"name": "conf", "configMap": {"name": "conf"}}],
    });
    // The pod waits for the object and goes on as soon as it is there.
    cluster.create("conf", spec).await;
    cluster.events("conf", "FailedMount").await;
    cluster.client.create(&map).await.unwrap();
    cluster.until("conf", |pod| holds(pod, "Ready")).await;
    let (_, app) = cluster.runtime.container("app").unwrap();
    assert_eq!(app.config.command, ["run", "one"]);
    let mount = app.config.mounts.iter().find(|mount| mount.container_path == "/conf").unwrap();
    let file = std::path::Path::new(&mount.host_path).join("key");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");
    let patch = Patch::Merge(json!({"data": {"key": "two"}}));
    cluster.client.patch::<ConfigMap>("default", "conf", &patch).await.unwrap();
    let changed = async {
        while std::fs::read_to_string(&file).unwrap() != "two" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), changed).await.expect("the file follows the object");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_decide_readiness_and_life() {
    let cluster = Cluster::start().await;
    cluster.runtime.state.lock().health.insert("app".into(), 1);
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1});
    cluster
        .create(
            "probed",
            json!({"containers": [{"name": "app", "image": "i:1", "command": ["run"], "readinessProbe": probe}]}),
        )
        .await;
    cluster.events("probed", "Unhealthy").await;
    // The event and the status are written by different tasks.
    cluster.until("probed", |pod| phase(pod) == "Running").await;
    let pod: Pod = cluster.get("default", "probed").await;
    assert!(!holds(&pod, "Ready"));
    cluster.runtime.state.lock().health.insert("app".into(), 0);
    cluster.until("probed", |pod| holds(pod, "Ready")).await;

    cluster
        .create(
            "mortal",
            json!({"containers": [{"name": "frail", "image": "i:1", "command": ["run"], "livenessProbe": probe}]}),
        )
        .await;
    cluster.until("mortal", |pod| holds(pod, "Ready")).await;
    cluster.runtime.state.lock().health.insert("frail".into(), 1);
    cluster.until("mortal", |pod| container(pod, 0).restart_count == 1).await;
    cluster.events("mortal", "Killing").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_to_start_say_why() {
    let cluster = Cluster::start().await;
    cluster.create("pull", json!({"containers": [{"name": "app", "image": "absent:1"}]})).await;
    cluster.until("pull", |pod| waiting(pod) == "ErrImagePull").await;
    cluster.until("pull", |pod| waiting(pod) == "ImagePullBackOff").await;
    cluster.create("name", json!({"containers": [{"name": "app", "image": "Not An Image"}]})).await;
    cluster.until("name", |pod| waiting(pod) == "InvalidImageName").await;
    let env = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]);
    cluster.create("env", json!({"containers": [{"name": "app", "image": "i:1", "env": env}]})).await;
    let pod = cluster.until("env", |pod| waiting(pod) == "CreateContainerConfigError").await;
    let message = container(&pod, 0).state.unwrap().waiting.unwrap().message.unwrap();
    assert_eq!(message, "secret \"none\" not found");
    let huge = json!({"requests": {"cpu": "100000"}});
    cluster.create("huge", json!({"containers": [{"name": "app", "image": "i:1", "resources": huge}]})).await;
    let pod = cluster.until("huge", |pod| phase(pod) == "Failed").await;
    assert_eq!(pod.status.unwrap().reason.as_deref(), Some("OutOfcpu"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components_are_mirror_pods() {
    let cluster = Cluster::start().await;
    let find = async {
        loop {
            if let Some(pod) = cluster.client.find::<Pod>("kube-system", "kube-scheduler-node").await.unwrap()
                && phase(&pod) == "Running"
            {
                return pod;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let pod = tokio::time::timeout(std::time::Duration::from_secs(10), find).await.unwrap();
    assert!(pod.metadata.annotations.unwrap().contains_key("kubernetes.io/config.mirror"));
    cluster.stop().await;
}
