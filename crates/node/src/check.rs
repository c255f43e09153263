//! One look at a container from outside: exec, HTTP, TCP, gRPC. Probes and lifecycle hooks share it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skiff_runtime::cri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::node::Node;
use crate::pod::PodView;

/// What a probe's answer may hold; the rest is not read.
const BODY_BYTES_MAX: usize = 10 << 10;

/// The container that is looked at.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) pod: Arc<PodView>,
    pub(crate) container_id: String,
    pub(crate) container: Container,
    pub(crate) ip: String,
}

/// Performs a probe; the error is what the event says.
pub(crate) async fn check(node: &Node, target: &Target, probe: &Probe, timeout: Duration) -> Result<(), String> {
    if let Some(action) = &probe.exec {
        return exec(node, target, action.command.as_deref().unwrap_or_default(), timeout).await;
    }
    let within = async {
        if let Some(action) = &probe.http_get {
            http_get(node, target, action, "kube-probe/1.36").await
        } else if let Some(action) = &probe.tcp_socket {
            connect(node, target, action.host.as_deref(), &action.port).await.map(drop)
        } else if let Some(action) = &probe.grpc {
            grpc(node, target, action.port, action.service.as_deref().unwrap_or_default()).await
        } else {
            Err("missing probe handler".into())
        }
    };
    match tokio::time::timeout(timeout, within).await {
        Ok(result) => result,
        Err(_) => Err(timed_out(probe, target)),
    }
}

fn timed_out(probe: &Probe, target: &Target) -> String {
    match (&probe.http_get, &probe.grpc) {
        (Some(action), _) => format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            url(target, action).unwrap_or_default()
        ),
        (None, Some(action)) => format!(
            "timeout: failed to connect service \"{}:{}\" within the deadline: context deadline exceeded",
            target.ip, action.port
        ),
        _ => "dial tcp: i/o timeout".into(),
    }
}

/// Performs a hook; its own time limits come from the caller.
pub(crate) async fn hook(node: &Node, target: &Target, handler: &LifecycleHandler) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        // Hooks have no deadline of their own: the caller's grace period ends them.
        exec(node, target, action.command.as_deref().unwrap_or_default(), Duration::ZERO).await
    } else if let Some(action) = &handler.http_get {
        http_get(node, target, action, "kube-lifecycle/1.36").await
    } else if let Some(action) = &handler.sleep {
        node.clock.sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
        Ok(())
    } else if let Some(action) = &handler.tcp_socket {
        connect(node, target, action.host.as_deref(), &action.port).await.map(drop)
    } else {
        Err("invalid handler: none is set".into())
    }
}

async fn exec(node: &Node, target: &Target, command: &[String], timeout: Duration) -> Result<(), String> {
    let lookup = |name: &str| {
        target
            .container
            .env
            .iter()
            .flatten()
            .find(|variable| variable.name == name)
            .and_then(|variable| variable.value.clone())
    };
    let request = cri::ExecSyncRequest {
        container_id: target.container_id.clone(),
        cmd: command.iter().map(|text| crate::env::expand(text, &lookup)).collect(),
        timeout: i64::try_from(timeout.as_secs()).unwrap_or(0),
    };
    match node.runtime.exec_sync(request).await {
        Ok(answer) if answer.exit_code == 0 => Ok(()),
        Ok(answer) => {
            let output = [answer.stdout, answer.stderr].concat();
            Err(String::from_utf8_lossy(&output[..output.len().min(BODY_BYTES_MAX)]).into_owned())
        }
        Err(status) if status.code() == tonic::Code::DeadlineExceeded => {
            Err(format!("command timed out: {:?} timed out after {}s", command.join(" "), timeout.as_secs()))
        }
        Err(status) => Err(format!("rpc error: code = {:?} desc = {}", status.code(), status.message())),
    }
}

/// A port by number, or by the name a container port has.
fn port_number(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            match container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name)) {
                Some(port) => port.container_port,
                None => name.parse().map_err(|_| format!("couldn't find port: {name}"))?,
            }
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

async fn connect(node: &Node, target: &Target, host: Option<&str>, port: &IntOrString) -> Result<TcpStream, String> {
    let port = port_number(&target.container, port)?;
    let host = host.filter(|host| !host.is_empty()).unwrap_or(&target.ip);
    let ip: IpAddr = host.parse().map_err(|_| format!("dial tcp: lookup {host}: not an address"))?;
    let address = SocketAddr::new(ip, port);
    node.network.connect(address).await.map_err(|error| format!("dial tcp {address}: connect: {}", reason(&error)))
}

/// The kernel's words without Rust's error number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

fn url(target: &Target, action: &HTTPGetAction) -> Result<String, String> {
    let port = port_number(&target.container, &action.port)?;
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&target.ip);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let path = action.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(format!("{scheme}://{host}:{port}{slash}{path}"))
}

async fn http_get(node: &Node, target: &Target, action: &HTTPGetAction, agent: &str) -> Result<(), String> {
    let url = url(target, action)?;
    let failed = |cause: String| format!("Get \"{url}\": {cause}");
    let stream = connect(node, target, action.host.as_deref(), &action.port).await.map_err(failed)?;
    let code = if action.scheme.as_deref() == Some("HTTPS") {
        let stream = tls(stream).await.map_err(failed)?;
        get(stream, &url, action, agent).await
    } else {
        get(stream, &url, action, agent).await
    }
    .map_err(failed)?;
    // Redirects count as success: the container answers.
    if (200..400).contains(&code) { Ok(()) } else { Err(format!("HTTP probe failed with statuscode: {code}")) }
}

async fn get<S>(stream: S, url: &str, action: &HTTPGetAction, agent: &str) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let uri: http::Uri = url.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut request = http::Request::get(path);
    let mut named_host = None;
    for header in action.http_headers.iter().flatten() {
        if header.name.eq_ignore_ascii_case("host") {
            named_host = Some(header.value.clone());
        } else {
            request = request.header(&header.name, &header.value);
        }
    }
    let has = |request: &http::request::Builder, name: &str| {
        request.headers_ref().is_some_and(|headers| headers.contains_key(name))
    };
    if !has(&request, "user-agent") {
        request = request.header("user-agent", agent);
    }
    if !has(&request, "accept") {
        request = request.header("accept", "*/*");
    }
    let authority = uri.authority().map_or_else(String::new, ToString::to_string);
    let request = request
        .header("host", named_host.unwrap_or(authority))
        .header("connection", "close")
        .body(Full::new(Bytes::new()))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = answer.status().as_u16();
        drop(Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await);
        Ok(code)
    };
    // The connection is driven here and ends with the probe.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    let mut driving = true;
    loop {
        tokio::select! {
            biased;
            result = &mut exchange => return result,
            ended = &mut connection, if driving => {
                driving = false;
                ended.map_err(|error| error.to_string())?;
            }
        }
    }
}

/// Probes do not verify certificates: the container's name is not known to anybody.
async fn tls(stream: TcpStream) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let config = tokio_rustls::rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust::Anything))
        .with_no_client_auth();
    let name = tokio_rustls::rustls::pki_types::ServerName::try_from("probe").map_err(|error| error.to_string())?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| format!("tls: {error}"))
}

mod trust {
    use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use tokio_rustls::rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct Anything;

    impl ServerCertVerifier for Anything {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            use SignatureScheme as S;
            vec![
                S::ECDSA_NISTP256_SHA256,
                S::ECDSA_NISTP384_SHA384,
                S::ED25519,
                S::RSA_PSS_SHA256,
                S::RSA_PSS_SHA384,
                S::RSA_PSS_SHA512,
                S::RSA_PKCS1_SHA256,
                S::RSA_PKCS1_SHA384,
                S::RSA_PKCS1_SHA512,
            ]
        }
    }
}

/// `grpc.health.v1.Health/Check`, its two messages written by hand: one string, one enum.
async fn grpc(node: &Node, target: &Target, port: i32, service: &str) -> Result<(), String> {
    let stream = connect(node, target, None, &IntOrString::Int(port)).await?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(text)?;
    let mut message = Vec::new();
    if !service.is_empty() {
        let length =
            u8::try_from(service.len()).ok().filter(|length| *length < 128).ok_or("the service name is too long")?;
        message.extend([0x0a, length]);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend(message);
    let request = http::Request::post(format!("http://{}:{port}/grpc.health.v1.Health/Check", target.ip))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(Bytes::from(frame)))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(text)?;
        let early = answer.headers().get("grpc-status").cloned();
        let body =
            Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
        let status = early.or_else(|| body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned()));
        Ok::<_, String>((status, body.to_bytes()))
    };
    let (status, body) = tokio::select! {
        biased;
        result = exchange => result?,
        ended = connection => return Err(ended.err().map_or_else(|| "connection closed".to_owned(), |error| error.to_string())),
    };
    match status.as_ref().map(http::HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(b"12") => {
            return Err(
                "server doesn't implement the grpc health protocol (grpc.health.v1.Health): Unimplemented".into()
            );
        }
        Some(b"5") => return Err(format!("service unhealthy: unknown service \"{service}\"")),
        other => return Err(format!("error: grpc status {}", String::from_utf8_lossy(other.unwrap_or(b"missing")))),
    }
    // field 1, varint: 1 is SERVING
    if body.get(5..7) == Some(&[0x08, 1]) {
        Ok(())
    } else {
        Err("service unhealthy (responded with \"NOT_SERVING\")".into())
    }
}
