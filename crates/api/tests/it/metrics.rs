//! What `/metrics` says after a few requests.

use crate::support::{CONFIG_MAPS, api};

#[tokio::test]
async fn requests_are_counted_by_resource_verb_and_code() {
    let api = api().await;
    api.post(CONFIG_MAPS, r#"{"metadata":{"name":"a"}}"#).await;
    api.post(CONFIG_MAPS, r#"{"metadata":{"name":"a"}}"#).await;
    api.get(CONFIG_MAPS).await;
    api.get("/api/v1/namespaces/default/nonsense/x").await;
    let page = String::from_utf8(api.get("/metrics").await.body.to_vec()).unwrap();
    for line in [
        r#"apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1"#,
        r#"apiserver_request_total{code="409",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1"#,
        r#"apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"} 1"#,
        r#"apiserver_storage_objects{resource="configmaps"} 1"#,
        r#"apiserver_current_inflight_requests{request_kind="readOnly"} 1"#,
        "# TYPE etcd_request_duration_seconds histogram",
        "# TYPE process_resident_memory_bytes gauge",
    ] {
        assert!(page.lines().any(|one| one == line), "{line}\n{page}");
    }
    assert!(!page.contains("nonsense"), "labels come from what is served only");
}

#[tokio::test]
async fn what_runs_under_the_servers_tasks_is_shown_too() {
    use skiff_base::metrics::Metric;
    static DONE: Metric = Metric::counter("things_done_total", "Things that a component did.");
    let api = api().await;
    api.server.metrics().counter(&DONE, &[("name", "it")]).increment();
    let page = String::from_utf8(api.get("/metrics").await.body.to_vec()).unwrap();
    assert!(page.ends_with("# TYPE things_done_total counter\nthings_done_total{name=\"it\"} 1\n"), "{page}");
}

#[tokio::test]
async fn what_services_have_is_looked_up() {
    let api = api().await;
    let service = r#"{"metadata":{"name":"a"},"spec":{"type":"NodePort","ports":[{"port":80}]}}"#;
    assert_eq!(api.post("/api/v1/namespaces/default/services", service).await.line(), "201");
    let wanted = [
        "kube_apiserver_clusterip_allocator_allocated_ips{cidr=\"10.96.0.0/16\"} 2",
        "kube_apiserver_clusterip_allocator_available_ips{cidr=\"10.96.0.0/16\"} 65532",
        "kube_apiserver_nodeport_allocator_allocated_ports 1",
        "kube_apiserver_nodeport_allocator_available_ports 2767",
        "aggregator_unavailable_apiservice{name=\"v1.apps\"} 0",
    ];
    // The caches hear of it a moment later.
    let shown = async {
        loop {
            let page = String::from_utf8(api.get("/metrics").await.body.to_vec()).unwrap();
            if wanted.iter().all(|line| page.lines().any(|one| one == *line)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), shown).await.expect("all of it is shown");
}
