//! `healthCheckNodePort`: tells load balancers whether this node has backends of a Service.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use skiff_base::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::{Compiled, ServiceKey};
use crate::machine::Machine;

/// Checks answered at once per Service; balancers ask every few seconds.
const CHECKS_MAX: usize = 16;
/// A check's request line and headers.
const REQUEST_BYTES_MAX: usize = 4 * 1024;
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The listeners, one per Service with a health check port.
pub(super) struct HealthChecks {
    machine: Arc<Machine>,
    tasks: Tasks,
    listeners: BTreeMap<ServiceKey, Check>,
}

struct Check {
    port: u16,
    backends: watch::Sender<usize>,
    tasks: Tasks,
}

impl HealthChecks {
    pub(super) fn new(machine: Arc<Machine>, tasks: Tasks) -> Self {
        Self { machine, tasks, listeners: BTreeMap::new() }
    }

    /// Starts, updates and ends listeners for changed Services.
    pub(super) fn set(&mut self, changes: &[(ServiceKey, Compiled)]) {
        for (service, compiled) in changes {
            let keep = match (self.listeners.get(service), compiled.health) {
                (Some(check), Some((port, backends))) if check.port == port => {
                    check.backends.send_replace(backends);
                    true
                }
                _ => false,
            };
            if keep {
                continue;
            }
            if let Some(check) = self.listeners.remove(service) {
                check.tasks.shutdown().signal();
            }
            if let Some((port, backends)) = compiled.health {
                self.listen(service, port, backends);
            }
        }
    }

    fn listen(&mut self, service: &ServiceKey, port: u16, backends: usize) {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listener = match self.machine.tcp_listen(address) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%service, %error, "no health check port");
                return;
            }
        };
        let (sender, receiver) = watch::channel(backends);
        let tasks = self.tasks.group(&service.to_string());
        tasks.spawn("listen", serve(listener, service.clone(), receiver, tasks.clone()));
        self.listeners.insert(service.clone(), Check { port, backends: sender, tasks });
    }
}

async fn serve(listener: TcpListener, service: ServiceKey, backends: watch::Receiver<usize>, tasks: Tasks) {
    let permits = Arc::new(Semaphore::new(CHECKS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else { continue };
        let answer = answer(&service, *backends.borrow());
        tasks.spawn("check", async move {
            let _ = tokio::time::timeout(CHECK_TIMEOUT, check(stream, answer)).await;
            drop(permit);
        });
    }
}

async fn check(mut stream: TcpStream, answer: String) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 512];
    while !request.windows(4).any(|it| it == b"\r\n\r\n") {
        let length = stream.read(&mut part).await?;
        if length == 0 || request.len() + length > REQUEST_BYTES_MAX {
            return Ok(());
        }
        request.extend_from_slice(&part[..length]);
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn answer(service: &ServiceKey, backends: usize) -> String {
    let status = if backends > 0 { "200 OK" } else { "503 Service Unavailable" };
    // Names are DNS labels: nothing to escape.
    let body = format!(
        "{{\"service\":{{\"namespace\":\"{}\",\"name\":\"{}\"}},\"localEndpoints\":{backends}}}",
        service.namespace, service.name
    );
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
