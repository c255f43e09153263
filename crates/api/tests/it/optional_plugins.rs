//! Admission plugins that run only where they are asked for.

use std::path::Path;
use std::sync::Arc;

use http::Response;
use parking_lot::Mutex;
use skiff_api::Config;
use skiff_api::admission::configuration;
use skiff_object::json;

use crate::remote::{Remote, answering};
use crate::support::{Api, CONFIG_MAPS, PODS, api_of, pod};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const EVENTS: &str = "/api/v1/namespaces/default/events";

/// A server with these plugins, told this about them.
async fn with(plugins: &[&str], told: &str) -> Api {
    with_files(plugins, told, Path::new("/nowhere")).await
}

async fn with_files(plugins: &[&str], told: &str, folder: &Path) -> Api {
    let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: [{told}]\n");
    api_of(|mut config| {
        config.admission.enabled = plugins.iter().map(ToString::to_string).collect();
        configuration::read(&mut config.admission, text.as_bytes(), folder).unwrap();
        Config { ..config }
    })
    .await
}

/// A pod whose spec has this besides.
fn pod_with(name: &str, more: &str) -> String {
    pod(name).replace("\"containers\"", &format!("{more},\"containers\""))
}

#[tokio::test]
async fn images_are_pulled_each_time() {
    let api = with(&["AlwaysPullImages"], "").await;
    let body = pod("p").replace(r#""image":"i""#, r#""image":"i:1","imagePullPolicy":"IfNotPresent""#);
    let made = api.post(PODS, &body).await;
    assert_eq!(made.line(), "201");
    let pulled = made.tree();
    assert_eq!(pulled.list_at(&["spec", "containers"])[0].str_at(&["imagePullPolicy"]), "Always");
    // A change that brings no image is let alone; one that does is pulled too.
    assert_eq!(api.patch("merge", &format!("{PODS}/p"), r#"{"metadata":{"labels":{"a":"b"}}}"#).await.line(), "200");
    let other = r#"{"spec":{"containers":[{"name":"c","image":"i:2"}]}}"#;
    assert_eq!(api.patch("strategic-merge", &format!("{PODS}/p"), other).await.line(), "200");
}

#[tokio::test]
async fn anti_affinity_stays_with_nodes() {
    let api = with(&["LimitPodHardAntiAffinityTopology"], "").await;
    let apart = |key: &str| {
        format!(
            r#""affinity":{{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{"topologyKey":"{key}",
            "labelSelector":{{"matchLabels":{{"a":"b"}}}}}}]}}}}"#
        )
    };
    assert_eq!(api.post(PODS, &pod_with("p", &apart("kubernetes.io/hostname"))).await.line(), "201");
    assert_eq!(
        api.post(PODS, &pod_with("q", &apart("topology.kubernetes.io/zone"))).await.line(),
        "403 Forbidden: pods \"q\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey \
         topology.kubernetes.io/zone but only key kubernetes.io/hostname is allowed"
    );
}

#[tokio::test]
async fn services_get_no_new_external_addresses() {
    let service = |name: &str, addresses: &str| {
        format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"ports":[{{"port":80}}],"externalIPs":[{addresses}]}}}}"#)
    };
    let api = with(&["DenyServiceExternalIPs"], "").await;
    assert_eq!(
        api.post(SERVICES, &service("a", r#""192.0.2.7""#)).await.line(),
        "403 Forbidden: services \"a\" is forbidden: Use of external IPs is denied by admission control."
    );
    assert_eq!(api.post(SERVICES, &service("a", "")).await.line(), "201");
    let more = r#"{"spec":{"externalIPs":["192.0.2.7"]}}"#;
    assert_eq!(api.patch("merge", &format!("{SERVICES}/a"), more).await.status, 403);
    // What was there before the plugin may stay and be given up.
    let store = Arc::clone(&api.store);
    let free = crate::support::api_over(Arc::clone(&store), |config| config).await;
    assert_eq!(free.post(SERVICES, &service("b", r#""192.0.2.7","192.0.2.8""#)).await.line(), "201");
    let again = crate::support::api_over(store, |mut config| {
        config.admission.enabled = vec!["DenyServiceExternalIPs".into()];
        config
    })
    .await;
    assert_eq!(again.patch("merge", &format!("{SERVICES}/b"), more).await.line(), "200");
}

#[tokio::test]
async fn extended_resources_are_tolerated() {
    let api = with(&["ExtendedResourceToleration"], "").await;
    let asking = |name: &str, resource: &str| {
        let amount = format!(r#"{{"{resource}":"1"}}"#);
        let resources = format!(r#""image":"i","resources":{{"requests":{amount},"limits":{amount}}}"#);
        pod(name).replace(r#""image":"i""#, &resources)
    };
    let tolerations = |answer: &crate::support::Answer| answer.at(&["spec", "tolerations"]);
    let made = api.post(PODS, &asking("p", "example.com/gpu")).await;
    assert!(tolerations(&made).contains(r#"{"key":"example.com/gpu","operator":"Exists"}"#), "{}", made.line());
    let plain = api.post(PODS, &asking("q", "cpu")).await;
    assert!(!tolerations(&plain).contains("cpu"), "{}", plain.line());
}

#[tokio::test]
async fn events_beyond_the_limit_are_turned_away() {
    let told = "{name: EventRateLimit, configuration: {apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: \
                Configuration, limits: [{type: Namespace, qps: 1, burst: 2}]}}";
    let api = with(&["EventRateLimit"], told).await;
    let event = |name: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}"}},"involvedObject":{{"kind":"Pod","name":"p","namespace":"default"}},
            "reason":"r","type":"Normal"}}"#
        )
    };
    assert_eq!(api.post(EVENTS, &event("a")).await.line(), "201");
    assert_eq!(api.post(EVENTS, &event("b")).await.line(), "201");
    assert_eq!(
        api.post(EVENTS, &event("c")).await.line(),
        "429 TooManyRequests: Too many requests: limit reached on type Namespace for key default"
    );
    // Nothing but events counts, and another namespace has a bucket of its own.
    assert_eq!(api.post(CONFIG_MAPS, r#"{"metadata":{"name":"c"}}"#).await.line(), "201");
    let other = event("c").replace(r#""namespace":"default""#, r#""namespace":"kube-system""#);
    assert_eq!(api.post("/api/v1/namespaces/kube-system/events", &other).await.line(), "201");
    let (tried, headers) = (format!("{EVENTS}?dryRun=All"), [("content-type", "application/json")]);
    assert_eq!(api.send(http::Method::POST, &tried, &headers, event("d").as_bytes()).await.line(), "201");
}

#[tokio::test]
async fn a_limit_of_events_without_limits_does_not_start() {
    let store = Arc::new(skiff_store::memory::MemoryStore::new(skiff_base::Clock::system()));
    let mut config = Config::new(
        "test",
        store,
        skiff_base::Clock::system(),
        skiff_base::Random::seeded(1),
        skiff_base::Tasks::new("api", skiff_base::Shutdown::new()),
        skiff_api::authn::jws::SigningKey::generate().unwrap(),
    );
    config.admission.enabled = vec!["EventRateLimit".into()];
    let refused = skiff_api::ApiServer::new(config).err().unwrap().to_string();
    assert!(refused.starts_with("failed to initialize admission plugin \"EventRateLimit\": limits:"), "{refused}");
}

#[tokio::test]
async fn namespaces_are_made_or_missed() {
    let absent = "/api/v1/namespaces/absent/configmaps";
    let map = r#"{"metadata":{"name":"c"}}"#;
    let missing = with(&["NamespaceExists"], "").await;
    assert_eq!(missing.post(absent, map).await.line(), "404 NotFound: namespaces \"absent\" not found");
    assert_eq!(missing.delete(&format!("{absent}/c")).await.status, 404);
    assert_eq!(missing.post(CONFIG_MAPS, map).await.line(), "201");
    let making = with(&["NamespaceAutoProvision"], "").await;
    let tried = making.post(&format!("{absent}?dryRun=All"), map).await;
    assert_eq!(tried.line(), "404 NotFound: namespaces \"absent\" not found");
    assert_eq!(making.post(absent, map).await.line(), "201");
    assert_eq!(making.get("/api/v1/namespaces/absent").await.at(&["status", "phase"]), "Active");
}

#[tokio::test]
async fn namespaces_say_where_their_pods_run() {
    let told = "{name: PodNodeSelector, configuration: {podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: \
                'zone=a', default: 'zone=a,disk=ssd'}}}";
    let api = with(&["PodNodeSelector"], told).await;
    let made = api.post(PODS, &pod_with("p", r#""nodeSelector":{"disk":"ssd"}"#)).await;
    assert_eq!(made.at(&["spec", "nodeSelector"]), r#"{"disk":"ssd","zone":"a"}"#, "{}", made.line());
    assert_eq!(
        api.post(PODS, &pod_with("q", r#""nodeSelector":{"zone":"b"}"#)).await.line(),
        "403 Forbidden: pods \"q\" is forbidden: pod node label selector conflicts with its namespace node label selector"
    );
    assert_eq!(
        api.post(PODS, &pod_with("q", r#""nodeSelector":{"disk":"old"}"#)).await.line(),
        "403 Forbidden: pods \"q\" is forbidden: pod node label selector labels conflict with its namespace whitelist"
    );
    let own = r#"{"metadata":{"annotations":{"scheduler.alpha.kubernetes.io/node-selector":"disk=ssd"}}}"#;
    assert_eq!(api.patch("merge", "/api/v1/namespaces/default", own).await.line(), "200");
    let made = api.post(PODS, &pod("r")).await;
    assert_eq!(made.at(&["spec", "nodeSelector"]), r#"{"disk":"ssd"}"#, "{}", made.line());
}

#[tokio::test]
async fn what_is_limited_needs_a_quota() {
    let told = "{name: ResourceQuota, configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: \
                ResourceQuotaConfiguration, limitedResources: [{resource: persistentvolumeclaims, matchContains: \
                [requests.storage]}, {resource: pods, matchScopes: [{scopeName: BestEffort, operator: Exists}]}]}}";
    let api = with(&[], told).await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = r#"{"metadata":{"name":"c"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}"#;
    assert_eq!(
        api.post(claims, claim).await.line(),
        "403 Forbidden: persistentvolumeclaims \"c\" is forbidden: insufficient quota to consume: requests.storage"
    );
    assert_eq!(
        api.post(PODS, &pod("p")).await.line(),
        "403 Forbidden: pods \"p\" is forbidden: insufficient quota to match these scopes: [{BestEffort Exists []}]"
    );
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let storage = r#"{"metadata":{"name":"s"},"spec":{"hard":{"requests.storage":"2Gi"}}}"#;
    assert_eq!(api.post(quotas, storage).await.line(), "201");
    assert_eq!(api.post(claims, claim).await.line(), "201");
    let pods = r#"{"metadata":{"name":"b"},"spec":{"hard":{"pods":"2"},"scopes":["BestEffort"]}}"#;
    assert_eq!(api.post(quotas, pods).await.line(), "201");
    assert_eq!(api.post(PODS, &pod("p")).await.line(), "201");
}

#[tokio::test]
async fn another_server_decides_about_images() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let remote = Remote::start(
        &["localhost"],
        answering(move |request| {
            let review = json::decode_untyped(request.body()).unwrap();
            let image = review.list_at(&["spec", "containers"])[0].str_at(&["image"]).to_owned();
            seen.lock().push(image.clone());
            let (allowed, reason) = if image == "bad" { (false, "no bad images") } else { (true, "") };
            let answer = format!(
                r#"{{"apiVersion":"imagepolicy.k8s.io/v1alpha1","kind":"ImageReview","status":{{"allowed":{allowed},"reason":"{reason}"}}}}"#
            );
            Response::new(answer.into())
        }),
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), &remote.authority).unwrap();
    let kubeconfig = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: s}}}}]\nclusters: [{{name: s, cluster: {{server: \
         'https://localhost:{}/images', certificate-authority: ca.pem}}}}]\n",
        remote.address.port()
    );
    std::fs::write(folder.path().join("images.kubeconfig"), kubeconfig).unwrap();
    let told = "{name: ImagePolicyWebhook, configuration: {imagePolicy: {kubeConfigFile: images.kubeconfig, allowTTL: 50, \
                denyTTL: 50, retryBackoff: 1, defaultAllow: false}}}";
    let api = with_files(&["ImagePolicyWebhook"], told, folder.path()).await;
    assert_eq!(api.post(PODS, &pod("a")).await.line(), "201");
    // The answer is remembered.
    assert_eq!(api.post(PODS, &pod("b")).await.line(), "201");
    assert_eq!(
        api.post(PODS, &pod("c").replace(r#""image":"i""#, r#""image":"bad""#)).await.line(),
        "403 Forbidden: pods \"c\" is forbidden: image policy webhook backend denied one or more images: no bad images"
    );
    assert_eq!(*asked.lock(), ["i", "bad"]);
    drop(remote);
    let unheard = api.post(PODS, &pod("d").replace(r#""image":"i""#, r#""image":"new""#)).await;
    assert_eq!(unheard.status, 403, "{}", unheard.line());
}
