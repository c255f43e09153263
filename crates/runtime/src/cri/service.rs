//! One list of the RPCs; from it the object-safe traits, the gRPC servers and the client.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::generated as v1;
use super::generated::image_service_client::ImageServiceClient;
use super::generated::runtime_service_client::RuntimeServiceClient;
use super::remote::Remote;
use super::serve::Served;

/// The answer to a unary call.
pub type Answer<T> = Result<T, Status>;

/// The answers of a streaming call, ended by the caller (drop) or by an error.
pub type Answers<T> = BoxStream<'static, Result<T, Status>>;

macro_rules! service {
    (
        $(#[$doc:meta])*
        $service:ident in $server:ident, $client:ident;
        $( unary $call:ident($request:ident) -> $response:ident; )*
        $( stream $flow:ident($flow_request:ident) -> $flow_response:ident as $flow_type:ident; )*
    ) => {
        $(#[$doc])*
        #[async_trait]
        pub trait $service: Send + Sync + 'static {
            $(
                #[doc = concat!("CRI v1 `", stringify!($service), "`, `", stringify!($call), "`.")]
                async fn $call(&self, request: v1::$request) -> Answer<v1::$response>;
            )*
            $(
                #[doc = concat!("CRI v1 `", stringify!($service), "`, streaming `", stringify!($flow), "`.")]
                async fn $flow(&self, request: v1::$flow_request) -> Answer<Answers<v1::$flow_response>>;
            )*
        }

        #[async_trait]
        impl<T: $service + ?Sized> v1::$server::$service for Served<T> {
            $(
                async fn $call(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                    self.0.$call(request.into_inner()).await.map(Response::new)
                }
            )*
            $(
                type $flow_type = Answers<v1::$flow_response>;
                async fn $flow(
                    &self,
                    request: Request<v1::$flow_request>,
                ) -> Result<Response<Self::$flow_type>, Status> {
                    self.0.$flow(request.into_inner()).await.map(Response::new)
                }
            )*
        }

        #[async_trait]
        impl $service for Remote {
            $(
                async fn $call(&self, request: v1::$request) -> Answer<v1::$response> {
                    let mut client = $client::new(self.channel()).max_decoding_message_size(Remote::MESSAGE_BYTES_MAX);
                    client.$call(request).await.map(Response::into_inner)
                }
            )*
            $(
                async fn $flow(&self, request: v1::$flow_request) -> Answer<Answers<v1::$flow_response>> {
                    let mut client = $client::new(self.channel()).max_decoding_message_size(Remote::MESSAGE_BYTES_MAX);
                    client.$flow(request).await.map(|answer| answer.into_inner().boxed())
                }
            )*
        }

        #[async_trait]
        impl<T: $service + ?Sized> $service for Arc<T> {
            $(
                async fn $call(&self, request: v1::$request) -> Answer<v1::$response> {
                    (**self).$call(request).await
                }
            )*
            $(
                async fn $flow(&self, request: v1::$flow_request) -> Answer<Answers<v1::$flow_response>> {
                    (**self).$flow(request).await
                }
            )*
        }
    };
}

service! {
    /// Sandboxes and containers.
    RuntimeService in runtime_service_server, RuntimeServiceClient;
    unary version(VersionRequest) -> VersionResponse;
    unary run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
    unary stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
    unary remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
    unary pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
    unary list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
    unary create_container(CreateContainerRequest) -> CreateContainerResponse;
    unary start_container(StartContainerRequest) -> StartContainerResponse;
    unary stop_container(StopContainerRequest) -> StopContainerResponse;
    unary remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
    unary list_containers(ListContainersRequest) -> ListContainersResponse;
    unary container_status(ContainerStatusRequest) -> ContainerStatusResponse;
    unary update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
    unary reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
    unary exec_sync(ExecSyncRequest) -> ExecSyncResponse;
    unary exec(ExecRequest) -> ExecResponse;
    unary attach(AttachRequest) -> AttachResponse;
    unary port_forward(PortForwardRequest) -> PortForwardResponse;
    unary container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
    unary list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
    unary pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
    unary list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
    unary update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
    unary status(StatusRequest) -> StatusResponse;
    unary checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
    unary checkpoint_pod(CheckpointPodRequest) -> CheckpointPodResponse;
    unary restore_pod(RestorePodRequest) -> RestorePodResponse;
    unary list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
    unary list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
    unary runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
    unary update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
    stream get_container_events(GetEventsRequest) -> ContainerEventResponse as GetContainerEventsStream;
    stream stream_pod_sandboxes(StreamPodSandboxesRequest) -> StreamPodSandboxesResponse as StreamPodSandboxesStream;
    stream stream_containers(StreamContainersRequest) -> StreamContainersResponse as StreamContainersStream;
    stream stream_container_stats(StreamContainerStatsRequest) -> StreamContainerStatsResponse
        as StreamContainerStatsStream;
    stream stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> StreamPodSandboxStatsResponse
        as StreamPodSandboxStatsStream;
    stream stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest) -> StreamPodSandboxMetricsResponse
        as StreamPodSandboxMetricsStream;
}

service! {
    /// Images.
    ImageService in image_service_server, ImageServiceClient;
    unary list_images(ListImagesRequest) -> ListImagesResponse;
    unary image_status(ImageStatusRequest) -> ImageStatusResponse;
    unary pull_image(PullImageRequest) -> PullImageResponse;
    unary remove_image(RemoveImageRequest) -> RemoveImageResponse;
    unary image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    stream stream_images(StreamImagesRequest) -> StreamImagesResponse as StreamImagesStream;
}
