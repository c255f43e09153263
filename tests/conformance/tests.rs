//! The list: every test under the name that upstream's suite gives the behaviour.

use crate::{
    Test, auth, cli, conversion, definitions, discovery, events, fields, garbage, hooks, lifecycle, list_watch,
    namespaces, policies, publish, quota, version,
};

macro_rules! tests {
    ($($name:literal => $run:path,)*) => {
        /// Every test there is.
        pub(crate) const ALL: &[Test] =
            &[$(Test { name: $name, run: |ctx| Box::pin($run(ctx)) }),*];
    };
}

tests! {
    // Lists and watches.
    "[sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls [Conformance]" => list_watch::chunks,
    "[sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent [Slow] [Conformance]" => list_watch::compacted,
    "[sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement metadata [Conformance]" => list_watch::no_table,
    "[sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the previous watch [Conformance]" => list_watch::restart,
    "[sig-api-machinery] Watchers should be able to start watching from a specific resource version [Conformance]" => list_watch::from_version,
    "[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps [Conformance]" => list_watch::observe,
    "[sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the selector [Conformance]" => list_watch::selector,
    "[sig-api-machinery] Watchers should receive events on concurrent watches in same order [Conformance]" => list_watch::same_order,

    // Namespaces.
    "[sig-api-machinery] Namespaces [Serial] should apply a finalizer to a Namespace [Conformance]" => namespaces::finalizer,
    "[sig-api-machinery] Namespaces [Serial] should apply an update to a Namespace [Conformance]" => namespaces::update,
    "[sig-api-machinery] Namespaces [Serial] should apply changes to a namespace status [Conformance]" => namespaces::status,
    "[sig-api-machinery] Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted [Conformance]" => namespaces::pods_removed,
    "[sig-api-machinery] Namespaces [Serial] should ensure that all services are removed when a namespace is deleted [Conformance]" => namespaces::services_removed,
    "[sig-api-machinery] Namespaces [Serial] should patch a Namespace [Conformance]" => namespaces::patch,
    "[sig-api-machinery] OrderedNamespaceDeletion namespace deletion should delete pod first [Conformance]" => namespaces::pods_first,

    // Versions.
    "[sig-api-machinery] server version should find the server version [Conformance]" => version::server,

    // Discovery.
    "[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface [Conformance]" => discovery::by_kubectl,
    "[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface for CRDs [Conformance]" => discovery::custom_by_kubectl,
    "[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers [Conformance]" => discovery::raw,
    "[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery request for CRDs [Conformance]" => discovery::custom_raw,
    "[sig-api-machinery] Discovery should locate the groupVersion and a resource within each APIGroup [Conformance]" => discovery::locate,
    "[sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup [Conformance]" => discovery::preferred,

    // The garbage collector.
    "[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning [Conformance]" => garbage::deployment_background,
    "[sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning [Conformance]" => garbage::controller_background,
    "[sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so [Serial] [Conformance]" => garbage::foreground,
    "[sig-api-machinery] Garbage collector should not be blocked by dependency circle [Conformance]" => garbage::circle,
    "[sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Serial] [Conformance]" => garbage::two_owners,
    "[sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan [Conformance]" => garbage::deployment_orphan,
    "[sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so [Serial] [Conformance]" => garbage::controller_orphan,

    // Quotas.
    "[sig-api-machinery] ResourceQuota should apply changes to a resourcequota status [Conformance]" => quota::status_changes,
    "[sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota. [Conformance]" => quota::update_delete,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a configMap. [Conformance]" => quota::config_map,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod. [Conformance]" => quota::pod_life,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set. [Conformance]" => quota::replica_set,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication controller. [Conformance]" => quota::replication_controller,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a secret. [Conformance]" => quota::secret,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a service. [Conformance]" => quota::service,
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated. [Conformance]" => quota::status_calculated,
    "[sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota [Conformance]" => quota::lifecycle,
    "[sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope. [Conformance]" => quota::best_effort,
    "[sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes. [Conformance]" => quota::terminating,

    // Every operation of a kind.
    "[sig-api-machinery] API priority and fairness should support FlowSchema API operations [Conformance]" => lifecycle::flow_schema,
    "[sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations [Conformance]" => lifecycle::priority_level,
    "[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations [Conformance]" => lifecycle::certificate_request,

    // Who is asking, and may they.
    "[sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer [Conformance]" => auth::issuer,
    "[sig-auth] ServiceAccounts should allow opting out of API token automount [Conformance]" => auth::automount,
    "[sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview [Conformance]" => auth::token_review,
    "[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace [Conformance]" => auth::root_certificate,
    "[sig-auth] ServiceAccounts should mount an API token into pods [Conformance]" => auth::mounted_token,
    "[sig-auth] ServiceAccounts should mount projected service account token [Conformance]" => auth::projected_token,
    "[sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount [Conformance]" => auth::account_life,
    "[sig-auth] ServiceAccounts should update a ServiceAccount [Conformance]" => auth::account_update,
    "[sig-auth] SubjectReview should support SubjectReview API operations [Conformance]" => auth::subject_reviews,

    // Events.
    "[sig-instrumentation] Events should delete a collection of events [Conformance]" => events::core_collection,
    "[sig-instrumentation] Events should manage the lifecycle of an event [Conformance]" => events::core_life,
    "[sig-instrumentation] Events API should delete a collection of events [Conformance]" => events::new_collection,
    "[sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed [Conformance]" => events::new_life,

    // kubectl.
    "[sig-cli] Kubectl client Guestbook application should create and stop a working application [Conformance]" => cli::guestbook,
    "[sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions [Conformance]" => cli::api_versions,
    "[sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info [Conformance]" => cli::cluster_info,
    "[sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods [Conformance]" => cli::describe,
    "[sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments [Conformance]" => cli::diff,
    "[sig-cli] Kubectl client Kubectl expose should create services for rc [Conformance]" => cli::expose,
    "[sig-cli] Kubectl client Kubectl label should update the label on a resource [Conformance]" => cli::label,
    "[sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc [Conformance]" => cli::patch,
    "[sig-cli] Kubectl client Kubectl replace should update a single-container pod's image [Conformance]" => cli::replace,
    "[sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never [Conformance]" => cli::run_never,
    "[sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods [Conformance]" => cli::dry_run,
    "[sig-cli] Kubectl client Kubectl version should check is all data is printed [Conformance]" => cli::version,
    "[sig-cli] Kubectl client Proxy server should support --unix-socket=/path [Conformance]" => cli::proxy_socket,
    "[sig-cli] Kubectl client Proxy server should support proxy with --port 0 [Conformance]" => cli::proxy_port,
    "[sig-cli] Kubectl client Update Demo should create and stop a replication controller [Conformance]" => cli::create_controller,
    "[sig-cli] Kubectl client Update Demo should scale a replication controller [Conformance]" => cli::scale_controller,
    "[sig-cli] Kubectl logs logs should be able to retrieve and filter logs [Conformance]" => cli::logs,

    // Fields that are not there, or twice.
    "[sig-api-machinery] FieldValidation should create/apply a CR with unknown fields for CRD with no validation schema [Conformance]" => fields::custom_no_schema,
    "[sig-api-machinery] FieldValidation should create/apply a valid CR for CRD with validation schema [Conformance]" => fields::custom_valid,
    "[sig-api-machinery] FieldValidation should create/apply an invalid CR with extra properties for CRD with validation schema [Conformance]" => fields::custom_extra,
    "[sig-api-machinery] FieldValidation should detect duplicates in a CR when preserving unknown fields [Conformance]" => fields::custom_duplicates,
    "[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object [Conformance]" => fields::typed,
    "[sig-api-machinery] FieldValidation should detect unknown metadata fields in both the root and embedded object of a CR [Conformance]" => fields::custom_metadata,
    "[sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object [Conformance]" => fields::typed_metadata,

    // Custom resource definitions.
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition creating/deleting custom resource definition objects works [Conformance]" => definitions::create_delete,
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition getting/updating/patching custom resource definition status sub-resource works [Conformance]" => definitions::status,
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition listing custom resource definition objects works [Conformance]" => definitions::list,
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] custom resource defaulting for requests and from storage works [Conformance]" => definitions::defaults,
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] should include custom resource definition resources in discovery documents [Conformance]" => definitions::in_discovery,
    "[sig-api-machinery] CustomResourceDefinition Watch [Privileged:ClusterAdmin] CustomResourceDefinition Watch watch on custom resource definition objects [Conformance]" => definitions::watched,
    "[sig-api-machinery] CustomResourceFieldSelectors [Privileged:ClusterAdmin] CustomResourceFieldSelectors MUST list and watch custom resources matching the field selector [Conformance]" => definitions::field_selectors,
    "[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert a non homogeneous list of CRs [Conformance]" => conversion::mixed_list,
    "[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert from CR v1 to CR v2 [Conformance]" => conversion::one_to_two,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] removes definition from spec when one version gets changed to not be served [Conformance]" => publish::unserved,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] updates the published spec when one version gets renamed [Conformance]" => publish::renamed,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields at the schema root [Conformance]" => publish::preserving_root,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields in an embedded object [Conformance]" => publish::preserving_embedded,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD with validation schema [Conformance]" => publish::with_schema,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD without validation schema [Conformance]" => publish::without_schema,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of different groups [Conformance]" => publish::groups,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group and version but different kinds [Conformance]" => publish::kinds,
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group but different versions [Conformance]" => publish::several_versions,

    // Admission policies.
    "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should allow expressions to refer variables. [Conformance]" => policies::variables,
    "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API operations [Conformance]" => policies::validating_life,
    "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding API operations [Conformance]" => policies::validating_binding_life,
    "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should validate against a Deployment [Conformance]" => policies::validates,
    "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment [Conformance]" => policies::mutates,
    "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment with annotations [Conformance]" => policies::mutates_annotations,
    "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicy API operations [Conformance]" => policies::mutating_life,
    "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicyBinding API operations [Conformance]" => policies::mutating_binding_life,

    // Admission webhooks.
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] listing mutating webhooks should work [Conformance]" => hooks::list_mutating,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] listing validating webhooks should work [Conformance]" => hooks::list_validating,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a mutating webhook should work [Conformance]" => hooks::change_mutating,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a validating webhook should work [Conformance]" => hooks::change_validating,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update mutating webhook configurations with match conditions [Conformance]" => hooks::conditions_mutating,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update validating webhook configurations with match conditions [Conformance]" => hooks::conditions_validating,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny attaching pod [Conformance]" => hooks::deny_attach,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny custom resource creation, update and deletion [Conformance]" => hooks::deny_custom,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny pod and configmap creation [Conformance]" => hooks::deny_pods_and_maps,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should deny crd creation [Conformance]" => hooks::deny_definitions,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should honor timeout [Conformance]" => hooks::timeout,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should include webhook resources in discovery documents [Conformance]" => hooks::in_discovery,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate configmap [Conformance]" => hooks::mutate_map,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource [Conformance]" => hooks::mutate_custom,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource with different stored version [Conformance]" => hooks::mutate_other_version,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource with pruning [Conformance]" => hooks::mutate_pruned,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate everything except 'skip-me' configmaps [Conformance]" => hooks::skip_me,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate pod and apply defaults after mutation [Conformance]" => hooks::mutate_pod,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should not be able to mutate or prevent deletion of webhook configuration objects [Conformance]" => hooks::configurations_are_safe,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject mutating webhook configurations with invalid match conditions [Conformance]" => hooks::bad_conditions_mutating,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject validating webhook configurations with invalid match conditions [Conformance]" => hooks::bad_conditions_validating,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should unconditionally reject operations on fail closed webhook [Conformance]" => hooks::fail_closed,
}
