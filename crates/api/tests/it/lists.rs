//! Lists: selectors, chunks, versions, forms.

use http::Method;
use skiff_store::Store;

use crate::support::{Api, CONFIG_MAPS, api};

async fn five() -> Api {
    let api = api().await;
    for index in 0..5 {
        let body = format!(r#"{{"metadata":{{"name":"c{index}","labels":{{"i":"{index}"}}}}}}"#);
        assert_eq!(api.post(CONFIG_MAPS, &body).await.line(), "201");
    }
    api
}

async fn names(api: &Api, query: &str) -> String {
    let answer = api.get(&format!("{CONFIG_MAPS}{query}")).await;
    if !answer.status.is_success() {
        return answer.line();
    }
    let tree = answer.tree();
    let names: Vec<&str> = tree.list_at(&["items"]).iter().map(|item| item.str_at(&["metadata", "name"])).collect();
    names.join(" ")
}

#[tokio::test]
async fn selectors_choose() {
    let api = five().await;
    assert_eq!(names(&api, "").await, "c0 c1 c2 c3 c4");
    assert_eq!(names(&api, "?labelSelector=i%20in%20(1,3)").await, "c1 c3");
    assert_eq!(names(&api, "?labelSelector=!i").await, "");
    assert_eq!(names(&api, "?fieldSelector=metadata.name%3Dc2").await, "c2");
    assert_eq!(names(&api, "?fieldSelector=metadata.name!%3Dc2,metadata.namespace%3Ddefault").await, "c0 c1 c3 c4");
    assert_eq!(
        names(&api, "?labelSelector=a%20b").await,
        "400 BadRequest: unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
    );
    assert!(names(&api, "?fieldSelector=spec.x%3Dy").await.starts_with("400 BadRequest: "));
}

#[tokio::test]
async fn items_do_not_repeat_what_the_list_says_they_are() {
    let api = five().await;
    let body =
        r#"{"metadata":{"name":"a"},"spec":{"maxReplicas":2,"scaleTargetRef":{"kind":"Deployment","name":"a"}}}"#;
    let scalers = "namespaces/default/horizontalpodautoscalers";
    assert_eq!(api.post(&format!("/apis/autoscaling/v1/{scalers}"), body).await.line(), "201");
    let paths = [
        format!("{CONFIG_MAPS}?limit=1"),
        format!("{CONFIG_MAPS}?limit=1&pretty=true"),
        format!("/apis/autoscaling/v1/{scalers}"),
        format!("/apis/autoscaling/v2/{scalers}"),
    ];
    for path in paths {
        let list = api.get(&path).await.tree();
        let item = &list.list_at(&["items"])[0];
        assert!(list.get("kind").is_some() && item.get("metadata").is_some(), "{path}");
        assert!(item.get("kind").is_none() && item.get("apiVersion").is_none(), "{path}");
    }
}

#[tokio::test]
async fn deprecated_kinds_say_so_with_every_answer() {
    let api = api().await;
    let warning = async |method: Method, path: &str| {
        let answer = api.send(method, path, &[], b"").await;
        answer.headers.get("warning").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let endpoints = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!(warning(Method::GET, "/api/v1/endpoints").await, endpoints);
    assert_eq!(warning(Method::GET, "/api/v1/namespaces/default/endpoints/none").await, endpoints);
    assert_eq!(warning(Method::DELETE, "/api/v1/namespaces/default/endpoints/none").await, endpoints);
    let statuses = "299 - \"v1 ComponentStatus is deprecated in v1.19+\"";
    assert_eq!(warning(Method::GET, "/api/v1/componentstatuses").await, statuses);
    assert_eq!(warning(Method::GET, "/api/v1/configmaps").await, "");
}

#[tokio::test]
async fn the_store_is_a_component_that_has_a_status() {
    let api = api().await;
    let list = api.get("/api/v1/componentstatuses").await;
    assert_eq!(
        String::from_utf8_lossy(&list.body),
        r#"{"kind":"ComponentStatusList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"etcd-0"},"conditions":[{"type":"Healthy","status":"True","message":"ok"}]}]}"#
    );
    let one = "/api/v1/componentstatuses/etcd-0";
    assert_eq!(api.get(one).await.at(&["conditions"]), r#"[{"type":"Healthy","status":"True","message":"ok"}]"#);
    assert_eq!(api.get("/api/v1/componentstatuses?fieldSelector=metadata.name!%3Detcd-0").await.at(&["items"]), "[]");
    let none = api.get("/api/v1/componentstatuses/none").await.line();
    assert_eq!(none, "404 NotFound: componentstatuses \"none\" not found");
    assert_eq!(api.delete(one).await.status, 405);
}

#[tokio::test]
async fn chunks_continue_at_the_same_version() {
    let api = five().await;
    let first = api.get(&format!("{CONFIG_MAPS}?limit=2")).await;
    let token = first.at(&["metadata", "continue"]);
    assert_eq!(first.at(&["metadata", "remainingItemCount"]), "3");
    api.delete(&format!("{CONFIG_MAPS}/c3")).await;
    let second = api.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    assert_eq!(second.at(&["metadata", "resourceVersion"]), first.at(&["metadata", "resourceVersion"]));
    assert_eq!(names(&api, &format!("?limit=9&continue={token}")).await, "c2 c3 c4");
    assert_eq!(names(&api, "").await, "c0 c1 c2 c4");
    assert!(names(&api, "?continue=junk").await.starts_with("400 BadRequest: continue key is not valid: "));
}

#[tokio::test]
async fn an_expired_token_comes_with_an_inconsistent_one() {
    let api = five().await;
    let first = api.get(&format!("{CONFIG_MAPS}?limit=2")).await;
    let (old, token) = (first.at(&["metadata", "resourceVersion"]), first.at(&["metadata", "continue"]));
    api.post(CONFIG_MAPS, r#"{"metadata":{"name":"c2a"}}"#).await;
    assert_eq!(names(&api, &format!("?limit=2&continue={token}")).await, "c2 c3");
    // What is compacted is expired, though the cache remembers each change.
    api.store.compact(api.store.revision()).await.unwrap();
    let answer = api.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    assert_eq!((answer.status.as_u16(), &*answer.at(&["reason"])), (410, "Expired"));
    let fresh = answer.at(&["metadata", "continue"]);
    let rest = api.get(&format!("{CONFIG_MAPS}?limit=2&continue={fresh}")).await;
    assert_ne!(rest.at(&["metadata", "resourceVersion"]), old);
    assert_eq!(names(&api, &format!("?limit=2&continue={fresh}")).await, "c2 c2a");
}

#[tokio::test]
async fn versions_follow_the_match_rules() {
    let api = five().await;
    let version: u64 = api.get(CONFIG_MAPS).await.at(&["metadata", "resourceVersion"]).parse().unwrap();
    api.post(CONFIG_MAPS, r#"{"metadata":{"name":"late"}}"#).await;
    assert_eq!(names(&api, &format!("?resourceVersion={version}&resourceVersionMatch=Exact")).await, "c0 c1 c2 c3 c4");
    assert_eq!(
        names(&api, &format!("?resourceVersion={version}&resourceVersionMatch=NotOlderThan")).await.get(..14),
        Some("c0 c1 c2 c3 c4")
    );
    assert_eq!(names(&api, "?resourceVersion=0").await, "c0 c1 c2 c3 c4 late");
    let future = names(&api, "?resourceVersion=99999999").await;
    assert!(future.starts_with("504 Timeout: Too large resource version: 99999999, current: "), "{future}");
    assert!(names(&api, "?resourceVersion=x").await.starts_with("400 BadRequest: "));
    assert!(names(&api, "?resourceVersionMatch=Exact").await.starts_with("422 Invalid: ListOptions.meta.k8s.io"));
}

#[tokio::test]
async fn forms_are_negotiated() {
    let api = five().await;
    let form =
        async |accept: &str| api.send(Method::GET, &format!("{CONFIG_MAPS}/c0"), &[("accept", accept)], b"").await;
    let table = form("application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!((table.at(&["kind"]), table.tree().list_at(&["rows"]).len()), ("Table".into(), 1));
    let metadata = form("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await;
    assert_eq!((metadata.at(&["kind"]), metadata.at(&["data"])), ("PartialObjectMetadata".into(), "-".into()));
    let protobuf = form("application/vnd.kubernetes.protobuf").await;
    assert!(protobuf.body.starts_with(b"k8s\0"));
    let yaml = form("application/yaml").await;
    assert!(yaml.body.starts_with(b"apiVersion: v1\n"));
    assert_eq!(form("image/png").await.status, 406);
    let list = api.send(Method::GET, CONFIG_MAPS, &[("accept", "application/vnd.kubernetes.protobuf")], b"").await;
    assert!(list.body.starts_with(b"k8s\0"));
    let review = api
        .send(
            Method::POST,
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"), ("content-type", "application/json")],
            br#"{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}"#,
        )
        .await;
    assert_eq!(review.status, 406);
}

#[tokio::test]
async fn large_lists_are_compressed() {
    let api = api().await;
    for index in 0..3 {
        let body = format!(r#"{{"metadata":{{"name":"c{index}"}},"data":{{"x":"{}"}}}}"#, "y".repeat(100_000));
        api.post(CONFIG_MAPS, &body).await;
    }
    let answer = api.send(Method::GET, CONFIG_MAPS, &[("accept-encoding", "gzip")], b"").await;
    assert_eq!(answer.headers["content-encoding"], "gzip");
    assert!(answer.body.len() < 10_000);
}
