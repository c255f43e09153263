//! Sandboxes and containers of the fake.

use super::*;

#[async_trait]
impl RuntimeService for Fake {
    async fn version(&self, _: cri::VersionRequest) -> Answer<cri::VersionResponse> {
        Ok(cri::VersionResponse { runtime_name: "skiff".into(), runtime_version: "0".into(), ..Default::default() })
    }

    async fn status(&self, _: cri::StatusRequest) -> Answer<cri::StatusResponse> {
        Ok(cri::StatusResponse::default())
    }

    async fn run_pod_sandbox(&self, request: cri::RunPodSandboxRequest) -> Answer<cri::RunPodSandboxResponse> {
        let id = self.id();
        let number = self.ids.load(Ordering::Relaxed);
        let config = request.config.unwrap_or_default();
        let sandbox =
            Sandbox { config, ready: true, ip: format!("10.244.0.{}", number % 250 + 2), created_at: self.now() };
        self.state.lock().sandboxes.insert(id.clone(), sandbox);
        Ok(cri::RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(&self, request: cri::StopPodSandboxRequest) -> Answer<cri::StopPodSandboxResponse> {
        let inside: Vec<String> = {
            let mut state = self.state.lock();
            if let Some(sandbox) = state.sandboxes.get_mut(&request.pod_sandbox_id) {
                sandbox.ready = false;
            }
            let inside = state.containers.iter().filter(|(_, container)| container.sandbox == request.pod_sandbox_id);
            inside.map(|(id, _)| id.clone()).collect()
        };
        inside.iter().for_each(|id| self.end(id, 137));
        Ok(cri::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, request: cri::RemovePodSandboxRequest) -> Answer<cri::RemovePodSandboxResponse> {
        self.state.lock().sandboxes.remove(&request.pod_sandbox_id);
        Ok(cri::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, request: cri::PodSandboxStatusRequest) -> Answer<cri::PodSandboxStatusResponse> {
        let state = self.state.lock();
        let sandbox =
            state.sandboxes.get(&request.pod_sandbox_id).ok_or_else(|| Status::not_found("no such sandbox"))?;
        let status = cri::PodSandboxStatus {
            id: request.pod_sandbox_id,
            metadata: sandbox.config.metadata.clone(),
            state: i32::from(!sandbox.ready),
            created_at: sandbox.created_at,
            network: Some(cri::PodSandboxNetworkStatus { ip: sandbox.ip.clone(), ..Default::default() }),
            labels: sandbox.config.labels.clone(),
            ..Default::default()
        };
        Ok(cri::PodSandboxStatusResponse { status: Some(status), ..Default::default() })
    }

    async fn list_pod_sandbox(&self, request: cri::ListPodSandboxRequest) -> Answer<cri::ListPodSandboxResponse> {
        let wanted = request.filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let found = state.sandboxes.iter().filter(|(_, sandbox)| selected(&sandbox.config.labels, &wanted));
        let items = found.map(|(id, sandbox)| cri::PodSandbox {
            id: id.clone(),
            metadata: sandbox.config.metadata.clone(),
            state: i32::from(!sandbox.ready),
            labels: sandbox.config.labels.clone(),
            ..Default::default()
        });
        Ok(cri::ListPodSandboxResponse { items: items.collect() })
    }

    async fn create_container(&self, request: cri::CreateContainerRequest) -> Answer<cri::CreateContainerResponse> {
        let id = self.id();
        let config = request.config.unwrap_or_default();
        let logs = request.sandbox_config.unwrap_or_default().log_directory;
        let container = Container {
            log_path: format!("{logs}/{}", config.log_path),
            config,
            sandbox: request.pod_sandbox_id,
            state: cri::ContainerState::ContainerCreated,
            created_at: self.now(),
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
        };
        self.state.lock().containers.insert(id.clone(), container);
        Ok(cri::CreateContainerResponse { container_id: id })
    }

    async fn start_container(&self, request: cri::StartContainerRequest) -> Answer<cri::StartContainerResponse> {
        let id = request.container_id;
        let now = self.clock.now();
        let container = {
            let mut state = self.state.lock();
            let container = state.containers.get_mut(&id).ok_or_else(|| Status::not_found("no such container"))?;
            container.state = cri::ContainerState::ContainerRunning;
            container.started_at = now.as_nanos();
            container.clone()
        };
        say(&container, now);
        self.journal("start", &container);
        match exit_of(&container) {
            Some(code) => self.end(&id, code),
            None => self.tell(&id, &container.sandbox),
        }
        Ok(cri::StartContainerResponse {})
    }

    async fn stop_container(&self, request: cri::StopContainerRequest) -> Answer<cri::StopContainerResponse> {
        let container = self.state.lock().containers.get(&request.container_id).cloned();
        let container = container.ok_or_else(|| Status::not_found("no such container"))?;
        self.journal("stop", &container);
        self.end(&request.container_id, 0);
        Ok(cri::StopContainerResponse {})
    }

    async fn remove_container(&self, request: cri::RemoveContainerRequest) -> Answer<cri::RemoveContainerResponse> {
        self.state.lock().containers.remove(&request.container_id);
        Ok(cri::RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: cri::ListContainersRequest) -> Answer<cri::ListContainersResponse> {
        let wanted = request.filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let found = state.containers.iter().filter(|(_, container)| selected(&container.config.labels, &wanted));
        let containers = found.map(|(id, container)| cri::Container {
            id: id.clone(),
            pod_sandbox_id: container.sandbox.clone(),
            state: container.state as i32,
            labels: container.config.labels.clone(),
            ..Default::default()
        });
        Ok(cri::ListContainersResponse { containers: containers.collect() })
    }

    async fn container_status(&self, request: cri::ContainerStatusRequest) -> Answer<cri::ContainerStatusResponse> {
        let state = self.state.lock();
        let container =
            state.containers.get(&request.container_id).ok_or_else(|| Status::not_found("no such container"))?;
        let status = cri::ContainerStatus {
            id: request.container_id,
            metadata: container.config.metadata.clone(),
            state: container.state as i32,
            created_at: container.created_at,
            started_at: container.started_at,
            finished_at: container.finished_at,
            exit_code: container.exit_code,
            image: container.config.image.clone(),
            image_ref: container.config.image.clone().unwrap_or_default().image,
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
            mounts: container.config.mounts.clone(),
            log_path: container.log_path.clone(),
            ..Default::default()
        };
        Ok(cri::ContainerStatusResponse { status: Some(status), ..Default::default() })
    }

    async fn exec_sync(&self, request: cri::ExecSyncRequest) -> Answer<cri::ExecSyncResponse> {
        let state = self.state.lock();
        let name = state.containers.get(&request.container_id).map(name_of).unwrap_or_default();
        let exit_code = state.health.get(&name).copied().unwrap_or(0);
        Ok(cri::ExecSyncResponse { exit_code, ..Default::default() })
    }

    async fn get_container_events(&self, _: cri::GetEventsRequest) -> Answer<Answers<cri::ContainerEventResponse>> {
        let events = self.events.subscribe();
        let stream = futures::stream::unfold(events, |mut events| async move {
            let event = events.recv().await.ok()?;
            Some((Ok(event), events))
        });
        Ok(stream.boxed())
    }

    async fn update_runtime_config(
        &self,
        _: cri::UpdateRuntimeConfigRequest,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        Ok(cri::UpdateRuntimeConfigResponse {})
    }

    async fn list_container_stats(&self, _: cri::ListContainerStatsRequest) -> Answer<cri::ListContainerStatsResponse> {
        Ok(cri::ListContainerStatsResponse::default())
    }

    async fn reopen_container_log(&self, _: cri::ReopenContainerLogRequest) -> Answer<cri::ReopenContainerLogResponse> {
        Ok(cri::ReopenContainerLogResponse {})
    }

    async fn update_container_resources(
        &self,
        _: cri::UpdateContainerResourcesRequest,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        Ok(cri::UpdateContainerResourcesResponse {})
    }

    async fn exec(&self, _: cri::ExecRequest) -> Answer<cri::ExecResponse> {
        Err(Status::unimplemented("exec"))
    }

    async fn attach(&self, _: cri::AttachRequest) -> Answer<cri::AttachResponse> {
        Err(Status::unimplemented("attach"))
    }

    async fn port_forward(&self, _: cri::PortForwardRequest) -> Answer<cri::PortForwardResponse> {
        Err(Status::unimplemented("port_forward"))
    }

    async fn container_stats(&self, _: cri::ContainerStatsRequest) -> Answer<cri::ContainerStatsResponse> {
        Err(Status::unimplemented("container_stats"))
    }

    async fn pod_sandbox_stats(&self, _: cri::PodSandboxStatsRequest) -> Answer<cri::PodSandboxStatsResponse> {
        Err(Status::unimplemented("pod_sandbox_stats"))
    }

    async fn list_pod_sandbox_stats(
        &self,
        _: cri::ListPodSandboxStatsRequest,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        Err(Status::unimplemented("list_pod_sandbox_stats"))
    }

    async fn checkpoint_container(
        &self,
        _: cri::CheckpointContainerRequest,
    ) -> Answer<cri::CheckpointContainerResponse> {
        Err(Status::unimplemented("checkpoint_container"))
    }

    async fn checkpoint_pod(&self, _: cri::CheckpointPodRequest) -> Answer<cri::CheckpointPodResponse> {
        Err(Status::unimplemented("checkpoint_pod"))
    }

    async fn restore_pod(&self, _: cri::RestorePodRequest) -> Answer<cri::RestorePodResponse> {
        Err(Status::unimplemented("restore_pod"))
    }

    async fn list_metric_descriptors(
        &self,
        _: cri::ListMetricDescriptorsRequest,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        Err(Status::unimplemented("list_metric_descriptors"))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: cri::ListPodSandboxMetricsRequest,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        Err(Status::unimplemented("list_pod_sandbox_metrics"))
    }

    async fn runtime_config(&self, _: cri::RuntimeConfigRequest) -> Answer<cri::RuntimeConfigResponse> {
        Err(Status::unimplemented("runtime_config"))
    }

    async fn update_pod_sandbox_resources(
        &self,
        _: cri::UpdatePodSandboxResourcesRequest,
    ) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
        Err(Status::unimplemented("update_pod_sandbox_resources"))
    }

    async fn stream_pod_sandboxes(
        &self,
        _: cri::StreamPodSandboxesRequest,
    ) -> Answer<Answers<cri::StreamPodSandboxesResponse>> {
        Err(Status::unimplemented("stream_pod_sandboxes"))
    }

    async fn stream_containers(
        &self,
        _: cri::StreamContainersRequest,
    ) -> Answer<Answers<cri::StreamContainersResponse>> {
        Err(Status::unimplemented("stream_containers"))
    }

    async fn stream_container_stats(
        &self,
        _: cri::StreamContainerStatsRequest,
    ) -> Answer<Answers<cri::StreamContainerStatsResponse>> {
        Err(Status::unimplemented("stream_container_stats"))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        _: cri::StreamPodSandboxStatsRequest,
    ) -> Answer<Answers<cri::StreamPodSandboxStatsResponse>> {
        Err(Status::unimplemented("stream_pod_sandbox_stats"))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: cri::StreamPodSandboxMetricsRequest,
    ) -> Answer<Answers<cri::StreamPodSandboxMetricsResponse>> {
        Err(Status::unimplemented("stream_pod_sandbox_metrics"))
    }
}
