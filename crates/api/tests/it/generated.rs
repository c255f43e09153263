//! A hundred thousand generated requests: every one is answered, none panics.

use bytes::Bytes;
use http::Method;
use skiff_base::Random;

use crate::support::api;

/// More of them do not fit into a test run on two cores; `SKIFF_REQUESTS` asks for others.
const REQUESTS: usize = 100_000;

const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

const SEGMENTS: [&str; 44] = [
    "api",
    "apis",
    "v1",
    "v2",
    "apps",
    "batch",
    "namespaces",
    "default",
    "kube-system",
    "pods",
    "configmaps",
    "secrets",
    "services",
    "deployments",
    "jobs",
    "events",
    "nodes",
    "leases",
    "a",
    "b",
    "%2F",
    "%ff",
    "..",
    "",
    "status",
    "scale",
    "binding",
    "eviction",
    "token",
    "log",
    "exec",
    "proxy",
    "finalize",
    "watch",
    "authorization.k8s.io",
    "selfsubjectaccessreviews",
    "autoscaling",
    "horizontalpodautoscalers",
    "rbac.authorization.k8s.io",
    "clusterroles",
    "healthz",
    "version",
    "openapi",
    "é",
];

const QUERIES: [&str; 36] = [
    "limit=1",
    "limit=-1",
    "limit=x",
    "continue=abc",
    "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0",
    "labelSelector=a%3Db",
    "labelSelector=a%20in%20(",
    "labelSelector=%ff",
    "fieldSelector=metadata.name%3Da",
    "fieldSelector=spec.nodeName%3Da",
    "fieldSelector=a%5C",
    "resourceVersion=0",
    "resourceVersion=1",
    "resourceVersion=999999999999999999999",
    "resourceVersion=-1",
    "resourceVersionMatch=Exact",
    "resourceVersionMatch=NotOlderThan",
    "timeoutSeconds=1",
    "timeoutSeconds=-9223372036854775808",
    "timeout=1s",
    "timeout=bogus",
    "dryRun=All",
    "dryRun=x",
    "fieldValidation=Strict",
    "fieldValidation=Ignore",
    "fieldManager=m",
    "force=true",
    "gracePeriodSeconds=0",
    "gracePeriodSeconds=-9223372036854775808",
    "gracePeriodSeconds=9223372036854775807",
    "propagationPolicy=Foreground",
    "propagationPolicy=Orphan",
    "pretty=true",
    "includeObject=Object",
    "allowWatchBookmarks=true",
    "&&==%",
];

const TYPES: [&str; 11] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "text/plain",
    "",
    ";;",
    "application/json; charset=utf-8",
];

const ACCEPTS: [&str; 9] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "*/*",
    "image/png",
    "",
    "application/json;as=Table;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
];

const KEYS: [&str; 40] = [
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "generateName",
    "uid",
    "resourceVersion",
    "managedFields",
    "deletionTimestamp",
    "creationTimestamp",
    "generation",
    "spec",
    "status",
    "kind",
    "apiVersion",
    "data",
    "containers",
    "image",
    "ports",
    "nodePort",
    "port",
    "type",
    "clusterIP",
    "clusterIPs",
    "replicas",
    "selector",
    "matchLabels",
    "template",
    "resources",
    "limits",
    "op",
    "path",
    "value",
    "target",
    "hard",
    "$patch",
    "preconditions",
];

const SCALARS: [&str; 24] = [
    "null",
    "true",
    "1",
    "-1",
    "9223372036854775807",
    "99999999999999999999",
    "1.5",
    "1e999",
    "\"\"",
    "\"a\"",
    "\"default\"",
    "\"v1\"",
    "\"Pod\"",
    "\"ConfigMap\"",
    "\"replace\"",
    "\"/metadata/labels\"",
    "\"NodePort\"",
    "\"None\"",
    "\"10.96.0.5\"",
    "\"2026-01-01T00:00:00Z\"",
    "\"1Gi\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"é\"",
];

struct Generator(Random);

impl Generator {
    fn pick<'a, T: ?Sized>(&self, items: &[&'a T]) -> &'a T {
        items[self.0.below(items.len() as u64) as usize]
    }

    fn chance(&self, percent: u64) -> bool {
        self.0.below(100) < percent
    }

    fn path(&self) -> String {
        let known = [
            "/api/v1/namespaces/default/pods",
            "/api/v1/namespaces/default/configmaps",
            "/api/v1/namespaces/default/services",
            "/apis/apps/v1/namespaces/default/deployments",
            "/api/v1/namespaces",
            "/api/v1/nodes",
            "/apis/batch/v1/namespaces/default/jobs",
            "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
            "/api/v1/namespaces/default/events",
            "/apis/events.k8s.io/v1/namespaces/default/events",
            "/api/v1/namespaces/default/resourcequotas",
        ];
        let mut path = if self.chance(80) { self.pick(&known).to_owned() } else { String::new() };
        for _ in 0..self.0.below(4) {
            path.push('/');
            path.push_str(self.pick(&SEGMENTS));
        }
        if path.is_empty() {
            path.push('/');
        }
        for index in 0..self.0.below(3) {
            path.push(if index == 0 { '?' } else { '&' });
            path.push_str(self.pick(&QUERIES));
        }
        path
    }

    fn value(&self, depth: u32, out: &mut String) {
        match self.0.below(if depth > 5 { 1 } else { 4 }) {
            0 => out.push_str(self.pick(&SCALARS)),
            1 => {
                out.push('[');
                for index in 0..self.0.below(3) {
                    if index > 0 {
                        out.push(',');
                    }
                    self.value(depth + 1, out);
                }
                out.push(']');
            }
            _ => self.map(depth, out),
        }
    }

    fn map(&self, depth: u32, out: &mut String) {
        out.push('{');
        for index in 0..self.0.below(5) {
            if index > 0 {
                out.push(',');
            }
            out.push_str(&format!("\"{}\":", self.pick(&KEYS)));
            self.value(depth + 1, out);
        }
        out.push('}');
    }

    fn body(&self) -> Vec<u8> {
        let sensible = [
            r#"{"metadata":{"name":"a"}}"#,
            r#"{"metadata":{"name":"b","finalizers":["x.io/y"]}}"#,
            r#"{"metadata":{"generateName":"g-"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#,
            r#"{"metadata":{"name":"a"},"spec":{"type":"NodePort","ports":[{"port":80},{"port":80,"protocol":"UDP"}]}}"#,
            r#"{"spec":{"replicas":3}}"#,
            r#"[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]"#,
            r#"[{"op":"copy","from":"","path":"/data/x"}]"#,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"v"}}"#,
            r#"{"metadata":{"name":"a"},"spec":{"hard":{"pods":"1","count/configmaps":"9"}}}"#,
        ];
        let mut text = String::new();
        match self.0.below(10) {
            0..=3 => text.push_str(self.pick(&sensible)),
            4 => {}
            5 => text = format!("{}{}", "{\"a\":".repeat(self.0.below(700) as usize), "1"),
            _ => self.map(0, &mut text),
        }
        let mut bytes = text.into_bytes();
        if self.chance(10) {
            bytes.truncate(self.0.below(bytes.len() as u64 + 1) as usize);
        }
        if self.chance(10) && !bytes.is_empty() {
            let at = self.0.below(bytes.len() as u64) as usize;
            bytes[at] = self.0.below(256) as u8;
        }
        if self.chance(5) {
            bytes.splice(0..0, b"k8s\0".iter().copied());
        }
        bytes
    }
}

#[tokio::test]
async fn every_generated_request_is_answered() {
    let api = api().await;
    let generator = Generator(Random::seeded(42));
    let count = std::env::var("SKIFF_REQUESTS").ok().and_then(|text| text.parse().ok()).unwrap_or(REQUESTS);
    for index in 0..count {
        let path = generator.path();
        let method = METHODS[generator.0.below(METHODS.len() as u64) as usize].clone();
        let Ok(uri) = path.parse::<http::Uri>() else { continue };
        let body = generator.body();
        let mut request = http::Request::builder().method(method.clone()).uri(uri);
        let types = [("content-type", generator.pick(&TYPES)), ("accept", generator.pick(&ACCEPTS))];
        for (name, value) in types.into_iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(name, value);
        }
        let is_watch = path.contains("watch");
        let local = api.server.local(skiff_api::UserInfo::new("fuzz", &[skiff_api::authn::MASTERS]));
        let response = local.call(request.body(Bytes::from(body.clone())).unwrap()).await;
        let status = response.status();
        let panicked = status == 500 && !is_watch && {
            let text = response.into_body().collect().await.unwrap();
            String::from_utf8_lossy(&text).contains("could not answer this request")
        };
        assert!(!panicked, "request {index}: {method} {path} {types:?} {:?}", String::from_utf8_lossy(&body));
    }
}
