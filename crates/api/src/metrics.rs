//! `/metrics`: what the server counts, under upstream's names.
//!
//! Recording takes no lock and builds no text. Labels that come from a request are only those of
//! resources that are served and paths that are known; everything else counts with empty labels.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Response, StatusCode};
use http_body::Body as _;

use crate::authn::UserInfo;
use crate::authz::Decision;
use crate::body::Body;
use crate::chain::Call;
use crate::discovery;
use crate::request::RequestInfo;
use crate::respond;
use crate::server::ApiServer;

mod answers;
mod cluster;
mod family;
pub mod histogram;
pub(crate) mod names;
mod process;
pub(crate) mod text;
pub mod webhooks;

use answers::Answers;
use family::Family;
use histogram::{ADMISSION_SECONDS, EVENT_BYTES, Histogram};
use names::Name;
use text::{Page, push_label};

/// Series of requests: resources times verbs that do occur.
const REQUEST_SERIES_MAX: usize = 2_048;
/// Series of what has few labels.
const SERIES_MAX: usize = 512;
/// Paths that are no resources and are counted by name.
const PATHS: [&str; 9] =
    ["/", "/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz"];

/// What a server counts.
pub struct Metrics {
    answers: Family<8, Arc<Answers>>,
    long_running: Family<7, Arc<AtomicI64>>,
    watch_events: Family<3, Arc<Histogram>>,
    admission: Family<4, Histogram>,
    pub(crate) webhooks: webhooks::Webhooks,
    inflight: [AtomicI64; 2],
    authentications: [AtomicU64; 2],
    users: [AtomicU64; 2],
    authorizations: [AtomicU64; 3],
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            answers: Family::new(
                ["component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"],
                REQUEST_SERIES_MAX,
                Arc::<Answers>::default,
            ),
            long_running: Family::new(
                ["component", "group", "resource", "scope", "subresource", "verb", "version"],
                SERIES_MAX,
                Arc::default,
            ),
            watch_events: Family::new(["group", "resource", "version"], SERIES_MAX, || {
                Arc::new(Histogram::new(&EVENT_BYTES))
            }),
            admission: Family::new(["name", "operation", "rejected", "type"], SERIES_MAX, || {
                Histogram::new(&ADMISSION_SECONDS)
            }),
            webhooks: webhooks::Webhooks::default(),
            inflight: Default::default(),
            authentications: Default::default(),
            users: Default::default(),
            authorizations: Default::default(),
        }
    }
}

/// What is kept of a request until its answer is counted.
pub struct Asked {
    method: http::Method,
    info: Arc<RequestInfo>,
    is_dry_run: bool,
    is_apply: bool,
}

impl Asked {
    /// Keeps what counts of a call.
    pub fn of(call: &Call) -> Self {
        let content = call.headers.get(http::header::CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
        Self {
            method: call.method.clone(),
            info: Arc::clone(&call.info),
            is_dry_run: call.query.contains("dryRun=All"),
            is_apply: call.info.verb == "patch" && content.starts_with(b"application/apply-patch"),
        }
    }

    /// The path that was asked for.
    pub fn path(&self) -> &str {
        &self.info.path
    }

    /// The method of the request.
    pub fn method(&self) -> &str {
        self.method.as_str()
    }

    /// What a trace calls the request.
    pub(crate) fn span_name(&self) -> String {
        crate::traces::name(&self.method, &self.info)
    }

    /// Whether the request may change something.
    pub fn is_mutating(&self) -> bool {
        !matches!(self.info.verb, "get" | "list" | "watch" | "head" | "options")
    }

    fn labels(&self) -> Labels<'_> {
        let info = &self.info;
        if !info.is_resource {
            let path = PATHS.into_iter().find(|path| *path == info.path).unwrap_or("");
            return Labels { subresource: path, ..Labels::unknown(upper(info.verb)) };
        }
        let connects = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
        Labels {
            component: "apiserver",
            dry_run: if self.is_dry_run { "All" } else { "" },
            group: &info.group,
            resource: &info.resource,
            scope: match () {
                () if !info.name.is_empty() || info.verb == "create" => "resource",
                () if !info.namespace.is_empty() => "namespace",
                () => "cluster",
            },
            subresource: &info.subresource,
            verb: match info.verb {
                _ if connects => "CONNECT",
                _ if self.is_apply => "APPLY",
                verb => upper(verb),
            },
            version: &info.version,
        }
    }
}

/// The labels of a request, as upstream cleans them.
#[derive(Clone, Copy)]
struct Labels<'a> {
    component: &'static str,
    dry_run: &'static str,
    group: &'a str,
    resource: &'a str,
    scope: &'static str,
    subresource: &'a str,
    verb: &'static str,
    version: &'a str,
}

impl<'a> Labels<'a> {
    const fn unknown(verb: &'static str) -> Self {
        Self { component: "", dry_run: "", group: "", resource: "", scope: "", subresource: "", verb, version: "" }
    }

    /// These labels when the resource is served, else only the verb.
    fn served(self, server: &ApiServer) -> Self {
        let registry = server.registry();
        let served = |labels: &Self| {
            registry.resource(labels.group, labels.version, labels.resource).is_some_and(|kind| {
                labels.subresource.is_empty()
                    || kind.facts().subresources.iter().any(|sub| sub.name.as_str() == labels.subresource)
            })
        };
        if self.resource.is_empty() || served(&self) { self } else { Self::unknown(self.verb) }
    }

    fn seven(&self) -> [&'a str; 7] {
        [self.component, self.group, self.resource, self.scope, self.subresource, self.verb, self.version]
    }

    fn eight(&self) -> [&'a str; 8] {
        let [component, group, resource, scope, subresource, verb, version] = self.seven();
        [component, self.dry_run, group, resource, scope, subresource, verb, version]
    }
}

/// A verb as metrics spell it; what is no verb is empty.
fn upper(verb: &str) -> &'static str {
    match verb {
        "get" => "GET",
        "head" => "HEAD",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "proxy" => "CONNECT",
        "options" => "OPTIONS",
        _ => "",
    }
}

/// One more of something until it is dropped.
pub struct Running(Arc<AtomicI64>);

impl Running {
    fn new(gauge: &Arc<AtomicI64>) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(gauge))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One more request in flight until it is dropped.
pub struct Inflight<'a>(&'a AtomicI64);

impl Drop for Inflight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes of a body that is being sent; observed when it is dropped.
struct Sent(Arc<Answers>, u64);

impl Sent {
    fn add(&mut self, bytes: usize) {
        self.1 += bytes as u64;
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.bytes.observe_units(self.1);
    }
}

fn count_bytes(answers: Arc<Answers>, response: &mut Response<Body>) {
    let Body::Stream(stream) = std::mem::replace(response.body_mut(), Body::empty()) else { return };
    let mut sent = Sent(answers, 0);
    let counted = stream.inspect(move |chunk| sent.add(chunk.as_ref().map_or(0, Bytes::len)));
    *response.body_mut() = Body::Stream(counted.boxed());
}

impl Metrics {
    /// Counts an answer. A stream is counted as open until it ends, and a watch by its events.
    pub fn answered(&self, server: &ApiServer, asked: &Asked, took: Duration, response: &mut Response<Body>) {
        let (status, labels) = (response.status(), asked.labels());
        let known = self.answers.get(labels.eight());
        let labels = if known.is_some() { labels } else { labels.served(server) };
        let answers = known.unwrap_or_else(|| self.answers.with(labels.eight()));
        answers.count(status);
        answers.seconds.observe(took);
        if let Some(bytes) = response.body().size_hint().exact() {
            answers.bytes.observe_units(bytes);
        }
        if matches!(response.body(), Body::Stream(_)) {
            match labels.verb {
                // How long a list or a document is, its end says.
                "LIST" => count_bytes(Arc::clone(answers), response),
                _ if !asked.info.is_resource => count_bytes(Arc::clone(answers), response),
                _ => self.follow(labels, response),
            }
        }
    }

    fn follow(&self, labels: Labels<'_>, response: &mut Response<Body>) {
        let running = Running::new(self.long_running.with(labels.seven()));
        let events = (labels.verb == "WATCH")
            .then(|| Arc::clone(self.watch_events.with([labels.group, labels.resource, labels.version])));
        let Body::Stream(stream) = std::mem::replace(response.body_mut(), Body::empty()) else { return };
        let counted = stream.map(move |chunk| {
            let _open = &running;
            if let (Some(events), Ok(chunk)) = (&events, &chunk) {
                events.observe_units(Bytes::len(chunk) as u64);
            }
            chunk
        });
        *response.body_mut() = Body::Stream(counted.boxed());
    }

    /// Counts a request that will end by itself while it is being answered.
    pub fn inflight(&self, mutating: bool) -> Inflight<'_> {
        let gauge = &self.inflight[usize::from(mutating)];
        gauge.fetch_add(1, Ordering::Relaxed);
        Inflight(gauge)
    }

    /// Counts what became of credentials.
    pub fn authenticated(&self, user: Option<&UserInfo>) {
        self.authentications[usize::from(user.is_none())].fetch_add(1, Ordering::Relaxed);
        if let Some(user) = user {
            self.users[usize::from(user.name.contains('@'))].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what was decided.
    pub fn decided(&self, decision: &Decision) {
        let at = match decision {
            Decision::Allow(_) => 0,
            Decision::Deny(_) => 1,
            Decision::NoOpinion(_) => 2,
        };
        self.authorizations[at].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one run of one half (`admit` or `validate`) of an admission plugin.
    pub fn admitted(&self, plugin: &str, operation: &str, half: &str, rejected: bool, took: Duration) {
        let rejected = if rejected { "true" } else { "false" };
        self.admission.with([plugin, operation, rejected, half]).observe(took);
    }
}

/// Answers `/metrics`.
pub fn answer(server: &ApiServer) -> Response<Body> {
    let mut page = Page::default();
    requests(&mut page, server);
    access(&mut page, &server.metrics);
    crate::flow_control::page::write(&mut page, &server.flow_control);
    storage(&mut page, server);
    cluster::write(&mut page, server);
    build_info(&mut page, &server.config.build);
    features(&mut page);
    process::write(&mut page);
    // Components that run in this process count under its tasks.
    let page = page.finish() + &server.config.tasks.metrics().text();
    respond::whole(StatusCode::OK, page, "text/plain; version=0.0.4; charset=utf-8")
}

fn audit(page: &mut Page, server: &ApiServer) {
    let Some(counts) = server.audit.counts() else { return single(page, Name::AuditEvents, 0.0) };
    single(page, Name::AuditEvents, counter(&counts.events));
    let errors = [&counts.errors.buffered, &counts.errors.log, &counts.errors.webhook].map(counter);
    by_label(page, Name::AuditErrors, "plugin", ["buffered", "log", "webhook"], &errors);
    let levels = counts.levels.each_ref().map(counter);
    by_label(page, Name::AuditLevels, "level", ["None", "Metadata", "Request", "RequestResponse"], &levels);
    single(page, Name::AuditRejected, counter(&counts.rejected));
}

/// Answers `/metrics/slis`: how the health checks went.
pub fn slis(server: &ApiServer) -> Response<Body> {
    let counts = server.health.counts();
    let mut page = Page::default();
    let labels = |endpoint: &str, name: &str, status: Option<&str>| {
        let mut labels = String::new();
        push_label(&mut labels, "name", name);
        if let Some(status) = status {
            push_label(&mut labels, "status", status);
        }
        push_label(&mut labels, "type", endpoint);
        labels
    };
    page.begin(Name::Healthcheck);
    for ((endpoint, name), count) in &counts {
        page.value(Name::Healthcheck, &labels(endpoint, name, None), if count.is_well { 1.0 } else { 0.0 });
    }
    page.begin(Name::Healthchecks);
    for ((endpoint, name), count) in &counts {
        for (status, value) in [("error", count.errors), ("success", count.successes)] {
            if value > 0 {
                page.value(Name::Healthchecks, &labels(endpoint, name, Some(status)), value as f64);
            }
        }
    }
    respond::whole(StatusCode::OK, page.finish(), "text/plain; version=0.0.4; charset=utf-8")
}

/// Feature gates that clients ask about and that are on here, with their stage in v1.36.
const FEATURES: [(&str, &str); 5] = [
    ("AnonymousAuthConfigurableEndpoints", ""),
    ("ConsistentListFromCache", ""),
    ("SizeBasedListCostEstimate", "BETA"),
    ("StructuredAuthenticationConfiguration", ""),
    ("WatchList", "BETA"),
];

fn features(page: &mut Page) {
    page.begin(Name::FeatureEnabled);
    for (name, stage) in FEATURES {
        let mut labels = String::new();
        push_label(&mut labels, "name", name);
        push_label(&mut labels, "stage", stage);
        page.value(Name::FeatureEnabled, &labels, 1.0);
    }
}

fn requests(page: &mut Page, server: &ApiServer) {
    let metrics = &server.metrics;
    page.begin(Name::Admission);
    metrics.admission.each(|labels, value| page.histogram(Name::Admission, labels, value));
    metrics.webhooks.write(page);
    audit(page, server);
    by_label(page, Name::Inflight, "request_kind", ["readOnly", "mutating"], &metrics.inflight.each_ref().map(gauge));
    page.begin(Name::LongRunning);
    metrics.long_running.each(|labels, value| page.value(Name::LongRunning, labels, gauge(value)));
    page.begin(Name::RequestSeconds);
    metrics.answers.each(|labels, answers| page.histogram(Name::RequestSeconds, labels, &answers.seconds));
    page.begin(Name::Requests);
    metrics.answers.each(|labels, answers| {
        for (code, count) in answers.codes() {
            page.value(Name::Requests, &format!("code=\"{code}\",{labels}"), count as f64);
        }
    });
    page.begin(Name::ResponseBytes);
    metrics.answers.each(|labels, answers| {
        // Upstream looks at reads only, and at no dry runs.
        if labels.contains("verb=\"GET\"") || labels.contains("verb=\"LIST\"") {
            page.histogram(Name::ResponseBytes, &labels.replace("dry_run=\"\",", ""), &answers.bytes);
        }
    });
    page.begin(Name::WatchEventBytes);
    metrics.watch_events.each(|labels, value| page.histogram(Name::WatchEventBytes, labels, value));
    page.begin(Name::WatchEvents);
    metrics.watch_events.each(|labels, value| {
        let count = value.cumulative().last().map_or(0, |(_, count)| count);
        page.value(Name::WatchEvents, labels, count as f64);
    });
}

fn access(page: &mut Page, metrics: &Metrics) {
    let counters = |values: &[AtomicU64]| values.iter().map(counter).collect::<Vec<_>>();
    by_label(page, Name::Users, "username", ["other", "email_id"], &counters(&metrics.users));
    by_label(page, Name::Authentications, "result", ["success", "failure"], &counters(&metrics.authentications));
    by_label(
        page,
        Name::Authorizations,
        "result",
        ["allowed", "denied", "no-opinion"],
        &counters(&metrics.authorizations),
    );
}

fn storage(page: &mut Page, server: &ApiServer) {
    let collections = server.collections.all();
    page.begin(Name::StoreSeconds);
    for collection in &collections {
        collection.timings.each(|operation, histogram| {
            let mut labels = String::new();
            push_label(&mut labels, "group", collection.qualified().group);
            push_label(&mut labels, "operation", operation);
            push_label(&mut labels, "resource", collection.qualified().name);
            page.histogram(Name::StoreSeconds, &labels, histogram);
        });
    }
    let counted = || collections.iter().filter_map(|one| Some((one, one.cache().latest()?.len() as f64)));
    page.begin(Name::ResourceObjects);
    for (collection, objects) in counted() {
        let mut labels = String::new();
        push_label(&mut labels, "group", collection.qualified().group);
        push_label(&mut labels, "resource", collection.qualified().name);
        page.value(Name::ResourceObjects, &labels, objects);
    }
    page.begin(Name::StorageObjects);
    for (collection, objects) in counted() {
        let mut labels = String::new();
        push_label(&mut labels, "resource", &collection.qualified().to_string());
        page.value(Name::StorageObjects, &labels, objects);
    }
}

fn build_info(page: &mut Page, build: &discovery::Build) {
    let mut labels = String::new();
    for (name, value) in discovery::version_facts(build) {
        let label = match name {
            "major" => "major",
            "minor" => "minor",
            "gitVersion" => "git_version",
            "gitCommit" => "git_commit",
            "gitTreeState" => "git_tree_state",
            "buildDate" => "build_date",
            "goVersion" => "go_version",
            "compiler" => "compiler",
            "platform" => "platform",
            _ => continue,
        };
        push_label(&mut labels, label, value);
    }
    page.begin(Name::BuildInfo);
    page.value(Name::BuildInfo, &labels, 1.0);
}

fn single(page: &mut Page, name: Name, value: f64) {
    page.begin(name);
    page.value(name, "", value);
}

fn by_label<const N: usize>(page: &mut Page, name: Name, label: &str, values: [&str; N], counts: &[f64]) {
    page.begin(name);
    for (value, count) in values.into_iter().zip(counts) {
        let mut labels = String::new();
        push_label(&mut labels, label, value);
        page.value(name, &labels, *count);
    }
}

fn counter(value: &AtomicU64) -> f64 {
    value.load(Ordering::Relaxed) as f64
}

fn gauge(value: &AtomicI64) -> f64 {
    value.load(Ordering::Relaxed) as f64
}
