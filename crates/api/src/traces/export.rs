//! Spans on their way to a collector: collected, sent together, dropped when nobody takes them.

use std::time::Duration;

use skiff_base::{Clock, Random, Shutdown, Tasks};
use tokio::sync::mpsc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::otlp::{ExportRequest, ExportResponse, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span};

/// Requests whose spans wait, spans that are sent together, and how long the first of them waits for
/// more: the defaults of OpenTelemetry's batch processor.
const QUEUE_REQUESTS_MAX: usize = 2_048;
const BATCH_SPANS_MAX: usize = 512;
const BATCH_WAIT: Duration = Duration::from_secs(5);
/// A collector that does not answer in this time loses the batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Exporter(mpsc::Sender<Vec<Span>>);

impl Exporter {
    pub(super) fn start(endpoint: &str, clock: Clock, random: &Random, tasks: &Tasks) -> Result<Self, String> {
        let channel = Endpoint::from_shared(format!("http://{endpoint}"))
            .map_err(|error| format!("tracing endpoint {endpoint}: {error}"))?
            .connect_timeout(EXPORT_TIMEOUT)
            .connect_lazy();
        let (sender, receiver) = mpsc::channel(QUEUE_REQUESTS_MAX);
        let resource = Resource {
            attributes: vec![
                KeyValue::text("service.name", "apiserver".into()),
                KeyValue::text("service.instance.id", random.uuid()),
            ],
        };
        let shutdown = tasks.shutdown().clone();
        tasks.spawn_draining("traces", async move {
            Batches { receiver, channel, resource, clock }.run(shutdown).await;
        });
        Ok(Self(sender))
    }

    /// Takes spans; those that find no place are lost, the request is not held up.
    pub(super) fn export(&self, spans: Vec<Span>) {
        if self.0.try_send(spans).is_err() {
            tracing::debug!("spans were dropped: the collector is too slow");
        }
    }
}

struct Batches {
    receiver: mpsc::Receiver<Vec<Span>>,
    channel: Channel,
    resource: Resource,
    clock: Clock,
}

impl Batches {
    async fn run(mut self, shutdown: Shutdown) {
        loop {
            let first = tokio::select! {
                biased;
                first = self.receiver.recv() => first,
                () = shutdown.wait() => self.receiver.try_recv().ok(),
            };
            let Some(mut spans) = first else { return };
            let timer = self.clock.sleep(BATCH_WAIT);
            tokio::pin!(timer);
            while spans.len() < BATCH_SPANS_MAX {
                tokio::select! {
                    biased;
                    more = self.receiver.recv() => match more {
                        Some(more) => spans.extend(more),
                        None => break,
                    },
                    () = &mut timer => break,
                    () = shutdown.wait() => break,
                }
            }
            if let Err(error) = self.send(spans).await {
                tracing::warn!(error, "traces were not exported");
            }
        }
    }

    async fn send(&self, spans: Vec<Span>) -> Result<(), String> {
        let scope = Scope { name: "k8s.io/apiserver".into() };
        let request = ExportRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
            }],
        };
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let call = async {
            client.ready().await.map_err(|error| error.to_string())?;
            let path = PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
            let codec = ProstCodec::<ExportRequest, ExportResponse>::default();
            client.unary(tonic::Request::new(request), path, codec).await.map_err(|status| status.to_string())
        };
        tokio::time::timeout(EXPORT_TIMEOUT, call)
            .await
            .map_err(|_| "the collector took too long".to_owned())?
            .map(drop)
    }
}
