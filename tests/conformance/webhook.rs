//! A webhook server of the tests' own: HTTPS on loopback, its behaviour by path.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use serde_json::{Value, json};

/// A running server; it ends with the value.
pub(crate) struct Server {
    ca_bundle: String,
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Starts a server with a certificate of its own authority.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()])?;
        let key =
            rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        #[allow(clippy::disallowed_methods)] // it ends with the value that holds it
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let io = hyper_util::rt::TokioIo::new(stream);
                        drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(answer)).await);
                    }
                });
            }
        });
        Ok(Self { ca_bundle: STANDARD.encode(made.cert.pem()), port, task })
    }

    /// How the API server reaches the behaviour `path`.
    pub(crate) fn client_config(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}/{path}", self.port), "caBundle": self.ca_bundle})
    }

    /// The same without the means to trust it.
    pub(crate) fn untrusted(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}/{path}", self.port)})
    }
}

async fn answer(request: http::Request<Incoming>) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().trim_matches('/').to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let response = match path.as_str() {
        "convert" => convert(&review["request"]),
        "slow" => {
            tokio::time::sleep(Duration::from_secs(5)).await; // what this behaviour is for
            json!({"uid": review["request"]["uid"], "allowed": true})
        }
        path => judge(path, &review["request"]),
    };
    let answer = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
    let bytes = serde_json::to_vec(&answer).unwrap_or_default();
    Ok(http::Response::builder().header("content-type", "application/json").body(Full::from(bytes)).unwrap_or_default())
}

fn judge(path: &str, request: &Value) -> Value {
    let (uid, object) = (&request["uid"], &request["object"]);
    let deny = |message: &str| json!({"uid": uid, "allowed": false, "status": {"message": message, "reason": message}});
    let allow = json!({"uid": uid, "allowed": true});
    let patch = |operations: Value| {
        let patch = STANDARD.encode(operations.to_string());
        json!({"uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": patch})
    };
    let add = |key: &str| json!({"op": "add", "path": format!("/data/{key}"), "value": "yes"});
    match path {
        "deny" => deny("this webhook denies all requests"),
        "deny-disallowed" => {
            let subject = if request["operation"] == "DELETE" { &request["oldObject"] } else { object };
            let told = [&subject["data"]["webhook-e2e-test"], &subject["metadata"]["labels"]["webhook-e2e-test"]];
            if told.contains(&&json!("webhook-disallow")) { deny("the object contains unwanted key") } else { allow }
        }
        "first-stage" if object["data"]["mutation-start"] == "yes" => patch(json!([add("mutation-stage-1")])),
        "second-stage" if object["data"]["mutation-stage-1"] == "yes" => patch(json!([add("mutation-stage-2")])),
        "init-container" => patch(json!([{"op": "add", "path": "/spec/initContainers", "value": [
            {"name": "webhook-added-init-container", "image": "webhook-added-image", "resources": {}}
        ]}])),
        "label" if object["metadata"]["labels"].is_object() => {
            patch(json!([{"op": "add", "path": "/metadata/labels/added-label", "value": "yes"}]))
        }
        "label" => patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"added-label": "yes"}}])),
        "data" if object["data"].is_object() => patch(json!([add("mutated")])),
        "data" => patch(json!([{"op": "add", "path": "/data", "value": {"mutated": "yes"}}])),
        _ => allow,
    }
}

/// Between `hostPort` and `host` with `port`.
fn convert(request: &Value) -> Value {
    let wanted = &request["desiredAPIVersion"];
    let objects = request["objects"].as_array().cloned().unwrap_or_default().into_iter().map(|mut object| {
        let fields = object
            .as_object_mut()
            .map(|fields| (fields.remove("hostPort"), fields.remove("host"), fields.remove("port")));
        let (together, host, port) = fields.unwrap_or_default();
        let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
        if wanted.as_str().unwrap_or_default().ends_with("/v2") {
            let together = text(together);
            let (host, port) = together.split_once(':').unwrap_or((&together, ""));
            (object["host"], object["port"]) = (json!(host), json!(port));
        } else {
            object["hostPort"] = json!(format!("{}:{}", text(host), text(port)));
        }
        object["apiVersion"] = wanted.clone();
        object
    });
    let objects: Vec<Value> = objects.collect();
    json!({"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects})
}
