//! OpenTelemetry traces of requests: a span for the request and one for each part that takes time.
//!
//! A request is traced when its `traceparent` says so (of callers who are trusted to, as upstream
//! has it) or when the sampling rate picks it. The spans of a traced request are collected in its
//! task and exported when it is answered; a request that is not traced pays for one look at an empty
//! option, and [`span`] for a read of a task-local.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use parking_lot::Mutex;
use skiff_base::{Clock, Random, Tasks, Timestamp};
use skiff_object::yaml;

mod export;
mod otlp;

use crate::authn::{MASTERS, UserInfo};
use crate::request::RequestInfo;
use export::Exporter;
use otlp::{Kind, Span};

/// Spans of one request; what comes beyond is dropped.
const SPANS_MAX: usize = 128;
/// Who may decide from outside that a request is traced, besides masters.
const MONITORING: &str = "system:monitoring";
/// The divisor of `samplingRatePerMillion`.
const MILLION: u64 = 1_000_000;

/// `apiserver.config.k8s.io TracingConfiguration`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `host:port` of an OTLP collector that speaks gRPC.
    pub endpoint: String,
    /// How many of a million requests are traced without being asked to.
    pub sampling_rate_per_million: u64,
}

impl Settings {
    /// Reads a configuration.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let tree = yaml::decode_untyped(text).map_err(|error| format!("not YAML: {error}"))?;
        let (version, kind) = (tree.str_at(&["apiVersion"]), tree.str_at(&["kind"]));
        let known = ["v1", "v1beta1", "v1alpha1"].map(|version| format!("apiserver.config.k8s.io/{version}"));
        if kind != "TracingConfiguration" || !known.iter().any(|one| one == version) {
            return Err(format!("no kind {kind:?} is registered for version {version:?}"));
        }
        let rate = tree.int_at(&["samplingRatePerMillion"]).unwrap_or(0);
        let sampling_rate_per_million = u64::try_from(rate).ok().filter(|rate| *rate <= MILLION).ok_or_else(|| {
            let why = if rate < 0 {
                "sampling rate must be positive"
            } else {
                "sampling rate per million must be less than or equal to one million"
            };
            format!("tracing.samplingRatePerMillion: Invalid value: {rate}: {why}")
        })?;
        let endpoint = match tree.str_at(&["endpoint"]) {
            "" => "localhost:4317",
            endpoint => endpoint.trim_start_matches("http://").trim_start_matches("dns:///"),
        };
        if endpoint.contains("://") || endpoint.contains('/') {
            return Err(format!(
                "tracing.endpoint: Invalid value: {endpoint:?}: unsupported scheme. Options are none, dns, unix, or unix-abstract; only host:port is served here"
            ));
        }
        Ok(Self { endpoint: endpoint.to_owned(), sampling_rate_per_million })
    }
}

/// The tracing of one server.
#[derive(Default)]
pub(crate) struct Traces(Option<Active>);

struct Active {
    exporter: Exporter,
    rate: u64,
    clock: Clock,
    random: Random,
}

impl Traces {
    /// Starts to export where the settings say; without settings nothing is traced.
    ///
    /// # Errors
    /// When the endpoint is none.
    pub(crate) fn start(
        settings: Option<&Settings>,
        clock: &Clock,
        random: &Random,
        tasks: &Tasks,
    ) -> Result<Self, String> {
        let Some(settings) = settings else { return Ok(Self(None)) };
        let exporter = Exporter::start(&settings.endpoint, clock.clone(), random, tasks)?;
        Ok(Self(Some(Active {
            exporter,
            rate: settings.sampling_rate_per_million,
            clock: clock.clone(),
            random: random.clone(),
        })))
    }

    /// Begins the trace of a request that came `since` ago, if it is to be traced.
    pub(crate) fn begin(&self, headers: &HeaderMap, user: &UserInfo, since: Duration) -> Option<Arc<Trace>> {
        let active = self.0.as_ref()?;
        let parent = headers.get("traceparent").and_then(|value| Parent::parse(value.to_str().ok()?));
        let is_trusted = user.in_group(MASTERS) || user.in_group(MONITORING);
        let (sampled, parent, link) = match parent {
            Some(parent) if is_trusted => (parent.is_sampled, Some(parent), None),
            // Somebody else's trace is only pointed to.
            other => (active.random.below(MILLION) < active.rate, None, other),
        };
        if !sampled {
            return None;
        }
        let mut trace_id = parent.map_or([0; 16], |parent| parent.trace_id);
        if parent.is_none() {
            active.random.fill(&mut trace_id);
        }
        let mut root = [0; 8];
        active.random.fill(&mut root);
        Some(Arc::new(Trace {
            trace_id,
            root,
            parent: parent.map(|parent| parent.span_id),
            link,
            began: active.clock.now().minus(since),
            clock: active.clock.clone(),
            random: active.random.clone(),
            spans: Mutex::default(),
        }))
    }

    /// Exports the trace of a request that has been answered.
    pub(crate) fn end(&self, trace: &Trace, name: String, attributes: Vec<(&'static str, String)>, failed: bool) {
        let Some(active) = &self.0 else { return };
        let mut spans = std::mem::take(&mut *trace.spans.lock());
        let mut root = Span::new(trace.trace_id, trace.root, trace.parent, name, Kind::Server);
        root.times(trace.began, active.clock.now());
        root.attributes(attributes);
        root.link(trace.link.map(|link| (link.trace_id, link.span_id)));
        if failed {
            root.fail();
        }
        spans.push(root);
        active.exporter.export(spans);
    }
}

/// What upstream calls the span of a request.
pub(crate) fn name(method: &http::Method, info: &RequestInfo) -> String {
    if !info.is_resource {
        return method.to_string();
    }
    let mut name = format!("{method} /{}", info.prefix);
    let mut push = |part: &str| {
        if !part.is_empty() {
            name.push('/');
            name.push_str(part);
        }
    };
    push(&info.group);
    push(&info.version);
    push(if info.namespace.is_empty() { "" } else { "namespaces/{:namespace}" });
    push(&info.resource);
    push(if info.name.is_empty() { "" } else { "{:name}" });
    push(&info.subresource);
    name
}

/// W3C trace context: `00-<trace>-<span>-<flags>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    is_sampled: bool,
}

impl Parent {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version.len() != 2 || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let (trace_id, span_id) = (hex::<16>(trace)?, hex::<8>(span)?);
        let [flags] = hex::<1>(flags)?;
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self { trace_id, span_id, is_sampled: flags & 1 == 1 })
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// The trace of one request.
pub(crate) struct Trace {
    trace_id: [u8; 16],
    root: [u8; 8],
    parent: Option<[u8; 8]>,
    link: Option<Parent>,
    began: Timestamp,
    clock: Clock,
    random: Random,
    spans: Mutex<Vec<Span>>,
}

tokio::task_local! {
    /// The trace of the request that this task answers.
    static CURRENT: Arc<Trace>;
}

/// Runs `work` as part of a trace.
pub(crate) async fn within<T>(trace: Option<Arc<Trace>>, work: impl Future<Output = T>) -> T {
    match trace {
        Some(trace) => CURRENT.scope(trace, work).await,
        None => work.await,
    }
}

/// A span that lasts until it is dropped; nothing when the request is not traced.
pub(crate) fn span(name: &'static str) -> Option<Open> {
    let trace = CURRENT.try_with(Arc::clone).ok()?;
    let began = trace.clock.now();
    Some(Open { trace, name, began })
}

/// A span that has begun.
pub(crate) struct Open {
    trace: Arc<Trace>,
    name: &'static str,
    began: Timestamp,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut id = [0; 8];
        self.trace.random.fill(&mut id);
        let mut span = Span::new(self.trace.trace_id, id, Some(self.trace.root), self.name.to_owned(), Kind::Internal);
        span.times(self.began, self.trace.clock.now());
        let mut spans = self.trace.spans.lock();
        if spans.len() < SPANS_MAX {
            spans.push(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn a_parent_is_read_and_junk_is_not() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = Parent::parse(good).unwrap();
        assert!(parent.is_sampled);
        assert_eq!(parent.span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        for junk in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-üaf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(Parent::parse(junk), None, "{junk}");
        }
    }

    #[test]
    fn spans_are_named_by_what_is_asked() {
        let named = |method: Method, path: &str| name(&method, &RequestInfo::parse(&method, path, ""));
        assert_eq!(
            named(Method::GET, "/apis/apps/v1/namespaces/x/deployments/y/scale"),
            "GET /apis/apps/v1/namespaces/{:namespace}/deployments/{:name}/scale"
        );
        assert_eq!(named(Method::POST, "/api/v1/nodes"), "POST /api/v1/nodes");
        assert_eq!(named(Method::GET, "/healthz"), "GET");
    }

    #[test]
    fn configurations_are_read_and_wrong_ones_named() {
        let parse = |text: &str| {
            Settings::parse(
                format!("apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n{text}").as_bytes(),
            )
        };
        assert_eq!(
            parse("samplingRatePerMillion: 100"),
            Ok(Settings { endpoint: "localhost:4317".into(), sampling_rate_per_million: 100 })
        );
        assert!(parse("samplingRatePerMillion: -1").unwrap_err().contains("must be positive"));
        assert!(parse("samplingRatePerMillion: 1000001").unwrap_err().contains("one million"));
        assert!(parse("endpoint: https://x/y").is_err());
        assert!(Settings::parse(b"kind: Other").is_err());
    }
}
