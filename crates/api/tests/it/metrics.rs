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
