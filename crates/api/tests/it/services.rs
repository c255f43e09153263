//! Service addresses and node ports: given out once, from where they may come, and repaired.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use expect_test::expect;
use futures::future::join_all;
use http::StatusCode;
use skiff_api::Config;
use skiff_object::Tree;
use skiff_store::memory::MemoryStore;
use skiff_store::{Expect, Range, Store};

use crate::support::{Api, api, api_of, api_over};
use crate::watching::until;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";

async fn small() -> Api {
    api_of(|config| Config { service_cidr: ("10.96.0.0".parse().unwrap(), 28), node_ports: (30_000, 30_009), ..config })
        .await
}

fn service(name: &str, spec: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"ports":[{{"port":80}}]{spec}}}}}"#)
}

#[tokio::test]
async fn creates_at_once_never_share_an_address() {
    let api = small().await;
    let creates = (0..20).map(|number| {
        let (api, body) = (&api, service(&format!("s{number}"), ""));
        async move { api.post(SERVICES, &body).await }
    });
    let answers = join_all(creates).await;
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).collect();
    let addresses: BTreeSet<String> = made.iter().map(|answer| answer.at(&["spec", "clusterIP"])).collect();
    // 16 less the network, its broadcast and the `kubernetes` Service.
    assert_eq!((made.len(), addresses.len()), (13, 13));
    let full = answers.iter().find(|answer| !answer.status.is_success()).unwrap();
    assert_eq!(
        full.line(),
        "500 InternalError: Internal error occurred: failed to allocate a serviceIP: range is full"
    );
    let recorded = api.get(ADDRESSES).await.tree();
    assert_eq!(recorded.list_at(&["items"]).len(), 14);
}

#[tokio::test]
async fn node_ports_at_once_are_given_out_once() {
    let api = small().await;
    let creates = (0..12).map(|number| {
        let (api, body) = (&api, service(&format!("s{number}"), r#","type":"NodePort""#));
        async move { api.post(SERVICES, &body).await }
    });
    let answers = join_all(creates).await;
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).collect();
    let ports: BTreeSet<i64> =
        made.iter().filter_map(|answer| answer.tree().list_at(&["spec", "ports"])[0].int_at(&["nodePort"])).collect();
    assert_eq!((made.len(), ports.len()), (10, 10));
    // What failed holds nothing: its address is free again.
    assert_eq!(api.get(ADDRESSES).await.tree().list_at(&["items"]).len(), 11);
    for answer in &made {
        assert_eq!(api.delete(&format!("{SERVICES}/{}", answer.at(&["metadata", "name"]))).await.line(), "200");
    }
    assert_eq!(api.post(SERVICES, &service("again", r#","type":"NodePort""#)).await.line(), "201");
}

#[tokio::test]
async fn what_cannot_be_given_is_refused_as_upstream_does() {
    let api = small().await;
    assert_eq!(api.post(SERVICES, &service("one", r#","clusterIP":"10.96.0.5""#)).await.line(), "201");
    let local = r#","type":"LoadBalancer","externalTrafficPolicy":"Local","healthCheckNodePort":30005"#;
    assert_eq!(api.post(SERVICES, &service("lb", local)).await.line(), "201");
    let mut lines = Vec::new();
    for spec in [
        r#","clusterIP":"10.96.0.5""#,
        r#","clusterIP":"10.97.0.5""#,
        r#","clusterIP":"10.96.0.15""#,
        r#","clusterIPs":["fd00::1"]"#,
        r#","ipFamilies":["IPv6"]"#,
        r#","ipFamilyPolicy":"RequireDualStack""#,
        r#","ipFamilyPolicy":"SingleStack","ipFamilies":["IPv4","IPv6"]"#,
        local,
        r#","type":"LoadBalancer","externalTrafficPolicy":"Local","healthCheckNodePort":29999"#,
    ] {
        lines.push(api.post(SERVICES, &service("two", spec)).await.line());
    }
    expect![[r#"
        422 Invalid: Service "two" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.5"]: failed to allocate IP 10.96.0.5: provided IP is already allocated
        422 Invalid: Service "two" is invalid: spec.clusterIPs: Invalid value: ["10.97.0.5"]: failed to allocate IP 10.97.0.5: the provided network does not match the current range
        422 Invalid: Service "two" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.15"]: failed to allocate IP 10.96.0.15: the provided network does not match the current range
        422 Invalid: Service "two" is invalid: spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster
        422 Invalid: Service "two" is invalid: spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster
        422 Invalid: Service "two" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services
        422 Invalid: Service "two" is invalid: spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified
        500 InternalError: Internal error occurred: failed to allocate requested HealthCheck NodePort 30005: provided port is already allocated
        500 InternalError: Internal error occurred: failed to allocate requested HealthCheck NodePort 29999: provided port is not in the valid range. The range of valid ports is 30000-30009"#]]
    .assert_eq(&lines.join("\n"));
    let spec = api.post(SERVICES, &service("three", r#","ipFamilyPolicy":"PreferDualStack""#)).await.tree();
    assert_eq!(spec.list_at(&["spec", "ipFamilies"]), &[Tree::from("IPv4")]);
    let headless = api.post(SERVICES, &service("four", r#","clusterIP":"None""#)).await.tree();
    assert_eq!(headless.str_at(&["spec", "ipFamilyPolicy"]), "RequireDualStack");
    assert_eq!(headless.list_at(&["spec", "ipFamilies"]), &[Tree::from("IPv4"), Tree::from("IPv6")]);
}

#[tokio::test]
async fn further_service_cidrs_give_addresses_until_they_go() {
    let api = small().await;
    let far = service("far", r#","clusterIP":"10.200.0.7""#);
    assert_eq!(api.post(SERVICES, &far).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let cidr = r#"{"metadata":{"name":"more","finalizers":["example.com/hold"]},"spec":{"cidrs":["10.200.0.0/24"]}}"#;
    assert_eq!(api.post(CIDRS, cidr).await.line(), "201");
    assert_eq!(api.post(SERVICES, &far).await.line(), "201");
    // The first network is small; the second takes what it cannot.
    for number in 0..16 {
        assert_eq!(api.post(SERVICES, &service(&format!("s{number}"), "")).await.line(), "201");
    }
    assert_eq!(api.delete(&format!("{CIDRS}/more")).await.line(), "200");
    let late = service("late", r#","clusterIP":"10.200.0.8""#);
    assert_eq!(api.post(SERVICES, &late).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_deleted_record_comes_back_and_is_told() {
    let api = small().await;
    let made = api.post(SERVICES, &service("web", r#","clusterIP":"10.96.0.9""#)).await;
    assert_eq!(made.line(), "201");
    let before = api.get(&format!("{ADDRESSES}/10.96.0.9")).await.at(&["metadata", "uid"]);
    assert_eq!(api.delete(&format!("{ADDRESSES}/10.96.0.9")).await.line(), "200");
    let back = until(&api, ADDRESSES, "10.96.0.9", |object| {
        object.str_at(&["event"]) == "ADDED" && object.str_at(&["metadata", "uid"]) != before
    })
    .await;
    assert_eq!(back.str_at(&["spec", "parentRef", "name"]), "web");
    let events = api.get("/apis/events.k8s.io/v1/namespaces/default/events").await.tree();
    let notes: Vec<String> = events
        .list_at(&["items"])
        .iter()
        .map(|event| format!("{} {}: {}", event.str_at(&["type"]), event.str_at(&["reason"]), event.str_at(&["note"])))
        .collect();
    assert_eq!(notes, ["Warning ClusterIPNotAllocated: Cluster IP [IPv4]: 10.96.0.9 is not allocated; repairing"]);
    // The record of a Service that is gone stays gone.
    assert_eq!(api.delete(&format!("{SERVICES}/web")).await.line(), "200");
    assert_eq!(api.get(&format!("{ADDRESSES}/10.96.0.9")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_two_services_have_is_told_and_what_was_lost_comes_back_at_the_start() {
    use skiff_store::{Expect, Store};
    let api = api().await;
    for name in ["a", "b"] {
        assert_eq!(api.post(SERVICES, &service(name, r#","type":"NodePort""#)).await.line(), "201");
    }
    let of = async |name: &str| api.get(&format!("{SERVICES}/{name}")).await.tree();
    let (a, b) = (of("a").await, of("b").await);
    let port = |tree: &Tree| tree.list_at(&["spec", "ports"])[0].int_at(&["nodePort"]).unwrap();
    // A backup of two times: `b` has the address and the port of `a`, and the record of another is lost.
    let key = bytes::Bytes::from_static(b"test/registry/core/services/default/b");
    let stored = api.store.get(&key, None).await.unwrap().entry.unwrap().value;
    let text = String::from_utf8(stored.to_vec()).unwrap();
    let text = text
        .replace(b.str_at(&["spec", "clusterIP"]), a.str_at(&["spec", "clusterIP"]))
        .replace(&format!("\"nodePort\":{}", port(&b)), &format!("\"nodePort\":{}", port(&a)));
    api.store.put(key, text.into(), Expect::Any, None).await.unwrap();
    let kubernetes = bytes::Bytes::from_static(b"test/registry/networking.k8s.io/ipaddresses//10.96.0.1");
    api.store.delete(kubernetes, Expect::Any).await.unwrap();

    let again = crate::support::api_over(std::sync::Arc::clone(&api.store), |config| config).await;
    let back = until(&again, ADDRESSES, "10.96.0.1", |object| object.str_at(&["event"]) == "ADDED").await;
    assert_eq!(back.str_at(&["spec", "parentRef", "name"]), "kubernetes");
    let notes = async || {
        let events = again.get("/apis/events.k8s.io/v1/namespaces/default/events").await.tree();
        let lines = events
            .list_at(&["items"])
            .iter()
            .map(|event| format!("{} {}", event.str_at(&["regarding", "name"]), event.str_at(&["reason"])));
        lines.collect::<BTreeSet<String>>()
    };
    let wanted = ["b ClusterIPAlreadyAllocated", "b PortAlreadyAllocated"];
    let told = async {
        loop {
            let notes = notes().await;
            if wanted.iter().all(|one| notes.contains(*one)) {
                return notes;
            }
            tokio::task::yield_now().await;
        }
    };
    let notes = tokio::time::timeout(std::time::Duration::from_secs(20), told).await.expect("both are told");
    assert!(!notes.iter().any(|note| note.starts_with("a ")), "who was first has nothing to mend: {notes:?}");
    let record = again.get(&format!("{ADDRESSES}/{}", a.str_at(&["spec", "clusterIP"]))).await;
    assert_eq!(record.at(&["spec", "parentRef", "name"]), "a");
}

#[tokio::test]
async fn services_keep_what_they_have_and_give_back_what_they_leave() {
    let api = api().await;
    let made = api.post(SERVICES, &service("web", r#","type":"NodePort""#)).await.tree();
    let port = made.list_at(&["spec", "ports"])[0].int_at(&["nodePort"]).unwrap();
    let name = format!("{SERVICES}/web");
    assert_eq!(api.put(&name, &service("web", r#","type":"NodePort""#)).await.line(), "200");
    let kept = api.get(&name).await.tree();
    assert_eq!(kept.list_at(&["spec", "ports"])[0].int_at(&["nodePort"]), Some(port));
    assert_eq!(kept.str_at(&["spec", "clusterIP"]), made.str_at(&["spec", "clusterIP"]));
    let external =
        r#"{"spec":{"type":"ExternalName","externalName":"example.com","clusterIP":null,"clusterIPs":null}}"#;
    assert_eq!(api.patch("merge", &name, external).await.line(), "200");
    assert_eq!(api.get(&name).await.at(&["spec", "clusterIP"]), "-");
    let again = format!(
        r#"{{"metadata":{{"name":"other"}},"spec":{{"type":"NodePort","clusterIP":"{}","ports":[{{"port":80,"nodePort":{port}}}]}}}}"#,
        made.str_at(&["spec", "clusterIP"])
    );
    assert_eq!(api.post(SERVICES, &again).await.line(), "201");
}

fn web_with_port() -> String {
    service("web", r#","type":"NodePort","clusterIP":"10.96.0.9""#)
        .replace(r#"{"port":80}"#, r#"{"port":80,"nodePort":30004}"#)
}

async fn keys(store: &MemoryStore, part: &str) -> Vec<Bytes> {
    let all = store.range(Range::default()).await.unwrap().entries;
    all.into_iter().map(|entry| entry.key).filter(|key| String::from_utf8_lossy(key).contains(part)).collect()
}

#[tokio::test]
async fn what_a_dead_server_took_for_a_service_is_still_for_that_service() {
    let api = small().await;
    assert_eq!(api.post(SERVICES, &web_with_port()).await.line(), "201");
    // As if the server had died between the records and the Service.
    let key = keys(&api.store, "/services/default/web").await.remove(0);
    api.store.delete(key, Expect::Present).await.unwrap();
    assert_eq!(keys(&api.store, "/nodeports/").await.len(), 1);

    let next = api_over(api.store.clone(), |config| config).await;
    let other = web_with_port().replace(r#""web""#, r#""other""#);
    assert_eq!(next.post(SERVICES, &other).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(next.post(SERVICES, &web_with_port()).await.line(), "201");
    // What it took over is its own: it gives it back.
    assert_eq!(next.delete(&format!("{SERVICES}/web")).await.line(), "200");
    assert_eq!(next.post(SERVICES, &other).await.line(), "201");
}

#[tokio::test]
async fn a_write_is_done_to_its_end_when_its_client_hangs_up() {
    let mut tasks = None;
    let api = api_of(|config| {
        tasks = Some(config.tasks.clone());
        config
    })
    .await;
    let tasks = tasks.unwrap();
    api.store.faults().delay_writes(Duration::from_millis(20));
    let body = web_with_port();
    let mut create = Box::pin(api.post(SERVICES, &body));
    // It has begun and waits for its first write.
    assert!(futures::poll!(create.as_mut()).is_pending());
    tokio::task::yield_now().await;
    drop(create);
    tasks.stop().await;
    let found = [keys(&api.store, "/services/default/web").await, keys(&api.store, "/nodeports/").await];
    assert_eq!(found.map(|keys| keys.len()), [1, 1]);
}
