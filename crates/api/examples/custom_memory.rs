//! How much memory definitions cost that nobody uses: makes a thousand from the ones in a file of JSON (a `List`, as
//! `kubectl get crd -o json` prints it) and prints by how much the process grew for each.
//! `cargo run -p skiff-api --example custom_memory -- definitions.json`

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use skiff_api::authn::{MASTERS, UserInfo, jws::SigningKey};
use skiff_api::{ApiServer, Config, bootstrap};
use skiff_base::{Clock, Random, Shutdown, Tasks};
use skiff_object::{Tree, json};
use skiff_store::memory::MemoryStore;

const DEFINITIONS: usize = 1_000;

#[tokio::main]
async fn main() {
    let file = std::env::args().nth(1).expect("a file of definitions");
    let list = json::decode_untyped(&std::fs::read(file).expect("read the definitions")).expect("JSON");
    let models = list.list_at(&["items"]);
    let (clock, random) = (Clock::system(), Random::system());
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let tasks = Tasks::new("api", Shutdown::new());
    let config = Config::new("example", store, clock, random, tasks, SigningKey::generate().expect("a key"));
    let server = ApiServer::new(config).expect("a server");
    bootstrap::run(&server).await.expect("bootstrap");
    let admin = server.local(UserInfo::new("admin", &[MASTERS]));
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (mut encoded, mut before) = (0, 0);
    for number in 0..DEFINITIONS + models.len() {
        // The first of each warms the allocator up.
        if number == models.len() {
            encoded = 0;
            before = resident();
        }
        let mut definition = models[number % models.len()].clone();
        let group = format!("g{number}.{}", definition.str_at(&["spec", "group"]));
        let name = format!("{}.{group}", definition.str_at(&["spec", "names", "plural"]));
        definition.set(&["spec", "group"], group);
        definition.set(&["metadata"], Tree::map());
        definition.set(&["metadata", "name"], name);
        definition.set(&["metadata", "annotations", "api-approved.kubernetes.io"], "unapproved, a test");
        definition.unset(&["status"]);
        let body = json::encode_untyped(&definition);
        encoded += body.len();
        let request = Request::post(path).header("content-type", "application/json").body(Bytes::from(body));
        let answer = admin.call(request.expect("a request")).await;
        assert_eq!(answer.status(), 201);
    }
    // The last status is written when the last definition is served.
    let served = || server.registry().iter().filter(|kind| kind.custom().is_some()).count();
    while served() < DEFINITIONS {
        tokio::task::yield_now().await;
    }
    // Before anybody asks for a document that describes them all.
    let grown = resident().saturating_sub(before);
    let clock = server.clock().clone();
    for path in ["/openapi/v2", "/openapi/v3", "/apis"] {
        let began = clock.instant();
        let answer = admin.call(Request::get(path).body(Bytes::new()).expect("a request")).await;
        let bytes = answer.into_body().collect().await.map_or(0, |bytes| bytes.len());
        println!("{path}: {} KiB in {:?}", bytes / 1_024, clock.instant() - began);
    }
    println!(
        "{DEFINITIONS} definitions of {} KiB each: {} KiB of memory for each",
        encoded / DEFINITIONS / 1_024,
        grown / DEFINITIONS / 1_024
    );
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok()).unwrap_or(0) * 1_024
}
