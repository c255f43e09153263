//! What large collections, selectors, watches and definitions cost the server itself, without HTTP, TLS and disk:
//! `cargo bench -p skiff-api --profile fast --bench large [-- PART OF A NAME]`.
//!
//! Every figure is processor time and memory of this process, which does nothing else. `skiff bench` has the same
//! over the network.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, header};
use skiff_api::authn::jws::SigningKey;
use skiff_api::authn::{MASTERS, UserInfo};
use skiff_api::body::Body;
use skiff_api::{ApiServer, Config, Local, bootstrap};
use skiff_base::{Clock, Random, Shutdown, Tasks};
use skiff_store::memory::MemoryStore;
use skiff_store::{Expect, Store};

const PODS: usize = 150_000;
const LISTS_AT_ONCE: usize = 16;
const SELECTED_OBJECTS: usize = 300_000;
const WATCHERS: usize = 1_000;
const CHANGES: usize = 500;
const DEFINITIONS: usize = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|part| name.contains(part.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    if wanted("lists") {
        runtime.block_on(lists());
    }
    if wanted("selectors") {
        runtime.block_on(selectors());
    }
    if wanted("watches") {
        runtime.block_on(watches());
    }
    if wanted("definitions") {
        runtime.block_on(definitions());
    }
}

struct Api {
    store: Arc<MemoryStore>,
    local: Local,
    clock: Clock,
}

async fn api() -> Api {
    let clock = Clock::system();
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let tasks = Tasks::new("bench", Shutdown::new());
    let key = SigningKey::generate().expect("key");
    let config = Config::new("bench", store.clone(), clock.clone(), Random::system(), tasks, key);
    let server = ApiServer::new(config).expect("server");
    bootstrap::run(&server).await.expect("bootstrap");
    Api { store, local: server.local(UserInfo::new("bench", &[MASTERS])), clock }
}

impl Api {
    async fn put(&self, key: String, value: String) {
        self.store.put(key.into(), value.into(), Expect::Any, None).await.expect("put");
    }

    async fn open(&self, method: Method, path: &str, accept: &str, body: &[u8]) -> Body {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::copy_from_slice(body))
            .expect("request");
        let response = self.local.call(request).await;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            let body = body.collect().await.unwrap_or_default();
            panic!("{path}: {} {}", head.status, String::from_utf8_lossy(&body));
        }
        body
    }

    async fn get(&self, path: &str) -> Bytes {
        self.open(Method::GET, path, "application/json", b"").await.collect().await.expect("body")
    }
}

/// Processor time of this process.
fn cpu() -> Duration {
    let mut nanos = 0;
    for thread in std::fs::read_dir("/proc/self/task").expect("threads").flatten() {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        nanos += text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    }
    Duration::from_nanos(nanos)
}

/// Memory of this process, in bytes.
fn memory() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("statm");
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * 4_096.0
}

fn say(name: &str, value: impl std::fmt::Display) {
    println!("{name:<64} {value}");
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn pod(number: usize) -> String {
    let hash = number % 500;
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"app-{hash}-{number:06}","generateName":"app-{hash}-","namespace":"default","uid":"6b9f0a6e-1e1c-4c5e-9d0a-{number:012}","creationTimestamp":"2026-11-22T23:00:00Z","labels":{{"app":"app-{hash}","pod-template-hash":"{hash:08x}","tier":"web"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"app-{hash}","uid":"6b9f0a6e-1e1c-4c5e-9d0a-7d3b6e5f4a21","controller":true,"blockOwnerDeletion":true}}],"managedFields":[{{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-11-22T23:00:00Z","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:generateName":{{}},"f:labels":{{".":{{}},"f:app":{{}},"f:pod-template-hash":{{}},"f:tier":{{}}}},"f:ownerReferences":{{".":{{}},"k:{{\"uid\":\"6b9f0a6e-1e1c-4c5e-9d0a-7d3b6e5f4a21\"}}":{{}}}}}},"f:spec":{{"f:containers":{{"k:{{\"name\":\"web\"}}":{{".":{{}},"f:image":{{}},"f:name":{{}},"f:resources":{{}}}}}},"f:restartPolicy":{{}}}}}}}}]}},"spec":{{"containers":[{{"name":"web","image":"registry.example/team/web:1.2.3","resources":{{"limits":{{"memory":"256Mi"}},"requests":{{"cpu":"100m","memory":"128Mi"}}}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","serviceAccount":"default","nodeName":"node-{}","securityContext":{{}},"schedulerName":"default-scheduler","priority":0,"enableServiceLinks":true}},"status":{{"phase":"Running","podIP":"10.1.{}.{}","qosClass":"Burstable"}}}}"#,
        number % 3_000,
        number / 250 % 250,
        number % 250
    )
}

async fn fill_pods(api: &Api, from: usize, to: usize) {
    for number in from..to {
        api.put(format!("bench/registry/core/pods/default/app-{}-{number:06}", number % 500), pod(number)).await;
    }
}

async fn lists() {
    let api = api().await;
    fill_pods(&api, 0, PODS).await;
    let path = "/api/v1/pods";
    let before = memory();
    api.get(&format!("{path}?limit=1")).await;
    say("watch cache of the pods, bytes a pod", format!("{:.0}", (memory() - before) / PODS as f64));
    for (form, accept) in [
        ("JSON", "application/json"),
        ("protobuf", "application/vnd.kubernetes.protobuf"),
        ("protobuf, again", "application/vnd.kubernetes.protobuf"),
        ("metadata, protobuf", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
        ("Table", "application/json;as=Table;g=meta.k8s.io;v=v1"),
    ] {
        let (spent, began, held) = (cpu(), api.clock.instant(), memory());
        let mut stream = api.open(Method::GET, path, accept, b"").await.into_stream();
        let mut bytes = stream.next().await.map_or(0, |chunk| chunk.expect("chunk").len());
        let first = began.elapsed();
        let mut most = held;
        while let Some(chunk) = stream.next().await {
            bytes += chunk.expect("chunk").len();
            most = most.max(memory());
        }
        say(
            &format!("LIST of {PODS} pods, {form}"),
            format!(
                "first byte {:.2} ms, {:.2} µs CPU a pod, {:.0} MB, memory +{:.1} MiB",
                milliseconds(first),
                (cpu() - spent).as_secs_f64() * 1e6 / PODS as f64,
                bytes as f64 / 1e6,
                (most - held) / f64::from(1 << 20)
            ),
        );
    }
    let before = memory();
    let mut stalled = Vec::new();
    for _ in 0..LISTS_AT_ONCE {
        let mut stream = api.open(Method::GET, path, "application/json", b"").await.into_stream();
        stream.next().await;
        stalled.push(stream);
    }
    let each = (memory() - before) / LISTS_AT_ONCE as f64 / f64::from(1 << 20);
    say(&format!("{LISTS_AT_ONCE} lists at once, begun and not read, MiB each"), format!("{each:.3}"));
    drop(stalled);
    let (spent, mut token, mut pages) = (cpu(), String::new(), 0_u32);
    loop {
        let page = api.get(&format!("{path}?limit=500&continue={token}")).await;
        pages += 1;
        let head = String::from_utf8_lossy(&page[..page.len().min(600)]).into_owned();
        token =
            head.split_once("\"continue\":\"").map_or("", |(_, rest)| rest.split('"').next().unwrap_or("")).to_owned();
        if token.is_empty() {
            break;
        }
    }
    say("LIST in pages of 500", format!("{:.2} ms CPU a page", milliseconds(cpu() - spent) / f64::from(pages)));
}

async fn selectors() {
    let api = api().await;
    fill_pods(&api, 0, SELECTED_OBJECTS).await;
    api.get("/api/v1/pods?limit=1").await;
    let before = memory();
    let time = async |query: &str, rounds: u32| {
        let spent = cpu();
        for _ in 0..rounds {
            api.get(&format!("/api/v1/pods?{query}")).await;
        }
        milliseconds((cpu() - spent) / rounds)
    };
    let cold = time("labelSelector=app%3Dnone", 1).await;
    say(&format!("selector over {SELECTED_OBJECTS} pods, nobody asked before"), format!("{cold:.3} ms CPU"));
    let field = time("fieldSelector=spec.nodeName%3Dnone", 1).await;
    say("field selector, nobody asked before", format!("{field:.3} ms CPU"));
    // Until the index is there.
    while time("labelSelector=app%3Dnone", 1).await > 2.0 || time("fieldSelector=spec.nodeName%3Dnone", 1).await > 2.0 {
    }
    say("index, bytes a pod", format!("{:.0}", (memory() - before) / SELECTED_OBJECTS as f64));
    for (what, query) in [
        ("label equals, nothing matches", "labelSelector=app%3Dnone"),
        ("label in, nothing matches", "labelSelector=app+in+(none,nobody)"),
        ("label exists, nothing matches", "labelSelector=none"),
        ("two labels, nothing matches", "labelSelector=app%3Dapp-7,pod-template-hash%3D00000008"),
        ("field equals, nothing matches", "fieldSelector=spec.nodeName%3Dnone"),
        ("the 100 pods of a node", "fieldSelector=spec.nodeName%3Dnode-7"),
        ("the 600 pods of a label", "labelSelector=app%3Dapp-7"),
        ("by name in all namespaces", "fieldSelector=metadata.name%3Dapp-7-000007"),
        ("label differs (every object is looked at)", "labelSelector=tier!%3Dweb"),
    ] {
        let rounds = if what.contains("every object") { 3 } else { 100 };
        say(
            &format!("selector over {SELECTED_OBJECTS} pods, {what}"),
            format!("{:.3} ms CPU", time(query, rounds).await),
        );
    }
    let spent = cpu();
    let changes = 20_000;
    for number in 0..changes {
        api.put(
            format!("bench/registry/core/pods/default/app-{}-{number:06}", number % 500),
            pod(number).replace("Running", "Failed"),
        )
        .await;
    }
    api.get("/api/v1/pods?limit=1").await;
    say(
        "change of a pod with the index kept",
        format!("{:.2} µs CPU", (cpu() - spent).as_secs_f64() * 1e6 / changes as f64),
    );
}

async fn watches() {
    let api = api().await;
    for (what, query) in [("all the same", ""), ("each another node's", "fieldSelector=spec.nodeName%3Dnode-")] {
        let mut streams = Vec::new();
        for number in 0..WATCHERS {
            let query = if query.is_empty() { String::new() } else { format!("{query}{number}&") };
            let path = format!("/api/v1/pods?watch=1&{query}resourceVersion=0");
            streams.push(api.open(Method::GET, &path, "application/json", b"").await.into_stream());
        }
        let (seen, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let tasks = Tasks::new("watchers", Shutdown::new());
        for mut stream in streams {
            let seen = seen.clone();
            tasks.spawn("watcher", async move {
                while let Some(Ok(chunk)) = stream.next().await {
                    let _ = seen.send(chunk.iter().filter(|byte| **byte == b'\n').count());
                }
            });
        }
        let spent = cpu();
        for number in 0..CHANGES {
            api.put(format!("bench/registry/core/pods/default/{}x-{number:06}", query.len()), pod(number)).await;
            tokio::task::yield_now().await;
        }
        let events = if query.is_empty() { CHANGES * WATCHERS } else { CHANGES };
        let mut count = 0;
        while count < events {
            count += heard.recv().await.unwrap_or(0);
        }
        say(
            &format!("{CHANGES} changes, {WATCHERS} watchers, {what}"),
            format!(
                "{:.3} µs CPU an event, {:.1} µs a change",
                (cpu() - spent).as_secs_f64() * 1e6 / events as f64,
                (cpu() - spent).as_secs_f64() * 1e6 / CHANGES as f64
            ),
        );
        tasks.stop().await;
    }
}

fn definition(number: usize, mark: &str) -> String {
    let text = "What this field is for, in a sentence or two as the authors of operators write them for their users.";
    let leaf = |name: String| format!(r#""{name}":{{"type":"string","description":"{text}","maxLength":253}}"#);
    let part = |index: usize| {
        let leaves: Vec<String> = (0..8).map(|field| leaf(format!("p{index}f{field}"))).collect();
        format!(r#""part{index}":{{"type":"object","description":"{text}","properties":{{{}}}}}"#, leaves.join(","))
    };
    let parts: Vec<String> = (0..8).map(part).collect();
    format!(
        r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{{"name":"things{number}.g{number}.example.com"}},"spec":{{"group":"g{number}.example.com","scope":"Namespaced","names":{{"plural":"things{number}","singular":"thing{number}","kind":"Thing{number}","listKind":"Thing{number}List"}},"versions":[{{"name":"v1","served":true,"storage":true,"subresources":{{"status":{{}}}},"schema":{{"openAPIV3Schema":{{"type":"object","properties":{{"spec":{{"type":"object","description":"{mark}","properties":{{{}}}}},"status":{{"type":"object","properties":{{"ready":{{"type":"string"}}}}}}}}}}}}}}]}}}}"#,
        parts.join(",")
    )
}

async fn definitions() {
    const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let api = api().await;
    let document = async |what: &str, path: &str, accept: &str| {
        let (spent, began) = (cpu(), api.clock.instant());
        let bytes = api.open(Method::GET, path, accept, b"").await.collect().await.expect("body");
        let (spent, took) = (milliseconds(cpu() - spent), milliseconds(began.elapsed()));
        say(what, format!("{spent:.1} ms CPU, {took:.1} ms, {:.1} MB", bytes.len() as f64 / 1e6));
        bytes
    };
    document("OpenAPI 2, built in, first", "/openapi/v2", "application/json").await;
    let (before, spent) = (memory(), cpu());
    for number in 0..DEFINITIONS {
        api.open(Method::POST, PATH, "application/json", definition(number, "first").as_bytes()).await;
    }
    let last = format!("/apis/g{}.example.com/v1", DEFINITIONS - 1);
    while !String::from_utf8_lossy(&api.get("/apis").await).contains(&last[6..]) {
        tokio::task::yield_now().await;
    }
    api.clock.sleep(Duration::from_secs(3)).await;
    say(
        &format!("{DEFINITIONS} definitions of {} bytes", definition(0, "first").len()),
        format!(
            "{:.1} KiB each, {:.2} ms CPU each",
            (memory() - before) / DEFINITIONS as f64 / 1024.0,
            milliseconds(cpu() - spent) / DEFINITIONS as f64
        ),
    );
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    document("OpenAPI 2, first", "/openapi/v2", "application/json").await;
    document("OpenAPI 2, again", "/openapi/v2", "application/json").await;
    document("OpenAPI 2 as protobuf, first", "/openapi/v2", protobuf).await;
    document("OpenAPI 3 index", "/openapi/v3", "application/json").await;
    document("OpenAPI 3 of one group version", "/openapi/v3/apis/g7.example.com/v1", "application/json").await;
    document("discovery, aggregated", "/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
        .await;
    say("with their documents", format!("{:.1} KiB each", (memory() - before) / DEFINITIONS as f64 / 1024.0));
    let (spent, began) = (cpu(), api.clock.instant());
    let request = Request::patch(format!("{PATH}/things7.g7.example.com"))
        .header(header::CONTENT_TYPE, "application/merge-patch+json")
        .body(Bytes::from(definition(7, "changed-description")))
        .expect("request");
    assert!(api.local.call(request).await.status().is_success());
    loop {
        let document = api.get("/openapi/v2").await;
        if document.windows(19).any(|window| window == b"changed-description") {
            break;
        }
    }
    say(
        "change of one until it is in OpenAPI 2 (asked for all the time)",
        format!("{:.1} ms, {:.1} ms CPU", milliseconds(began.elapsed()), milliseconds(cpu() - spent)),
    );
    document("OpenAPI 2 after a change", "/openapi/v2", "application/json").await;
}
