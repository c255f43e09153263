//! A container runtime in memory: containers are records, programs are words.
//!
//! `command: ["run"]` runs until it is stopped, `["exit", "3"]` ends at once with that code,
//! `["say", "text"]` writes a log line and ends. Images whose name begins with `absent` cannot be
//! pulled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use skiff_base::{Clock, Timestamp};
use skiff_runtime::cri::{self, Answer, Answers};
use skiff_runtime::streaming::{Connection, Session};
use skiff_runtime::{ImageService, RuntimeService, Streaming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast;
use tonic::Status;

pub(crate) struct Sandbox {
    pub(crate) config: cri::PodSandboxConfig,
    pub(crate) ready: bool,
    ip: String,
    created_at: i64,
}

#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) config: cri::ContainerConfig,
    pub(crate) sandbox: String,
    pub(crate) state: cri::ContainerState,
    pub(crate) log_path: String,
    created_at: i64,
    started_at: i64,
    finished_at: i64,
    exit_code: i32,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
    pub(crate) containers: BTreeMap<String, Container>,
    /// What was called, in order: `start web/app`.
    pub(crate) journal: Vec<String>,
    /// Exit codes of `exec_sync` by container name.
    pub(crate) health: BTreeMap<String, i32>,
}

pub(crate) struct Fake {
    pub(crate) state: Mutex<State>,
    ids: AtomicU64,
    clock: Clock,
    events: broadcast::Sender<cri::ContainerEventResponse>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let (events, _) = broadcast::channel(1_024);
        Arc::new(Self { state: Mutex::default(), ids: AtomicU64::new(1), clock: Clock::system(), events })
    }

    fn id(&self) -> String {
        format!("{:064x}", self.ids.fetch_add(1, Ordering::Relaxed))
    }

    fn now(&self) -> i64 {
        self.clock.now().as_nanos()
    }

    /// Ends a container as its program would.
    pub(crate) fn end(&self, id: &str, exit_code: i32) {
        let now = self.now();
        let sandbox = {
            let mut state = self.state.lock();
            let Some(container) = state.containers.get_mut(id) else { return };
            if container.state != cri::ContainerState::ContainerRunning {
                return;
            }
            container.state = cri::ContainerState::ContainerExited;
            container.finished_at = now;
            container.exit_code = exit_code;
            container.sandbox.clone()
        };
        self.tell(id, &sandbox);
    }

    /// The newest container called `name` and its id.
    pub(crate) fn container(&self, name: &str) -> Option<(String, Container)> {
        let state = self.state.lock();
        let found = state
            .containers
            .iter()
            .filter(|(_, container)| name_of(container) == name)
            .max_by_key(|(id, _)| (*id).clone());
        found.map(|(id, container)| (id.clone(), container.clone()))
    }

    fn tell(&self, id: &str, sandbox: &str) {
        let metadata = self.state.lock().sandboxes.get(sandbox).and_then(|sandbox| sandbox.config.metadata.clone());
        let event = cri::ContainerEventResponse {
            container_id: id.to_owned(),
            pod_sandbox_status: Some(cri::PodSandboxStatus { metadata, ..Default::default() }),
            ..Default::default()
        };
        drop(self.events.send(event));
    }

    fn journal(&self, what: &str, container: &Container) {
        let mut state = self.state.lock();
        let pod = state
            .sandboxes
            .get(&container.sandbox)
            .and_then(|sandbox| sandbox.config.metadata.clone())
            .unwrap_or_default();
        state.journal.push(format!("{what} {}/{}", pod.name, name_of(container)));
    }
}

pub(crate) fn name_of(container: &Container) -> String {
    container.config.metadata.clone().unwrap_or_default().name
}

fn selected(
    labels: &std::collections::HashMap<String, String>,
    wanted: &std::collections::HashMap<String, String>,
) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[path = "fake_runtime.rs"]
mod runtime;

#[async_trait]
impl ImageService for Fake {
    async fn list_images(&self, _: cri::ListImagesRequest) -> Answer<cri::ListImagesResponse> {
        Ok(cri::ListImagesResponse::default())
    }

    async fn image_status(&self, request: cri::ImageStatusRequest) -> Answer<cri::ImageStatusResponse> {
        let name = request.image.unwrap_or_default().image;
        let image = (!name.starts_with("absent")).then(|| cri::Image {
            id: format!("sha256:{name}"),
            repo_tags: vec![name],
            uid: Some(cri::Int64Value { value: 0 }),
            ..Default::default()
        });
        Ok(cri::ImageStatusResponse { image, ..Default::default() })
    }

    async fn pull_image(&self, request: cri::PullImageRequest) -> Answer<cri::PullImageResponse> {
        let name = request.image.unwrap_or_default().image;
        if name.starts_with("absent") {
            return Err(Status::not_found(format!("{name}: manifest unknown")));
        }
        Ok(cri::PullImageResponse { image_ref: format!("sha256:{name}") })
    }

    async fn remove_image(&self, _: cri::RemoveImageRequest) -> Answer<cri::RemoveImageResponse> {
        Ok(cri::RemoveImageResponse {})
    }

    async fn image_fs_info(&self, _: cri::ImageFsInfoRequest) -> Answer<cri::ImageFsInfoResponse> {
        Ok(cri::ImageFsInfoResponse::default())
    }

    async fn stream_images(&self, _: cri::StreamImagesRequest) -> Answer<Answers<cri::StreamImagesResponse>> {
        Err(Status::unimplemented("stream_images"))
    }
}

/// exec: `cat` copies its input, anything else prints its words and exits with the last one.
#[async_trait]
impl Streaming for Fake {
    async fn exec(&self, request: cri::ExecRequest) -> Result<Session, Status> {
        let (stdin, mut typed) = tokio::io::duplex(4_096);
        let (mut out, stdout) = tokio::io::duplex(4_096);
        let (resize, mut sizes) = tokio::sync::mpsc::channel::<skiff_runtime::streaming::TerminalSize>(4);
        let exit = async move {
            if request.cmd[0] == "cat" {
                drop(tokio::io::copy(&mut typed, &mut out).await);
                return Ok(0);
            }
            if request.cmd[0] == "size" {
                if let Some(size) = sizes.recv().await {
                    drop(out.write_all(format!("{}x{}", size.width, size.height).as_bytes()).await);
                }
                return Ok(0);
            }
            drop(out.write_all(request.cmd.join(" ").as_bytes()).await);
            Ok(request.cmd.last().and_then(|word| word.parse().ok()).unwrap_or(0))
        };
        Ok(Session {
            stdin: request.stdin.then(|| Box::new(stdin) as _),
            stdout: request.stdout.then(|| Box::new(stdout) as _),
            stderr: None,
            resize,
            exit: Box::pin(exit),
        })
    }

    async fn attach(&self, _: cri::AttachRequest) -> Result<Session, Status> {
        Err(Status::unimplemented("attach"))
    }

    /// Port 80 echoes in upper case; the others are closed.
    async fn port_forward(&self, _: &str, port: u16) -> Result<Connection, Status> {
        if port != 80 {
            return Err(Status::unavailable("connection refused"));
        }
        let (mut near, far) = tokio::io::duplex(4_096);
        let (reader, writer) = tokio::io::split(far);
        #[allow(clippy::disallowed_methods)] // the fake ends with its connection
        tokio::spawn(async move {
            let mut buffer = [0; 1_024];
            while let Ok(read @ 1..) = near.read(&mut buffer).await {
                let loud = buffer[..read].to_ascii_uppercase();
                if near.write_all(&loud).await.is_err() {
                    return;
                }
            }
        });
        Ok(Connection { reader: Box::new(reader), writer: Box::new(writer) })
    }
}

pub(crate) fn exit_of(container: &Container) -> Option<i32> {
    match container.config.command.first().map(String::as_str) {
        Some("exit") => container.config.command.get(1)?.parse().ok(),
        Some("say") => Some(0),
        _ => None,
    }
}

pub(crate) fn say(container: &Container, now: Timestamp) {
    if container.config.command.first().map(String::as_str) == Some("say") {
        let time = k8s_openapi::jiff::Timestamp::from_second(now.as_secs()).unwrap();
        let line = format!("{time:.9} stdout F {}\n", container.config.command[1..].join(" "));
        std::fs::write(&container.log_path, line).unwrap();
    } else {
        std::fs::write(&container.log_path, "").unwrap();
    }
}
