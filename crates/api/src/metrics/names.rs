//! Every metric there is. Names, types and labels are upstream's.

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident $kind:ident $name:literal $help:literal;)*) => {
        /// A metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Name {
            $(#[doc = $help] $variant,)*
        }

        impl Name {
            /// As it is exposed.
            pub(super) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it says, in one sentence.
            pub(super) fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }

            /// `counter`, `gauge` or `histogram`.
            pub(super) fn kind(self) -> &'static str {
                match self { $(Self::$variant => stringify!($kind),)* }
            }
        }
    };
}

names! {
    Admission histogram "apiserver_admission_controller_admission_duration_seconds" "Time that an admission plugin took for a write.";
    AuditEvents counter "apiserver_audit_event_total" "Audit events that were written; there is no audit log.";
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
    BuildInfo gauge "kubernetes_build_info" "Always 1; the labels say what is running.";
    CpuSeconds counter "process_cpu_seconds_total" "Processor time used by the process.";
    MaxFds gauge "process_max_fds" "File descriptors that the process may have open.";
    OpenFds gauge "process_open_fds" "File descriptors that the process has open.";
    ResidentBytes gauge "process_resident_memory_bytes" "Memory of the process that is in RAM.";
    StartSeconds gauge "process_start_time_seconds" "When the process was started, in seconds since 1970.";
    VirtualBytes gauge "process_virtual_memory_bytes" "Address space of the process.";
}
