//! The controllers against the real API server, under paused time.

mod sim;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use serde_json::{Value, json};
use sim::Cluster;
use skiff_client::{DeleteOptions, Patch, Propagation};

fn container(command: &str) -> Value {
    json!({"name": "c", "image": "i", "command": [command]})
}

fn deployment(name: &str, replicas: i32, command: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container(command)]}},
        },
    })
}

async fn rolled_out(cluster: &Cluster, name: &str, replicas: i32) -> Deployment {
    cluster
        .until(
            "the deployment is rolled out",
            || async { cluster.client.get::<Deployment>("default", name).await.expect("a deployment") },
            |deployment| {
                let status = deployment.status.clone().unwrap_or_default();
                status.observed_generation >= deployment.metadata.generation
                    && status.updated_replicas == Some(replicas)
                    && status.replicas == Some(replicas)
                    && status.available_replicas == Some(replicas)
            },
        )
        .await
}

#[tokio::test(start_paused = true)]
async fn a_deployment_rolls_out_updates_and_rolls_back() {
    let cluster = Cluster::start(&["n1", "n2"]).await;
    cluster.apply::<Deployment>(deployment("web", 3, "one")).await;
    let first = rolled_out(&cluster, "web", 3).await;
    assert_eq!(revision(&first), "1");

    let image =
        |command: &str| Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [container(command)]}}}}));
    cluster.client.patch::<Deployment>("default", "web", &image("two")).await.unwrap();
    let second = rolled_out(&cluster, "web", 3).await;
    assert_eq!(revision(&second), "2");
    assert_eq!(cluster.names::<ReplicaSet>("default").await.len(), 2);

    cluster.client.patch::<Deployment>("default", "web", &image("one")).await.unwrap();
    let third = rolled_out(&cluster, "web", 3).await;
    assert_eq!(revision(&third), "3");
    assert_eq!(cluster.names::<ReplicaSet>("default").await.len(), 2);
    let scale = Patch::Merge(json!({"spec": {"replicas": 10}}));
    cluster.client.patch::<Deployment>("default", "web", &scale).await.unwrap();
    rolled_out(&cluster, "web", 10).await;
    let progressing = third.status.unwrap().conditions.unwrap().into_iter().find(|c| c.type_ == "Progressing").unwrap();
    assert_eq!((progressing.status.as_str(), progressing.reason.as_deref()), ("True", Some("NewReplicaSetAvailable")));
    cluster.stop().await;
}

fn revision(deployment: &Deployment) -> String {
    deployment.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_stuck_rollout_exceeds_its_deadline() {
    let cluster = Cluster::start(&["n1"]).await;
    let mut stuck = deployment("stuck", 1, "never-ready");
    stuck["spec"]["progressDeadlineSeconds"] = json!(30);
    cluster.apply::<Deployment>(stuck).await;
    cluster
        .until(
            "the deadline is told",
            || async { cluster.client.get::<Deployment>("default", "stuck").await.unwrap().status.unwrap_or_default() },
            |status| {
                let mut conditions = status.conditions.iter().flatten();
                conditions.any(|c| c.reason.as_deref() == Some("ProgressDeadlineExceeded") && c.status == "False")
            },
        )
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn deletion_propagates_as_asked() {
    let cluster = Cluster::start(&["n1"]).await;
    for (name, propagation) in
        [("bg", Propagation::Background), ("fg", Propagation::Foreground), ("orphan", Propagation::Orphan)]
    {
        cluster.apply::<Deployment>(deployment(name, 2, "run")).await;
        rolled_out(&cluster, name, 2).await;
        let options = DeleteOptions::default().propagation(propagation);
        cluster.client.delete::<Deployment>("default", name, &options).await.unwrap();
        cluster
            .until(
                "the deployment is gone",
                || async { cluster.client.find::<Deployment>("default", name).await.unwrap() },
                Option::is_none,
            )
            .await;
        let expected = if propagation == Propagation::Orphan { 1 } else { 0 };
        cluster
            .until("its sets follow", || cluster.names::<ReplicaSet>("default"), |sets| sets.len() == expected)
            .await;
        cluster.until("its pods follow", || cluster.names::<Pod>("default"), |pods| pods.len() == expected * 2).await;
    }
    let sets = cluster.client.list_all::<ReplicaSet>("default", &Default::default()).await.unwrap();
    assert!(sets[0].metadata.owner_references.as_ref().is_none_or(Vec::is_empty));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_comes_with_its_objects_and_goes_with_all_of_them() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.apply::<Namespace>(json!({"metadata": {"name": "team"}})).await;
    cluster
        .until("the default account", || cluster.names::<ServiceAccount>("team"), |names| names == &["default"])
        .await;
    cluster.until("the root CA", || cluster.names::<ConfigMap>("team"), |names| names == &["kube-root-ca.crt"]).await;
    let mut web = deployment("web", 2, "run");
    web["metadata"]["namespace"] = json!("team");
    cluster.apply::<Deployment>(web).await;
    cluster.until("pods run", || cluster.running("team"), |pods| pods.len() == 2).await;
    cluster.client.delete::<Namespace>("", "team", &DeleteOptions::default()).await.unwrap();
    cluster
        .until(
            "the namespace is gone",
            || async { cluster.client.find::<Namespace>("", "team").await.unwrap() },
            Option::is_none,
        )
        .await;
    assert!(cluster.names::<Pod>("team").await.is_empty());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_finds_its_pods() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.apply::<Deployment>(deployment("web", 3, "run")).await;
    cluster
        .apply::<Service>(json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }))
        .await;
    let count = |slices: &Vec<EndpointSlice>| {
        let web = slices.iter().filter(|slice| {
            slice
                .metadata
                .labels
                .as_ref()
                .is_some_and(|labels| labels.get("kubernetes.io/service-name").is_some_and(|n| n == "web"))
        });
        web.flat_map(|slice| slice.endpoints.iter().flatten())
            .filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)))
            .count()
    };
    let slices = || async { cluster.client.list_all::<EndpointSlice>("default", &Default::default()).await.unwrap() };
    cluster.until("three endpoints", slices, |slices| count(slices) == 3).await;
    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    cluster.client.patch::<Deployment>("default", "web", &scale).await.unwrap();
    cluster.until("one endpoint", slices, |slices| count(slices) == 1).await;
    let subsets =
        || async { cluster.client.get::<Endpoints>("default", "web").await.unwrap().subsets.unwrap_or_default() };
    cluster
        .until("the older form", subsets, |subsets| {
            subsets.len() == 1 && subsets[0].addresses.as_ref().is_some_and(|addresses| addresses.len() == 1)
        })
        .await;
    cluster.client.delete::<Service>("default", "web", &DeleteOptions::default()).await.unwrap();
    cluster.until("no slices", slices, |slices| count(slices) == 0).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_covers_every_node() {
    let cluster = Cluster::start(&["n1", "n2", "n3"]).await;
    let daemon = |command: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "d", "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": {"app": "d"}},
                "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [container(command)]}},
            },
        })
    };
    cluster.apply::<DaemonSet>(daemon("one")).await;
    let status = || async { cluster.client.get::<DaemonSet>("default", "d").await.unwrap().status.unwrap_or_default() };
    cluster.until("three run", status, |status| status.number_available == Some(3)).await;
    let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [container("two")]}}}}));
    cluster.client.patch::<DaemonSet>("default", "d", &patch).await.unwrap();
    cluster
        .until("three are updated", status, |status| {
            status.observed_generation == Some(2)
                && status.updated_number_scheduled == Some(3)
                && status.number_available == Some(3)
        })
        .await;
    cluster.stop().await;
}

fn job(name: &str, command: &str, spec: Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container(command)]}}},
    });
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    job
}

async fn ended(cluster: &Cluster, name: &str) -> Job {
    cluster
        .until(
            "the job ends",
            || async { cluster.client.get::<Job>("default", name).await.unwrap() },
            |job| {
                let conditions = job.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
                conditions.iter().any(|c| matches!(c.type_.as_str(), "Complete" | "Failed"))
            },
        )
        .await
}

#[tokio::test(start_paused = true)]
async fn jobs_end_and_are_cleaned_up() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.apply::<Job>(job("good", "succeed", json!({"completions": 5, "parallelism": 2}))).await;
    let good = ended(&cluster, "good").await.status.unwrap();
    assert_eq!((good.succeeded, good.failed, good.active), (Some(5), None, None));
    assert!(good.completion_time.is_some());

    cluster.apply::<Job>(job("bad", "fail", json!({"backoffLimit": 2}))).await;
    let bad = ended(&cluster, "bad").await.status.unwrap();
    assert_eq!((bad.succeeded, bad.failed), (None, Some(3)));

    let indexed =
        json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "ttlSecondsAfterFinished": 5});
    cluster.apply::<Job>(job("indexed", "succeed", indexed)).await;
    let status = ended(&cluster, "indexed").await.status.unwrap();
    assert_eq!((status.succeeded, status.completed_indexes.as_deref()), (Some(3), Some("0-2")));
    cluster
        .until(
            "the job expires",
            || async { cluster.client.find::<Job>("default", "indexed").await.unwrap() },
            Option::is_none,
        )
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_keeps_names_and_order() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster
        .apply::<StatefulSet>(json!({
            "metadata": {"name": "db", "namespace": "default"},
            "spec": {
                "replicas": 3, "serviceName": "db",
                "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [container("one")]}},
            },
        }))
        .await;
    let status =
        || async { cluster.client.get::<StatefulSet>("default", "db").await.unwrap().status.unwrap_or_default() };
    cluster.until("three are ready", status, |status| status.ready_replicas == Some(3)).await;
    assert_eq!(cluster.names::<Pod>("default").await, ["db-0", "db-1", "db-2"]);
    let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [container("two")]}}}}));
    cluster.client.patch::<StatefulSet>("default", "db", &patch).await.unwrap();
    cluster
        .until("three are updated", status, |status| {
            status.observed_generation == Some(2)
                && status.updated_replicas == Some(3)
                && status.ready_replicas == Some(3)
                && status.current_revision == status.update_revision
        })
        .await;
    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    cluster.client.patch::<StatefulSet>("default", "db", &scale).await.unwrap();
    cluster.until("one is left", || cluster.names::<Pod>("default"), |names| names == &["db-0"]).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_starts_jobs_and_keeps_a_short_history() {
    let cluster = Cluster::start(&["n1"]).await;
    let template = job("tick", "succeed", json!({}))["spec"].clone();
    cluster
        .apply::<CronJob>(json!({
            "metadata": {"name": "tick", "namespace": "default"},
            "spec": {"schedule": "*/1 * * * *", "successfulJobsHistoryLimit": 2, "jobTemplate": {"spec": template}},
        }))
        .await;
    let newest = || async { cluster.names::<Job>("default").await.last().cloned().unwrap_or_default() };
    cluster.until("the fifth start", newest, |name| name == "tick-30000005").await;
    cluster.until("two are kept", || cluster.names::<Job>("default"), |names| names.len() == 2).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disruption_budget_limits_evictions() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.apply::<Deployment>(deployment("web", 2, "run")).await;
    cluster
        .apply::<PodDisruptionBudget>(json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}},
        }))
        .await;
    let allowed = || async {
        let budget = cluster.client.get::<PodDisruptionBudget>("default", "web").await.unwrap();
        budget.status.and_then(|status| status.disruptions_allowed)
    };
    rolled_out(&cluster, "web", 2).await;
    cluster.until("none may go", allowed, |allowed| *allowed == Some(0)).await;
    let name = cluster.names::<Pod>("default").await.remove(0);
    let options = DeleteOptions::default();
    let evict = || cluster.client.evict("default", &name, &options);
    let refused = evict().await.unwrap_err();
    assert!(refused.is_too_many_requests(), "{refused}");
    let scale = Patch::Merge(json!({"spec": {"replicas": 3}}));
    cluster.client.patch::<Deployment>("default", "web", &scale).await.unwrap();
    cluster.until("one may go", allowed, |allowed| *allowed == Some(1)).await;
    evict().await.unwrap();
    cluster.until("it is gone", || cluster.names::<Pod>("default"), |names| !names.contains(&name)).await;
    cluster.until("one may go again", allowed, |allowed| *allowed == Some(1)).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pods_leave_a_node_that_falls_silent() {
    let cluster = Cluster::start(&["n1", "n2"]).await;
    cluster.apply::<Deployment>(deployment("web", 4, "run")).await;
    rolled_out(&cluster, "web", 4).await;
    cluster.silence("n1");
    let node = || async { cluster.client.get::<Node>("", "n1").await.unwrap() };
    cluster
        .until("the node is unknown and tainted", node, |node| {
            let ready = node.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == "Ready");
            let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            ready.is_some_and(|ready| ready.status == "Unknown")
                && taints.filter(|taint| taint.key == "node.kubernetes.io/unreachable").count() == 2
        })
        .await;
    let evicted = || async {
        let pods = cluster.client.list_all::<Pod>("default", &Default::default()).await.unwrap();
        pods.iter().filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some("n1"))).count()
    };
    let _ = cluster.until("its pods go", evicted, |count| *count < 4).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn quotas_are_counted_and_token_secrets_filled() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.until("the account", || cluster.names::<ServiceAccount>("default"), |names| !names.is_empty()).await;
    cluster
        .apply::<ResourceQuota>(json!({
            "metadata": {"name": "q", "namespace": "default"},
            "spec": {"hard": {"pods": "10", "count/configmaps": "10", "requests.cpu": "2"}},
        }))
        .await;
    let mut web = deployment("web", 2, "run");
    web["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}});
    cluster.apply::<Deployment>(web).await;
    let used = || async {
        let quota = cluster.client.get::<ResourceQuota>("default", "q").await.unwrap();
        let used = quota.status.and_then(|status| status.used).unwrap_or_default();
        used.into_iter().map(|(name, amount)| format!("{name}={}", amount.0)).collect::<Vec<_>>()
    };
    cluster.until("the usage", used, |used| used == &["count/configmaps=1", "pods=2", "requests.cpu=200m"]).await;
    cluster
        .apply::<Secret>(json!({
            "metadata": {"name": "t", "namespace": "default",
                "annotations": {"kubernetes.io/service-account.name": "default"}},
            "type": "kubernetes.io/service-account-token",
        }))
        .await;
    let token = || async { cluster.client.get::<Secret>("default", "t").await.unwrap().data.unwrap_or_default() };
    cluster.until("the token", token, |data| data.contains_key("token") && data.contains_key("ca.crt")).await;
    cluster.stop().await;
}

/// What a node without a certificate asks for, made by `user`.
async fn ask_for_certificate(cluster: &Cluster, name: &str, user: &str, groups: &[&str]) {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n9");
    let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let request: Vec<u8> = pem.replace("\r\n", "\n").into_bytes();
    let mut object = CertificateSigningRequest::default();
    object.metadata.name = Some(name.into());
    object.spec.request = k8s_openapi::ByteString(request);
    object.spec.signer_name = "kubernetes.io/kube-apiserver-client-kubelet".into();
    object.spec.usages = Some(vec!["digital signature".into(), "client auth".into()]);
    object.spec.expiration_seconds = Some(3_600);
    cluster.client_of(user, groups).create(&object).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn kubelets_get_their_certificates_when_they_may_ask_for_them() {
    let cluster = Cluster::start(&[]).await;
    let bind = async |name: &str, role: &str, subject: &str| {
        cluster
            .apply::<ClusterRoleBinding>(json!({
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": subject}],
            }))
            .await;
    };
    for group in ["system:bootstrappers", "system:nodes"] {
        bind(group, "system:node-bootstrapper", group).await;
    }
    let bootstrappers = ["system:bootstrappers", "system:authenticated"];
    ask_for_certificate(&cluster, "early", "system:bootstrap:abcdef", &bootstrappers).await;
    let conditions = |request: &CertificateSigningRequest| {
        let conditions = request.status.clone().and_then(|status| status.conditions).unwrap_or_default();
        conditions
            .iter()
            .map(|one| format!("{} {}", one.type_, one.reason.clone().unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    cluster.clock.sleep(std::time::Duration::from_secs(30)).await;
    let early = cluster.client.get::<CertificateSigningRequest>("", "early").await.unwrap();
    assert_eq!(conditions(&early), [] as [String; 0], "nobody has said that they may");
    for (name, subject) in [("nodeclient", "system:bootstrappers"), ("selfnodeclient", "system:nodes")] {
        bind(name, &format!("system:certificates.k8s.io:certificatesigningrequests:{name}"), subject).await;
    }
    let nodes = ["system:nodes", "system:authenticated"];
    ask_for_certificate(&cluster, "renewal", "system:node:n9", &nodes).await;
    ask_for_certificate(&cluster, "another", "system:node:n8", &nodes).await;
    for (name, how) in [("early", "Auto approving kubelet"), ("renewal", "Auto approving self kubelet")] {
        let signed = cluster
            .until(
                "the certificate is signed",
                || async { cluster.client.get::<CertificateSigningRequest>("", name).await.expect("a request") },
                |request| request.status.as_ref().is_some_and(|status| status.certificate.is_some()),
            )
            .await;
        assert_eq!(conditions(&signed), ["Approved AutoApproved"]);
        let status = signed.status.unwrap();
        let message = status.conditions.unwrap()[0].message.clone().unwrap();
        assert!(message.starts_with(how), "{message}");
        let certificate = String::from_utf8(status.certificate.unwrap().0).unwrap();
        assert!(certificate.contains("digital signature and client auth for Some(3600)"), "{certificate}");
    }
    // A node does not ask for another one's certificate.
    cluster.clock.sleep(std::time::Duration::from_secs(120)).await;
    let another = cluster.client.get::<CertificateSigningRequest>("", "another").await.unwrap();
    assert_eq!(conditions(&another), [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn bootstrap_tokens_sign_the_cluster_info_until_they_are_over() {
    let cluster = Cluster::start(&[]).await;
    cluster
        .apply::<ConfigMap>(json!({
            "metadata": {"name": "cluster-info", "namespace": "kube-public"},
            "data": {"kubeconfig": "clusters: []", "jws-kubeconfig-zzzzzz": "of a token that is gone"},
        }))
        .await;
    let end = cluster.clock.now().plus(std::time::Duration::from_secs(600));
    let end = skiff_object::time::Time::from_nanos(end.as_nanos()).rfc3339();
    for (id, more) in [("abcdef", json!({})), ("ghijkl", json!({"expiration": end}))] {
        let mut data = json!({"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true"});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        cluster
            .apply::<Secret>(json!({
                "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
                "type": "bootstrap.kubernetes.io/token", "stringData": data,
            }))
            .await;
    }
    let signed_by = |wanted: &'static [&'static str]| {
        let cluster = &cluster;
        async move {
            let signers = |map: &ConfigMap| {
                let data = map.data.clone().unwrap_or_default();
                data.keys().filter_map(|key| Some(key.strip_prefix("jws-kubeconfig-")?.to_owned())).collect::<Vec<_>>()
            };
            cluster
                .until(
                    "the signatures are those of the tokens",
                    || async { cluster.client.get::<ConfigMap>("kube-public", "cluster-info").await.expect("a map") },
                    |map| signers(map) == wanted,
                )
                .await
        }
    };
    signed_by(&["abcdef", "ghijkl"]).await;
    cluster.clock.sleep(std::time::Duration::from_secs(601)).await;
    let map = signed_by(&["abcdef"]).await;
    assert!(map.data.unwrap()["jws-kubeconfig-abcdef"].contains(".."));
    assert_eq!(cluster.client.find::<Secret>("kube-system", "bootstrap-token-ghijkl").await.unwrap(), None);
    assert!(cluster.client.find::<Secret>("kube-system", "bootstrap-token-abcdef").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn controllers_are_counted() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.apply::<Deployment>(deployment("web", 2, "one")).await;
    rolled_out(&cluster, "web", 2).await;
    let page = cluster.tasks.metrics().text();
    for start in [
        "workqueue_adds_total{name=\"deployment\"} ",
        "workqueue_adds_total{name=\"noexec_taint_pod\"} ",
        "workqueue_depth{name=\"replicaset\"} 0",
        "workqueue_queue_duration_seconds_bucket{name=\"deployment\",le=\"1e-08\"} ",
        "workqueue_work_duration_seconds_count{name=\"namespace\"} ",
    ] {
        assert!(page.lines().any(|line| line.starts_with(start)), "{start}: {page}");
    }
}
