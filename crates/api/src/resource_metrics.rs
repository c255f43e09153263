//! `metrics.k8s.io/v1beta1`: what nodes and pods use, for `kubectl top` and the autoscaler.
//!
//! Served by this server itself as long as the APIService `v1beta1.metrics.k8s.io` is local; who
//! installs a metrics server of his own points it elsewhere. The numbers come from the kubelets'
//! `/stats/summary`, through the way of the node proxy, only when somebody asks and at most every
//! [`FRESH`]. Usage of processors is the mean over the time between two samples, or since the start
//! for what has been sampled once; `window` says which.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use skiff_base::Timestamp;
use skiff_object::selector::label;
use skiff_object::{Map, Tree, json};
use tokio::sync::Semaphore;

use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult, Qualified};
use crate::negotiate::{self, Offer};
use crate::proxy::Destination;
use crate::request::options;
use crate::server::ApiServer;
use crate::{meta, respond, routes};

/// The group.
pub(crate) const GROUP: &str = "metrics.k8s.io";
/// The version.
pub(crate) const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// Samples are this fresh: metrics-server's resolution.
const FRESH: Duration = Duration::from_secs(15);
/// Samples further apart say nothing about now.
const WINDOW_MAX: Duration = Duration::from_secs(300);
/// A kubelet that takes longer is left out.
const KUBELET_TIMEOUT: Duration = Duration::from_secs(10);
/// Kubelets asked at a time.
const KUBELETS_AT_ONCE: usize = 64;
/// The largest summary: a node has at most some hundred pods of about a kilobyte per container.
const SUMMARY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is known of all nodes.
pub(crate) struct ResourceMetrics {
    samples: Mutex<Samples>,
    /// One collects, the others wait for what it brings.
    collecting: Semaphore,
}

impl Default for ResourceMetrics {
    fn default() -> Self {
        Self { samples: Mutex::default(), collecting: Semaphore::new(1) }
    }
}

#[derive(Clone, Default)]
struct Samples {
    at: Option<Timestamp>,
    now: Arc<BTreeMap<String, NodeSample>>,
    before: Arc<BTreeMap<String, NodeSample>>,
}

/// One kubelet's summary.
#[derive(Clone, Debug, Default, PartialEq)]
struct NodeSample {
    usage: Sample,
    /// By pod uid and container name.
    containers: BTreeMap<(String, String), Sample>,
}

/// What something had used at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sample {
    at_nanos: i64,
    started_nanos: i64,
    cpu_nanos: u64,
    memory_bytes: u64,
}

/// What something uses.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Usage {
    /// Billionths of a processor.
    cpu_nano: u64,
    memory_bytes: u64,
    at_nanos: i64,
    window_nanos: i64,
}

impl Sample {
    fn parse(object: &Tree) -> Option<Self> {
        let time = |path: &[&str]| meta::parse_time(object.str_at(path)).map(|at| at.as_nanos());
        let number = |path: &[&str]| object.int_at(path).and_then(|number| u64::try_from(number).ok());
        Some(Self {
            at_nanos: time(&["cpu", "time"])?,
            started_nanos: time(&["startTime"]).unwrap_or(0),
            cpu_nanos: number(&["cpu", "usageCoreNanoSeconds"])?,
            memory_bytes: number(&["memory", "workingSetBytes"])?,
        })
    }

    /// The mean between two samples, or since the start.
    fn usage(&self, before: Option<&Self>) -> Option<Usage> {
        let window_max = i64::try_from(WINDOW_MAX.as_nanos()).unwrap_or(i64::MAX);
        let comparable = |one: &&Self| {
            let window = self.at_nanos - one.at_nanos;
            one.cpu_nanos <= self.cpu_nanos
                && one.started_nanos == self.started_nanos
                && window > 0
                && window <= window_max
        };
        let (from, used) = match before.filter(comparable) {
            Some(before) => (before.at_nanos, self.cpu_nanos - before.cpu_nanos),
            None if self.started_nanos > 0 => (self.started_nanos, self.cpu_nanos),
            None => return None,
        };
        let window_nanos = self.at_nanos.checked_sub(from).filter(|window| *window > 0)?;
        let cpu_nano = u128::from(used) * 1_000_000_000 / window_nanos.unsigned_abs() as u128;
        Some(Usage {
            cpu_nano: u64::try_from(cpu_nano).unwrap_or(u64::MAX),
            memory_bytes: self.memory_bytes,
            at_nanos: self.at_nanos,
            window_nanos,
        })
    }
}

impl NodeSample {
    fn parse(summary: &Tree) -> Option<Self> {
        let mut containers = BTreeMap::new();
        for pod in summary.list_at(&["pods"]) {
            for container in pod.list_at(&["containers"]) {
                if let Some(sample) = Sample::parse(container) {
                    let uid = pod.str_at(&["podRef", "uid"]).to_owned();
                    containers.insert((uid, container.str_at(&["name"]).to_owned()), sample);
                }
            }
        }
        Some(Self { usage: Sample::parse(summary.get("node")?)?, containers })
    }
}

/// Whether a request is answered here.
pub(crate) fn handles(server: &ApiServer, group: &str, version: &str) -> bool {
    group == GROUP && version == VERSION && is_served(server)
}

/// Whether this server serves the group: it is told to, and nobody else does.
pub(crate) fn is_served(server: &ApiServer) -> bool {
    server.config.aggregation.resource_metrics && server.aggregator.is_local(&format!("{VERSION}.{GROUP}"))
}

/// Answers a request for a resource of the group.
pub(crate) async fn answer(server: &Arc<ApiServer>, call: &Call) -> ApiResult<Response<Body>> {
    let info = &call.info;
    let namespaced = match info.resource.as_str() {
        "nodes" => false,
        "pods" => true,
        _ => return Ok(routes::no_such_page()),
    };
    let named = info.path_names_object();
    if info.parts.len() > 2 || (!namespaced && !info.namespace.is_empty()) {
        return Ok(routes::no_such_page());
    }
    if !matches!((info.verb, named), ("get", true) | ("list", false))
        || (named && namespaced && info.namespace.is_empty())
    {
        return Err(ApiError::method_not_allowed());
    }
    let form = negotiate::accept(&call.headers, &call.query, Offer::CUSTOM)?;
    collect(server).await?;
    let samples = server.resource_metrics.samples.lock().clone();
    let tree = if named {
        one(server, call, namespaced, &samples).await?
    } else {
        list(server, call, namespaced, &samples).await?
    };
    Ok(respond::tree(StatusCode::OK, &tree, None, skiff_kinds::schema(), form))
}

async fn one(server: &ApiServer, call: &Call, namespaced: bool, samples: &Samples) -> ApiResult<Tree> {
    let (namespace, name) = (call.info.namespace.as_str(), call.info.name.as_str());
    let (plural, kind) = if namespaced { ("pods", "podmetrics") } else { ("nodes", "nodemetrics") };
    let shown = if namespaced { format!("{namespace}/{name}") } else { name.to_owned() };
    let Some(stored) = server.collection("", plural).get(namespace, name).await? else {
        return Err(ApiError::not_found(Qualified { group: "", name: plural }, &shown));
    };
    let object = json::decode_untyped(&stored.value).map_err(ApiError::internal)?;
    let metrics = if namespaced { pod(&object, samples) } else { node(&object, samples) };
    metrics.ok_or_else(|| ApiError::not_found(Qualified { group: GROUP, name: kind }, &shown))
}

async fn list(server: &ApiServer, call: &Call, namespaced: bool, samples: &Samples) -> ApiResult<Tree> {
    let plural = if namespaced { "pods" } else { "nodes" };
    let wanted = Wanted::parse(&call.query)?;
    let mut items = Vec::new();
    for item in server.collection("", plural).list(&call.info.namespace).await? {
        let object = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
        if wanted.matches(&object) {
            items.extend(if namespaced { pod(&object, samples) } else { node(&object, samples) });
        }
    }
    let mut list = Map::new();
    list.insert("kind", if namespaced { "PodMetricsList" } else { "NodeMetricsList" });
    list.insert("apiVersion", API_VERSION);
    list.insert("metadata", Tree::map());
    list.insert("items", items);
    Ok(Tree::Map(list))
}

/// The selectors of a list.
struct Wanted {
    labels: label::Selector,
    name: Option<String>,
}

impl Wanted {
    fn parse(query: &str) -> ApiResult<Self> {
        let text = options::first(query, "labelSelector").unwrap_or_default();
        let labels = match text.as_str() {
            "" => label::Selector::everything(),
            text => label::Selector::parse(text).map_err(|error| ApiError::bad_request(error.to_string()))?,
        };
        Ok(Self { labels, name: options::name_selector(query) })
    }

    fn matches(&self, object: &Tree) -> bool {
        let named = self.name.as_deref().is_none_or(|name| meta::name(object) == name);
        named && self.labels.matches_labels(object.at(&["metadata", "labels"]))
    }
}

fn node(object: &Tree, samples: &Samples) -> Option<Tree> {
    let name = meta::name(object);
    let sample = samples.now.get(name)?;
    let usage = sample.usage.usage(samples.before.get(name).map(|before| &before.usage))?;
    let mut tree = header("NodeMetrics", object, &usage);
    tree.insert("usage", amounts(&usage));
    Some(Tree::Map(tree))
}

/// A pod's metrics, when there are some of every container that runs.
fn pod(object: &Tree, samples: &Samples) -> Option<Tree> {
    let uid = meta::uid(object);
    let on = object.str_at(&["spec", "nodeName"]);
    let now = samples.now.get(on)?;
    let before = samples.before.get(on);
    let statuses = object.list_at(&["status", "containerStatuses"]).iter();
    let running = statuses.filter(|one| one.at(&["state", "running"]).is_some_and(|state| !state.is_null()));
    let mut containers = Vec::new();
    let mut whole: Option<Usage> = None;
    for status in running {
        let key = (uid.to_owned(), status.str_at(&["name"]).to_owned());
        let usage = now.containers.get(&key)?.usage(before.and_then(|before| before.containers.get(&key)))?;
        if whole.is_none_or(|whole| usage.at_nanos < whole.at_nanos) {
            whole = Some(usage);
        }
        let mut container = Map::new();
        container.insert("name", key.1);
        container.insert("usage", amounts(&usage));
        containers.push(Tree::Map(container));
    }
    let mut tree = header("PodMetrics", object, &whole?);
    tree.insert("containers", containers);
    Some(Tree::Map(tree))
}

fn header(kind: &'static str, object: &Tree, usage: &Usage) -> Map {
    let mut metadata = Map::new();
    metadata.insert("name", meta::name(object));
    if !meta::namespace(object).is_empty() {
        metadata.insert("namespace", meta::namespace(object));
    }
    let at = meta::time(Timestamp::from_nanos(usage.at_nanos));
    metadata.insert("creationTimestamp", at.as_str());
    if let Some(labels @ Tree::Map(_)) = object.at(&["metadata", "labels"]) {
        metadata.insert("labels", labels.clone());
    }
    let mut tree = Map::new();
    tree.insert("kind", kind);
    tree.insert("apiVersion", API_VERSION);
    tree.insert("metadata", Tree::Map(metadata));
    tree.insert("timestamp", at);
    // Milliseconds: nobody reads further.
    let window = usage.window_nanos / 1_000_000 * 1_000_000;
    tree.insert("window", skiff_object::time::format_duration(window));
    tree
}

fn amounts(usage: &Usage) -> Tree {
    let mut tree = Map::new();
    tree.insert("cpu", scaled(usage.cpu_nano, 1_000, &["n", "u", "m", ""]));
    tree.insert("memory", scaled(usage.memory_bytes, 1_024, &["", "Ki", "Mi", "Gi", "Ti"]));
    Tree::Map(tree)
}

/// A quantity in its canonical form: the largest suffix that loses nothing.
fn scaled(mut number: u64, step: u64, suffixes: &[&str]) -> String {
    let mut at = 0;
    while number != 0 && number.is_multiple_of(step) && at + 1 < suffixes.len() {
        number /= step;
        at += 1;
    }
    if number == 0 { "0".to_owned() } else { format!("{number}{}", suffixes[at]) }
}

/// Asks every kubelet, unless somebody has just done so.
async fn collect(server: &Arc<ApiServer>) -> ApiResult<()> {
    let metrics = &server.resource_metrics;
    let fresh = || metrics.samples.lock().at.is_some_and(|at| server.clock().now().since(at) < FRESH);
    if fresh() {
        return Ok(());
    }
    let _turn = metrics.collecting.acquire().await.map_err(ApiError::internal)?;
    if fresh() {
        return Ok(());
    }
    let mut names = Vec::new();
    for item in server.collection("", "nodes").list("").await? {
        names.push(item.place().1.to_owned());
    }
    let asked = stream::iter(names).map(|name| {
        let server = Arc::clone(server);
        async move {
            let summary = tokio::time::timeout(KUBELET_TIMEOUT, summary(&server, &name)).await;
            match summary.unwrap_or_else(|_| Err("timed out".to_owned())) {
                Ok(sample) => Some((name, sample)),
                Err(error) => {
                    tracing::debug!(node = name, error, "no metrics of a node");
                    None
                }
            }
        }
    });
    let found: BTreeMap<String, NodeSample> =
        asked.buffer_unordered(KUBELETS_AT_ONCE).filter_map(std::future::ready).collect().await;
    let mut samples = metrics.samples.lock();
    samples.before = std::mem::replace(&mut samples.now, Arc::new(found));
    samples.at = Some(server.clock().now());
    Ok(())
}

async fn summary(server: &ApiServer, node: &str) -> Result<NodeSample, String> {
    let dialer = server.config.dialer.as_ref().ok_or("this server reaches no nodes")?;
    let destination = Destination::Kubelet { node: node.to_owned() };
    let connection = dialer.dial(&destination).await.map_err(|error| error.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await;
    let (mut sender, driver) = handshake.map_err(|error| error.to_string())?;
    server.config.tasks.spawn("node-metrics", async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "a connection to a kubelet broke");
        }
    });
    let request = Request::builder()
        .method(Method::GET)
        .uri("/stats/summary?only_cpu_and_memory=true")
        .header(http::header::HOST, node)
        .body(Full::new(Bytes::new()))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the kubelet answered {}", answer.status()));
    }
    let body = http_body_util::Limited::new(answer.into_body(), SUMMARY_BYTES_MAX);
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    let tree = json::decode_untyped(&body).map_err(|error| error.to_string())?;
    NodeSample::parse(&tree).ok_or_else(|| "the summary says nothing of the node".to_owned())
}

const VERBS: [&str; 2] = ["get", "list"];

/// The resources, as aggregated discovery shows them.
pub(crate) fn discovery() -> Tree {
    let resource = |(name, kind, scope): (&'static str, &'static str, &'static str)| {
        let mut response_kind = Map::new();
        for (field, value) in [("group", ""), ("version", ""), ("kind", kind)] {
            response_kind.insert(field, value);
        }
        let mut tree = Map::new();
        tree.insert("resource", name);
        tree.insert("responseKind", Tree::Map(response_kind));
        tree.insert("scope", scope);
        tree.insert("singularResource", "");
        tree.insert("verbs", VERBS.map(Tree::from).to_vec());
        Tree::Map(tree)
    };
    Tree::List([("nodes", "NodeMetrics", "Cluster"), ("pods", "PodMetrics", "Namespaced")].map(resource).to_vec())
}

/// The `APIResourceList`.
pub(crate) fn resource_list() -> Tree {
    let resource = |(name, kind, namespaced): (&'static str, &'static str, bool)| {
        let mut tree = Map::new();
        tree.insert("name", name);
        tree.insert("singularName", "");
        tree.insert("namespaced", namespaced);
        tree.insert("kind", kind);
        tree.insert("verbs", VERBS.map(Tree::from).to_vec());
        Tree::Map(tree)
    };
    let mut list = Map::new();
    list.insert("kind", "APIResourceList");
    list.insert("apiVersion", "v1");
    list.insert("groupVersion", API_VERSION);
    list.insert("resources", [("nodes", "NodeMetrics", false), ("pods", "PodMetrics", true)].map(resource).to_vec());
    Tree::Map(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn sample(at: i64, started: i64, cpu_nanos: u64) -> Sample {
        Sample { at_nanos: at * SECOND, started_nanos: started * SECOND, cpu_nanos, memory_bytes: 4_096 }
    }

    #[test]
    fn usage_is_the_mean_between_samples_or_since_the_start() {
        let now = sample(100, 40, 9_000_000_000);
        let check = |before: Option<Sample>| {
            let usage = now.usage(before.as_ref()).unwrap();
            (usage.cpu_nano, usage.window_nanos / SECOND)
        };
        assert_eq!(check(None), (150_000_000, 60));
        assert_eq!(check(Some(sample(80, 40, 5_000_000_000))), (200_000_000, 20));
        // It has started anew, or the sample is too old: only the time since the start says anything.
        assert_eq!(check(Some(sample(80, 10, 8_000_000_000))), (150_000_000, 60));
        assert_eq!(check(Some(sample(80, 40, 10_000_000_000))), (150_000_000, 60));
        assert_eq!(sample(100, 0, 1).usage(None), None);
    }

    #[test]
    fn quantities_are_canonical() {
        let cpu = |number| scaled(number, 1_000, &["n", "u", "m", ""]);
        assert_eq!([cpu(0), cpu(156_340), cpu(250_000_000), cpu(2_000_000_000)], ["0", "156340n", "250m", "2"]);
        let memory = |number| scaled(number, 1_024, &["", "Ki", "Mi", "Gi", "Ti"]);
        assert_eq!([memory(1_000), memory(12_288), memory(1 << 30)], ["1000", "12Ki", "1Gi"]);
    }
}
