//! The definitions: one file per resource over the schema pack.
//!
//! Map, in reading order: [`facts`] (what discovery says), [`kind`] (what a kind can do),
//! [`registry`] (which kinds there are), [`rules`] (what is the same for most), [`table`], `pack` (the types),
//! then one file per resource.
//!
//! ```
//! let registry = skiff_kinds::builtin();
//! let deployments = registry.resource("apps", "v1", "deployments").unwrap();
//! assert_eq!(deployments.facts().kind.as_str(), "Deployment");
//! ```

use std::sync::Arc;

mod cells;
mod checks;
pub mod custom;
pub mod describe;
pub mod facts;
mod fill;
pub mod kind;
mod pack;
mod pod_spec;
pub mod registry;
pub mod rules;
pub mod table;

pub use facts::{Facts, Subresource, Verb, Verbs};
pub use kind::Kind;
pub use pack::{schema, type_named, type_of};
pub use registry::Registry;

/// The built-in kinds.
pub fn builtin() -> &'static Registry {
    Registry::builtin()
}

/// Declares the modules of the resources and makes the list of kinds, in the order of discovery.
macro_rules! kinds {
    ($($group:ident { $($file:ident: $($name:ident = ($api_version:literal, $plural:literal)),+;)* })*) => {
        kinds!(@modules $($group { $($file)* })*);

        pub(crate) fn builtin_kinds() -> Vec<Arc<dyn Kind>> {
            let mut facts = registry::builtin_facts();
            let mut kinds: Vec<(usize, Arc<dyn Kind>)> = Vec::new();
            $($($(
                if let Some((place, facts)) = facts.remove(&($api_version, $plural)) {
                    kinds.push((place, Arc::new($group::$file::$name(facts))));
                }
            )+)*)*
            assert!(facts.is_empty(), "resources without a file: {:?}", facts.keys());
            kinds.sort_by_key(|(place, _)| *place);
            kinds.into_iter().map(|(_, kind)| kind).collect()
        }
    };
    (@modules $($group:ident { $($file:ident)* })*) => {
        $(mod $group { $(pub(crate) mod $file;)* })*
    };
}

kinds! {
    core {
        binding: Binding = ("v1", "bindings");
        component_status: ComponentStatus = ("v1", "componentstatuses");
        config_map: ConfigMap = ("v1", "configmaps");
        endpoints: Endpoints = ("v1", "endpoints");
        event: Event = ("v1", "events");
        limit_range: LimitRange = ("v1", "limitranges");
        namespace: Namespace = ("v1", "namespaces");
        node: Node = ("v1", "nodes");
        persistent_volume: PersistentVolume = ("v1", "persistentvolumes");
        persistent_volume_claim: PersistentVolumeClaim = ("v1", "persistentvolumeclaims");
        pod: Pod = ("v1", "pods");
        pod_template: PodTemplate = ("v1", "podtemplates");
        replication_controller: ReplicationController = ("v1", "replicationcontrollers");
        resource_quota: ResourceQuota = ("v1", "resourcequotas");
        secret: Secret = ("v1", "secrets");
        service: Service = ("v1", "services");
        service_account: ServiceAccount = ("v1", "serviceaccounts");
    }
    apiregistration {
        api_service: APIService = ("apiregistration.k8s.io/v1", "apiservices");
    }
    apps {
        controller_revision: ControllerRevision = ("apps/v1", "controllerrevisions");
        daemon_set: DaemonSet = ("apps/v1", "daemonsets");
        deployment: Deployment = ("apps/v1", "deployments");
        replica_set: ReplicaSet = ("apps/v1", "replicasets");
        stateful_set: StatefulSet = ("apps/v1", "statefulsets");
    }
    events {
        event: Event = ("events.k8s.io/v1", "events");
    }
    authentication {
        self_subject_review: SelfSubjectReview = ("authentication.k8s.io/v1", "selfsubjectreviews");
        token_review: TokenReview = ("authentication.k8s.io/v1", "tokenreviews");
    }
    authorization {
        local_subject_access_review: LocalSubjectAccessReview = ("authorization.k8s.io/v1", "localsubjectaccessreviews");
        self_subject_access_review: SelfSubjectAccessReview = ("authorization.k8s.io/v1", "selfsubjectaccessreviews");
        self_subject_rules_review: SelfSubjectRulesReview = ("authorization.k8s.io/v1", "selfsubjectrulesreviews");
        subject_access_review: SubjectAccessReview = ("authorization.k8s.io/v1", "subjectaccessreviews");
    }
    autoscaling {
        horizontal_pod_autoscaler:
            HorizontalPodAutoscalerV1 = ("autoscaling/v1", "horizontalpodautoscalers"),
            HorizontalPodAutoscalerV2 = ("autoscaling/v2", "horizontalpodautoscalers");
    }
    batch {
        cron_job: CronJob = ("batch/v1", "cronjobs");
        job: Job = ("batch/v1", "jobs");
    }
    certificates {
        certificate_signing_request: CertificateSigningRequest = ("certificates.k8s.io/v1", "certificatesigningrequests");
    }
    networking {
        ingress: Ingress = ("networking.k8s.io/v1", "ingresses");
        ingress_class: IngressClass = ("networking.k8s.io/v1", "ingressclasses");
        ip_address: IPAddress = ("networking.k8s.io/v1", "ipaddresses");
        network_policy: NetworkPolicy = ("networking.k8s.io/v1", "networkpolicies");
        service_cidr: ServiceCIDR = ("networking.k8s.io/v1", "servicecidrs");
    }
    policy {
        pod_disruption_budget: PodDisruptionBudget = ("policy/v1", "poddisruptionbudgets");
    }
    rbac {
        cluster_role: ClusterRole = ("rbac.authorization.k8s.io/v1", "clusterroles");
        cluster_role_binding: ClusterRoleBinding = ("rbac.authorization.k8s.io/v1", "clusterrolebindings");
        role: Role = ("rbac.authorization.k8s.io/v1", "roles");
        role_binding: RoleBinding = ("rbac.authorization.k8s.io/v1", "rolebindings");
    }
    storage {
        csi_driver: CSIDriver = ("storage.k8s.io/v1", "csidrivers");
        csi_node: CSINode = ("storage.k8s.io/v1", "csinodes");
        csi_storage_capacity: CSIStorageCapacity = ("storage.k8s.io/v1", "csistoragecapacities");
        storage_class: StorageClass = ("storage.k8s.io/v1", "storageclasses");
        volume_attachment: VolumeAttachment = ("storage.k8s.io/v1", "volumeattachments");
        volume_attributes_class: VolumeAttributesClass = ("storage.k8s.io/v1", "volumeattributesclasses");
    }
    admissionregistration {
        mutating_admission_policy: MutatingAdmissionPolicy = ("admissionregistration.k8s.io/v1", "mutatingadmissionpolicies");
        mutating_admission_policy_binding: MutatingAdmissionPolicyBinding = ("admissionregistration.k8s.io/v1", "mutatingadmissionpolicybindings");
        mutating_webhook_configuration: MutatingWebhookConfiguration = ("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations");
        validating_admission_policy: ValidatingAdmissionPolicy = ("admissionregistration.k8s.io/v1", "validatingadmissionpolicies");
        validating_admission_policy_binding: ValidatingAdmissionPolicyBinding = ("admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings");
        validating_webhook_configuration: ValidatingWebhookConfiguration = ("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations");
    }
    apiextensions {
        custom_resource_definition: CustomResourceDefinition = ("apiextensions.k8s.io/v1", "customresourcedefinitions");
    }
    scheduling {
        priority_class: PriorityClass = ("scheduling.k8s.io/v1", "priorityclasses");
    }
    coordination {
        lease: Lease = ("coordination.k8s.io/v1", "leases");
    }
    node {
        runtime_class: RuntimeClass = ("node.k8s.io/v1", "runtimeclasses");
    }
    discovery {
        endpoint_slice: EndpointSlice = ("discovery.k8s.io/v1", "endpointslices");
    }
    resource {
        device_class: DeviceClass = ("resource.k8s.io/v1", "deviceclasses");
        resource_claim: ResourceClaim = ("resource.k8s.io/v1", "resourceclaims");
        resource_claim_template: ResourceClaimTemplate = ("resource.k8s.io/v1", "resourceclaimtemplates");
        resource_slice: ResourceSlice = ("resource.k8s.io/v1", "resourceslices");
    }
    flowcontrol {
        flow_schema: FlowSchema = ("flowcontrol.apiserver.k8s.io/v1", "flowschemas");
        priority_level_configuration: PriorityLevelConfiguration = ("flowcontrol.apiserver.k8s.io/v1", "prioritylevelconfigurations");
    }
}
