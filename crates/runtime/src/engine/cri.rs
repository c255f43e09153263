//! The interface: each call to its place.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;

use super::Runtime;
use crate::cri::{self as v1, Answer, Answers, RuntimeService};

/// Items in one message of a streaming list.
const STREAM_ITEMS: usize = 64;

/// A list as the streaming calls give it.
fn stream<T, M>(items: Vec<T>, message: impl Fn(Vec<T>) -> M + Send + 'static) -> Answers<M>
where
    T: Clone + Send + 'static,
    M: Send + 'static,
{
    let messages: Vec<_> = items.chunks(STREAM_ITEMS).map(|chunk| Ok(message(chunk.to_vec()))).collect();
    futures::stream::iter(messages).boxed()
}

/// Whether every wanted label is there.
fn matches(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether an id is wanted: none, the whole, or its beginning.
fn is_wanted(id: &str, wanted: &str) -> bool {
    id.starts_with(wanted)
}

impl Runtime {
    fn list_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Vec<v1::PodSandbox> {
        let filter = filter.unwrap_or_default();
        let sandboxes: Vec<_> = self.0.sandboxes.lock().values().cloned().collect();
        let items = sandboxes.iter().map(|sandbox| sandbox.to_list_item());
        items
            .filter(|item| {
                is_wanted(&item.id, &filter.id)
                    && filter.state.as_ref().is_none_or(|state| state.state == item.state)
                    && matches(&item.labels, &filter.label_selector)
            })
            .collect()
    }

    fn list(&self, filter: Option<v1::ContainerFilter>) -> Vec<v1::Container> {
        let filter = filter.unwrap_or_default();
        let containers: Vec<_> = self.0.containers.lock().values().cloned().collect();
        let items = containers.iter().map(|container| container.to_list_item());
        items
            .filter(|item| {
                is_wanted(&item.id, &filter.id)
                    && is_wanted(&item.pod_sandbox_id, &filter.pod_sandbox_id)
                    && filter.state.as_ref().is_none_or(|state| state.state == item.state)
                    && matches(&item.labels, &filter.label_selector)
            })
            .collect()
    }

    async fn list_stats(&self, filter: Option<v1::ContainerStatsFilter>) -> Result<Vec<v1::ContainerStats>, Status> {
        let filter = filter.unwrap_or_default();
        let containers: Vec<_> = self.0.containers.lock().values().cloned().collect();
        let runtime = self.clone();
        super::state::blocking("read statistics", move || {
            let wanted = containers.iter().filter(|container| {
                container.phase() == v1::ContainerState::ContainerRunning
                    && is_wanted(&container.id, &filter.id)
                    && is_wanted(&container.sandbox.id, &filter.pod_sandbox_id)
                    && matches(&container.config.labels, &filter.label_selector)
            });
            Ok(wanted.map(|container| runtime.container_stats_of(container)).collect())
        })
        .await
    }

    async fn list_sandbox_stats(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>, Status> {
        let filter = filter.unwrap_or_default();
        let sandboxes: Vec<_> = self.0.sandboxes.lock().values().cloned().collect();
        let runtime = self.clone();
        super::state::blocking("read statistics", move || {
            let wanted = sandboxes.iter().filter(|sandbox| {
                sandbox.state.lock().ready
                    && is_wanted(&sandbox.id, &filter.id)
                    && matches(&sandbox.config.labels, &filter.label_selector)
            });
            Ok(wanted.map(|sandbox| runtime.sandbox_stats_of(sandbox)).collect())
        })
        .await
    }
}

/// The answer to calls that need a streaming server.
fn in_process_only(call: &str) -> Status {
    Status::unimplemented(format!("{call} has no streaming server here; the node's kubelet serves the streams itself"))
}

#[async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: v1::VersionRequest) -> Answer<v1::VersionResponse> {
        Ok(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "skiff".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn run_pod_sandbox(&self, request: v1::RunPodSandboxRequest) -> Answer<v1::RunPodSandboxResponse> {
        self.run_sandbox(request).await.map(|pod_sandbox_id| v1::RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn stop_pod_sandbox(&self, request: v1::StopPodSandboxRequest) -> Answer<v1::StopPodSandboxResponse> {
        self.stop_sandbox(&request.pod_sandbox_id).await.map(|()| v1::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, request: v1::RemovePodSandboxRequest) -> Answer<v1::RemovePodSandboxResponse> {
        self.remove_sandbox(&request.pod_sandbox_id).await.map(|()| v1::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, request: v1::PodSandboxStatusRequest) -> Answer<v1::PodSandboxStatusResponse> {
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        let mut info = HashMap::new();
        if request.verbose {
            let pid = sandbox.state.lock().pause.as_ref().map_or(0, |pause| pause.pid);
            info.insert("info".to_owned(), format!("{{\"pid\":{pid}}}"));
        }
        Ok(v1::PodSandboxStatusResponse {
            status: Some(sandbox.to_status()),
            info,
            containers_statuses: self.containers_of(&sandbox.id).iter().map(|one| one.to_status()).collect(),
            timestamp: self.now(),
        })
    }

    async fn list_pod_sandbox(&self, request: v1::ListPodSandboxRequest) -> Answer<v1::ListPodSandboxResponse> {
        Ok(v1::ListPodSandboxResponse { items: self.list_sandboxes(request.filter) })
    }

    async fn create_container(&self, request: v1::CreateContainerRequest) -> Answer<v1::CreateContainerResponse> {
        self.create(request).await.map(|container_id| v1::CreateContainerResponse { container_id })
    }

    async fn start_container(&self, request: v1::StartContainerRequest) -> Answer<v1::StartContainerResponse> {
        self.start(&request.container_id).await.map(|()| v1::StartContainerResponse {})
    }

    async fn stop_container(&self, request: v1::StopContainerRequest) -> Answer<v1::StopContainerResponse> {
        let timeout = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        self.stop(&request.container_id, timeout).await.map(|()| v1::StopContainerResponse {})
    }

    async fn remove_container(&self, request: v1::RemoveContainerRequest) -> Answer<v1::RemoveContainerResponse> {
        self.remove(&request.container_id).await.map(|()| v1::RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: v1::ListContainersRequest) -> Answer<v1::ListContainersResponse> {
        Ok(v1::ListContainersResponse { containers: self.list(request.filter) })
    }

    async fn container_status(&self, request: v1::ContainerStatusRequest) -> Answer<v1::ContainerStatusResponse> {
        let container = self.container(&request.container_id)?;
        let mut info = HashMap::new();
        if request.verbose {
            let pid = container.process().map_or(0, |(started, _)| started.pid);
            info.insert("info".to_owned(), format!("{{\"pid\":{pid},\"sandboxID\":\"{}\"}}", container.sandbox.id));
        }
        Ok(v1::ContainerStatusResponse { status: Some(container.to_status()), info })
    }

    async fn update_container_resources(
        &self,
        request: v1::UpdateContainerResourcesRequest,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        self.update_resources(request).await.map(|()| v1::UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: v1::ReopenContainerLogRequest,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        self.reopen_log(&request.container_id).await.map(|()| v1::ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: v1::ExecSyncRequest) -> Answer<v1::ExecSyncResponse> {
        self.exec_synchronously(request).await
    }

    async fn exec(&self, _: v1::ExecRequest) -> Answer<v1::ExecResponse> {
        Err(in_process_only("Exec"))
    }

    async fn attach(&self, _: v1::AttachRequest) -> Answer<v1::AttachResponse> {
        Err(in_process_only("Attach"))
    }

    async fn port_forward(&self, _: v1::PortForwardRequest) -> Answer<v1::PortForwardResponse> {
        Err(in_process_only("PortForward"))
    }

    async fn container_stats(&self, request: v1::ContainerStatsRequest) -> Answer<v1::ContainerStatsResponse> {
        let container = self.container(&request.container_id)?;
        let runtime = self.clone();
        let stats =
            super::state::blocking("read statistics", move || Ok(runtime.container_stats_of(&container))).await?;
        Ok(v1::ContainerStatsResponse { stats: Some(stats) })
    }

    async fn list_container_stats(
        &self,
        request: v1::ListContainerStatsRequest,
    ) -> Answer<v1::ListContainerStatsResponse> {
        self.list_stats(request.filter).await.map(|stats| v1::ListContainerStatsResponse { stats })
    }

    async fn pod_sandbox_stats(&self, request: v1::PodSandboxStatsRequest) -> Answer<v1::PodSandboxStatsResponse> {
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        let runtime = self.clone();
        let stats = super::state::blocking("read statistics", move || Ok(runtime.sandbox_stats_of(&sandbox))).await?;
        Ok(v1::PodSandboxStatsResponse { stats: Some(stats) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: v1::ListPodSandboxStatsRequest,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        self.list_sandbox_stats(request.filter).await.map(|stats| v1::ListPodSandboxStatsResponse { stats })
    }

    async fn update_runtime_config(
        &self,
        _: v1::UpdateRuntimeConfigRequest,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        // The pod network is given by the node; there is nothing to change here.
        Ok(v1::UpdateRuntimeConfigResponse {})
    }

    async fn status(&self, request: v1::StatusRequest) -> Answer<v1::StatusResponse> {
        let condition = |kind: &str, outcome: Result<(), String>, reason: &str| v1::RuntimeCondition {
            r#type: kind.into(),
            status: outcome.is_ok(),
            reason: if outcome.is_ok() { String::new() } else { reason.into() },
            message: outcome.err().unwrap_or_default(),
        };
        let conditions = vec![
            condition("RuntimeReady", Ok(()), ""),
            condition("NetworkReady", self.0.config.network.ready(), "NetworkPluginNotReady"),
        ];
        let mut info = HashMap::new();
        if request.verbose {
            info.insert("data_dir".to_owned(), self.0.config.data_dir.display().to_string());
        }
        Ok(v1::StatusResponse {
            status: Some(v1::RuntimeStatus { conditions }),
            info,
            runtime_handlers: vec![v1::RuntimeHandler {
                name: String::new(),
                features: Some(v1::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false }),
            }],
            features: Some(v1::RuntimeFeatures { supplemental_groups_policy: true, ..v1::RuntimeFeatures::default() }),
        })
    }

    async fn checkpoint_container(&self, _: v1::CheckpointContainerRequest) -> Answer<v1::CheckpointContainerResponse> {
        Err(Status::unimplemented("checkpoints are not supported by this runtime"))
    }

    async fn checkpoint_pod(&self, _: v1::CheckpointPodRequest) -> Answer<v1::CheckpointPodResponse> {
        Err(Status::unimplemented("checkpoints are not supported by this runtime"))
    }

    async fn restore_pod(&self, _: v1::RestorePodRequest) -> Answer<v1::RestorePodResponse> {
        Err(Status::unimplemented("checkpoints are not supported by this runtime"))
    }

    async fn list_metric_descriptors(
        &self,
        _: v1::ListMetricDescriptorsRequest,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        Err(Status::unimplemented("pod metrics are not supported by this runtime; use the statistics calls"))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: v1::ListPodSandboxMetricsRequest,
    ) -> Answer<v1::ListPodSandboxMetricsResponse> {
        Err(Status::unimplemented("pod metrics are not supported by this runtime; use the statistics calls"))
    }

    async fn runtime_config(&self, _: v1::RuntimeConfigRequest) -> Answer<v1::RuntimeConfigResponse> {
        let linux = v1::LinuxRuntimeConfiguration { cgroup_driver: v1::CgroupDriver::Cgroupfs as i32 };
        Ok(v1::RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: v1::UpdatePodSandboxResourcesRequest,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        // The pod's own group belongs to the kubelet; this only announces the change.
        self.sandbox(&request.pod_sandbox_id).map(|_| v1::UpdatePodSandboxResourcesResponse {})
    }

    async fn get_container_events(&self, _: v1::GetEventsRequest) -> Answer<Answers<v1::ContainerEventResponse>> {
        let events = futures::stream::unfold(self.0.events.subscribe(), |mut receiver| async move {
            match receiver.recv().await {
                Ok(event) => Some((Ok(event), receiver)),
                Err(RecvError::Lagged(missed)) => {
                    Some((Err(Status::data_loss(format!("{missed} events were missed; list again"))), receiver))
                }
                Err(RecvError::Closed) => None,
            }
        });
        Ok(events.boxed())
    }

    async fn stream_pod_sandboxes(
        &self,
        request: v1::StreamPodSandboxesRequest,
    ) -> Answer<Answers<v1::StreamPodSandboxesResponse>> {
        let items = self.list_sandboxes(request.filter);
        Ok(stream(items, |pod_sandboxes| v1::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn stream_containers(
        &self,
        request: v1::StreamContainersRequest,
    ) -> Answer<Answers<v1::StreamContainersResponse>> {
        Ok(stream(self.list(request.filter), |containers| v1::StreamContainersResponse { containers }))
    }

    async fn stream_container_stats(
        &self,
        request: v1::StreamContainerStatsRequest,
    ) -> Answer<Answers<v1::StreamContainerStatsResponse>> {
        let stats = self.list_stats(request.filter).await?;
        Ok(stream(stats, |container_stats| v1::StreamContainerStatsResponse { container_stats }))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: v1::StreamPodSandboxStatsRequest,
    ) -> Answer<Answers<v1::StreamPodSandboxStatsResponse>> {
        let stats = self.list_sandbox_stats(request.filter).await?;
        Ok(stream(stats, |pod_sandbox_stats| v1::StreamPodSandboxStatsResponse { pod_sandbox_stats }))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: v1::StreamPodSandboxMetricsRequest,
    ) -> Answer<Answers<v1::StreamPodSandboxMetricsResponse>> {
        Err(Status::unimplemented("pod metrics are not supported by this runtime; use the statistics calls"))
    }
}
