//! What components ask of the API server, counted under client-go's names.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response};
use parking_lot::Mutex;
use skiff_base::metrics::{Counter, Histogram, Metric, Metrics};
use tokio::time::Instant;

use crate::{Body, Endpoint, TransportError};

static REQUESTS: Metric =
    Metric::counter("rest_client_requests_total", "Requests of components, by what became of them.");
static SECONDS: Metric = Metric::histogram(
    "rest_client_request_duration_seconds",
    "Time from a component's request to the head of its answer.",
    &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0],
);

/// Methods that are told apart.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OTHER"];

/// An endpoint whose requests are counted.
pub struct Counted {
    inner: Arc<dyn Endpoint>,
    metrics: Metrics,
    host: String,
    seconds: [Arc<Histogram>; METHODS.len()],
    /// By method and code; 0 for no answer.
    requests: Mutex<HashMap<(usize, u16), Arc<Counter>>>,
}

impl Counted {
    /// Counts what is sent to `inner`, which is at `host`.
    pub fn over(inner: Arc<dyn Endpoint>, host: &str, metrics: &Metrics) -> Arc<dyn Endpoint> {
        let seconds = METHODS.map(|method| metrics.histogram(&SECONDS, &[("host", host), ("verb", method)]));
        let (metrics, host) = (metrics.clone(), host.to_owned());
        Arc::new(Self { inner, metrics, host, seconds, requests: Mutex::default() })
    }

    fn count(&self, method: usize, code: u16) {
        let mut requests = self.requests.lock();
        let counter = requests.entry((method, code)).or_insert_with(|| {
            let code = if code == 0 { "<error>".to_owned() } else { code.to_string() };
            self.metrics.counter(&REQUESTS, &[("code", &code), ("host", &self.host), ("method", METHODS[method])])
        });
        counter.increment();
    }
}

fn place(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

#[async_trait]
impl Endpoint for Counted {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let (method, began) = (place(request.method()), Instant::now());
        let answer = self.inner.send(request).await;
        self.seconds[method].observe(began.elapsed());
        self.count(method, answer.as_ref().map_or(0, |response| response.status().as_u16()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    struct Teapot;

    #[async_trait]
    impl Endpoint for Teapot {
        async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
            if request.method() == Method::HEAD {
                return Err(TransportError { attempt: "HEAD /".into(), cause: "gone".into() });
            }
            let body: Body = futures::stream::empty().boxed();
            Ok(Response::builder().status(418).body(body).unwrap())
        }
    }

    #[tokio::test]
    async fn requests_are_counted_by_method_and_code() {
        let metrics = Metrics::default();
        let clients = [(); 2].map(|()| Counted::over(Arc::new(Teapot), "h:1", &metrics));
        for client in &clients {
            drop(client.send(Request::new(Bytes::new())).await);
        }
        let mut head = Request::new(Bytes::new());
        *head.method_mut() = Method::HEAD;
        assert!(clients[0].send(head).await.is_err());
        let page = metrics.text();
        assert!(page.contains("rest_client_requests_total{code=\"418\",host=\"h:1\",method=\"GET\"} 2\n"), "{page}");
        assert!(
            page.contains("rest_client_requests_total{code=\"<error>\",host=\"h:1\",method=\"OTHER\"} 1\n"),
            "{page}"
        );
        assert!(page.contains("rest_client_request_duration_seconds_count{host=\"h:1\",verb=\"GET\"} 2\n"), "{page}");
    }
}
