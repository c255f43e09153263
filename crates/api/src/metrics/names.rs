//! Every metric there is. Names, types and labels are upstream's.

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident $kind:ident $name:literal $help:literal;)*) => {
        /// A metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Name {
            $(#[doc = $help] $variant,)*
        }

        impl Name {
            /// As it is exposed.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it says, in one sentence.
            pub(crate) fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }

            /// `counter`, `gauge` or `histogram`.
            pub(crate) fn kind(self) -> &'static str {
                match self { $(Self::$variant => stringify!($kind),)* }
            }
        }
    };
}

names! {
    Admission histogram "apiserver_admission_controller_admission_duration_seconds" "Time that an admission plugin took for a write.";
    WebhookSeconds histogram "apiserver_admission_webhook_admission_duration_seconds" "Time that an admission webhook took for a write.";
    WebhookFailOpen counter "apiserver_admission_webhook_fail_open_count" "Calls of admission webhooks that failed and did not matter.";
    WebhookRejections counter "apiserver_admission_webhook_rejection_count" "Writes that were refused by or because of an admission webhook.";
    WebhookRequests counter "apiserver_admission_webhook_request_total" "Calls of admission webhooks.";
    AuditEvents counter "apiserver_audit_event_total" "Audit events that were given to a back end.";
    AuditErrors counter "apiserver_audit_error_total" "Audit events that were not recorded.";
    AuditLevels counter "apiserver_audit_level_total" "Requests by how much the audit policy wants of them.";
    AuditRejected counter "apiserver_audit_requests_rejected_total" "Requests that were refused because their audit event could not be stored.";
    FlowCurrent gauge "apiserver_flowcontrol_current_limit_seats" "Seats that a priority level has now.";
    FlowDemandAverage gauge "apiserver_flowcontrol_demand_seats_average" "Seats that were asked for in the last period, on average.";
    FlowDemandHigh gauge "apiserver_flowcontrol_demand_seats_high_watermark" "The most seats that were asked for at once in the last period.";
    FlowDemandSmoothed gauge "apiserver_flowcontrol_demand_seats_smoothed" "Seats that were asked for, smoothed over periods.";
    FlowDemandDeviation gauge "apiserver_flowcontrol_demand_seats_stdev" "Standard deviation of the seats asked for, as that of independent requests.";
    FlowDispatched counter "apiserver_flowcontrol_dispatched_requests_total" "Requests that got their seats.";
    FlowEstimatedSeats histogram "apiserver_flowcontrol_work_estimated_seats" "Seats that requests were estimated to take.";
    FlowExecuting gauge "apiserver_flowcontrol_current_executing_requests" "Requests that have seats.";
    FlowExecutingSeats gauge "apiserver_flowcontrol_current_executing_seats" "Seats that requests have.";
    FlowExecutionSeconds histogram "apiserver_flowcontrol_request_execution_seconds" "Time that requests had their seats.";
    FlowLower gauge "apiserver_flowcontrol_lower_limit_seats" "The least seats that a priority level has.";
    FlowNominal gauge "apiserver_flowcontrol_nominal_limit_seats" "Seats that a priority level has by its shares.";
    FlowQueueLength histogram "apiserver_flowcontrol_request_queue_length_after_enqueue" "Length of a queue after a request came into it.";
    FlowRejected counter "apiserver_flowcontrol_rejected_requests_total" "Requests that were turned away.";
    FlowTarget gauge "apiserver_flowcontrol_target_seats" "Seats that a priority level should have if there were enough.";
    FlowUnaccommodated counter "apiserver_flowcontrol_request_dispatch_no_accommodation_total" "Times that the next request found too few seats.";
    FlowUpper gauge "apiserver_flowcontrol_upper_limit_seats" "The most seats that a priority level may have.";
    FlowWaitSeconds histogram "apiserver_flowcontrol_request_wait_duration_seconds" "Time that requests waited for their seats.";
    FlowWaiting gauge "apiserver_flowcontrol_current_inqueue_requests" "Requests that wait for seats.";
    FlowWaitingSeats gauge "apiserver_flowcontrol_current_inqueue_seats" "Seats that are waited for.";
    FlowWatchers histogram "apiserver_flowcontrol_watch_count_samples" "Watchers that a write has to tell.";
    Inflight gauge "apiserver_current_inflight_requests" "Requests that are being answered and will end by themselves.";
    LongRunning gauge "apiserver_longrunning_requests" "Answers that are open for as long as the client likes.";
    RequestSeconds histogram "apiserver_request_duration_seconds" "Time from a request to the head of its answer.";
    Requests counter "apiserver_request_total" "Requests that were answered.";
    ResourceObjects gauge "apiserver_resource_objects" "Objects in the store, for resources that somebody has listed or watched.";
    ResponseBytes histogram "apiserver_response_sizes" "Bytes of answers to reads.";
    StorageObjects gauge "apiserver_storage_objects" "As apiserver_resource_objects, under the name it had before.";
    WatchEventBytes histogram "apiserver_watch_events_sizes" "Bytes of events that were sent to watchers.";
    WatchEvents counter "apiserver_watch_events_total" "Events that were sent to watchers.";
    Users counter "authenticated_user_requests" "Requests that came with good credentials.";
    Authentications counter "authentication_attempts" "Requests by what became of their credentials.";
    Authorizations counter "authorization_attempts_total" "Requests by what was decided about them.";
    StoreSeconds histogram "etcd_request_duration_seconds" "Time that the store took.";
    UnavailableApis gauge "aggregator_unavailable_apiservice" "Whether an API that another server serves cannot be reached now.";
    AllocatedAddresses gauge "kube_apiserver_clusterip_allocator_allocated_ips" "Addresses that Services have, by network.";
    AvailableAddresses gauge "kube_apiserver_clusterip_allocator_available_ips" "Addresses that are left for Services, by network.";
    AllocatedPorts gauge "kube_apiserver_nodeport_allocator_allocated_ports" "Node ports that Services have.";
    AvailablePorts gauge "kube_apiserver_nodeport_allocator_available_ports" "Node ports that are left for Services.";
    Healthcheck gauge "kubernetes_healthcheck" "Whether a health check went well the last time.";
    Healthchecks counter "kubernetes_healthchecks_total" "How health checks went.";
    FeatureEnabled gauge "kubernetes_feature_enabled" "Feature gates that are on.";
    BuildInfo gauge "kubernetes_build_info" "Always 1; the labels say what is running.";
    CpuSeconds counter "process_cpu_seconds_total" "Processor time used by the process.";
    MaxFds gauge "process_max_fds" "File descriptors that the process may have open.";
    OpenFds gauge "process_open_fds" "File descriptors that the process has open.";
    ResidentBytes gauge "process_resident_memory_bytes" "Memory of the process that is in RAM.";
    StartSeconds gauge "process_start_time_seconds" "When the process was started, in seconds since 1970.";
    VirtualBytes gauge "process_virtual_memory_bytes" "Address space of the process.";
}
