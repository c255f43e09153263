//! Which plugins run: upstream's list in upstream's order, and what the administrator says.

use super::{
    Plugin, certificates, default_ingress_class, default_storage_class, default_toleration_seconds, event_rate_limit,
    image_policy, limit_ranger, namespace_lifecycle, namespaces, node_restriction, optional, owner_references,
    persistent_volume_claim_resize, pod_node_selector, pod_security, pod_topology_labels, policy, priority,
    resource_quota, runtime_class, service_account, storage_object_in_use_protection, taint_nodes_by_condition,
    webhook,
};

/// What `--enable-admission-plugins` and its siblings set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Plugins to run besides those that run anyway.
    pub enabled: Vec<String>,
    /// Plugins not to run.
    pub disabled: Vec<String>,
    /// `PodSecurity`: what holds in namespaces that say nothing, and who is not asked.
    pub pod_security: pod_security::Settings,
    /// `ResourceQuota`: what nobody may use unless a quota speaks of it.
    pub limited_resources: Vec<resource_quota::limited::Limited>,
    /// `EventRateLimit`: how many events are let in.
    pub event_rate_limit: event_rate_limit::Settings,
    /// `PodNodeSelector`: selectors of namespaces.
    pub pod_node_selector: pod_node_selector::Settings,
    /// `ImagePolicyWebhook`: who decides about images.
    pub image_policy: Option<image_policy::Settings>,
    /// Who the server is to admission webhooks.
    pub webhook_users: webhook::users::Users,
}

/// A name in `enabled` or `disabled` that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// There is no such plugin.
    #[error("{flag} plugin {name:?} is unknown")]
    Unknown {
        /// The flag.
        flag: &'static str,
        /// The name.
        name: String,
    },
    /// Upstream has the plugin and this server does not.
    #[error("enable-admission-plugins plugin {0:?} is not part of this server")]
    Absent(String),
    /// Both on and off.
    #[error("{0:?} in enable-admission-plugins and disable-admission-plugins overlapped")]
    Both(String),
    /// A plugin cannot run with what it is told.
    #[error("failed to initialize admission plugin {0:?}: {1}")]
    Plugin(&'static str, String),
}

/// Whether a plugin runs when nobody says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Usually {
    On,
    Off,
}

use Usually::{Off, On};

/// Makes a plugin; `None` for what upstream has and this server has not.
type Make = Option<fn(&Settings) -> Box<dyn Plugin>>;

/// Every plugin of upstream v1.36, in its order.
const PLUGINS: &[(&str, Usually, Make)] = &[
    ("AlwaysAdmit", Off, Some(|_| Box::new(optional::AlwaysAdmit))),
    ("NamespaceAutoProvision", Off, Some(|_| Box::new(namespaces::NamespaceAutoProvision))),
    ("NamespaceLifecycle", On, Some(|_| Box::new(namespace_lifecycle::NamespaceLifecycle))),
    ("NamespaceExists", Off, Some(|_| Box::new(namespaces::NamespaceExists))),
    ("LimitPodHardAntiAffinityTopology", Off, Some(|_| Box::new(optional::LimitPodHardAntiAffinityTopology))),
    ("LimitRanger", On, Some(|_| Box::new(limit_ranger::LimitRanger))),
    ("ServiceAccount", On, Some(|_| Box::new(service_account::ServiceAccount))),
    ("NodeRestriction", On, Some(|_| Box::new(node_restriction::NodeRestriction))),
    ("TaintNodesByCondition", On, Some(|_| Box::new(taint_nodes_by_condition::TaintNodesByCondition))),
    ("AlwaysPullImages", Off, Some(|_| Box::new(optional::AlwaysPullImages))),
    (
        "ImagePolicyWebhook",
        Off,
        Some(|settings| Box::new(image_policy::ImagePolicyWebhook::new(settings.image_policy.as_ref()))),
    ),
    ("PodSecurity", On, Some(|settings| Box::new(pod_security::PodSecurity::new(&settings.pod_security)))),
    (
        "PodNodeSelector",
        Off,
        Some(|settings| Box::new(pod_node_selector::PodNodeSelector::new(&settings.pod_node_selector))),
    ),
    ("Priority", On, Some(|_| Box::new(priority::Priority))),
    ("DefaultTolerationSeconds", On, Some(|_| Box::new(default_toleration_seconds::DefaultTolerationSeconds))),
    ("PodTolerationRestriction", Off, None),
    (
        "EventRateLimit",
        Off,
        Some(|settings| Box::new(event_rate_limit::EventRateLimit::new(&settings.event_rate_limit))),
    ),
    ("ExtendedResourceToleration", Off, Some(|_| Box::new(optional::ExtendedResourceToleration))),
    ("DefaultStorageClass", On, Some(|_| Box::new(default_storage_class::DefaultStorageClass))),
    (
        "StorageObjectInUseProtection",
        On,
        Some(|_| Box::new(storage_object_in_use_protection::StorageObjectInUseProtection)),
    ),
    ("PodGroupProtection", On, None),
    (
        "OwnerReferencesPermissionEnforcement",
        Off,
        Some(|_| Box::new(owner_references::OwnerReferencesPermissionEnforcement)),
    ),
    (
        "PersistentVolumeClaimResize",
        On,
        Some(|_| Box::new(persistent_volume_claim_resize::PersistentVolumeClaimResize)),
    ),
    ("RuntimeClass", On, Some(|_| Box::new(runtime_class::RuntimeClass))),
    ("CertificateApproval", On, Some(|_| Box::new(certificates::CertificateApproval))),
    ("CertificateSigning", On, Some(|_| Box::new(certificates::CertificateSigning))),
    ("ClusterTrustBundleAttest", On, None),
    ("CertificateSubjectRestriction", On, Some(|_| Box::new(certificates::CertificateSubjectRestriction))),
    ("DefaultIngressClass", On, Some(|_| Box::new(default_ingress_class::DefaultIngressClass))),
    ("DenyServiceExternalIPs", Off, Some(|_| Box::new(optional::DenyServiceExternalIps))),
    ("PodTopologyLabels", On, Some(|_| Box::new(pod_topology_labels::PodTopologyLabels))),
    ("PodGroupWorkloadExists", On, None),
    ("NodeDeclaredFeatureValidator", On, None),
    ("JobValidation", On, None),
    ("PodResizeValidator", On, None),
    // Policies and webhooks come after everything that is built in, quota after everything.
    ("MutatingAdmissionPolicy", On, Some(|_| Box::new(policy::MutatingPolicies::default()))),
    ("MutatingAdmissionWebhook", On, Some(|_| Box::new(webhook::MutatingWebhooks::default()))),
    ("ValidatingAdmissionPolicy", On, Some(|_| Box::new(policy::ValidatingPolicies::default()))),
    ("ValidatingAdmissionWebhook", On, Some(|_| Box::new(webhook::ValidatingWebhooks::default()))),
    ("ResourceQuota", On, Some(|settings| Box::new(resource_quota::ResourceQuota::new(settings)))),
    ("AlwaysDeny", Off, Some(|_| Box::new(optional::AlwaysDeny))),
];

/// The plugins that run, in order.
///
/// # Errors
/// See [`SettingsError`].
pub(super) fn plugins(settings: &Settings) -> Result<Vec<Box<dyn Plugin>>, SettingsError> {
    let (enabled, disabled) = (&settings.enabled, &settings.disabled);
    for (flag, names) in [("enable-admission-plugins", enabled), ("disable-admission-plugins", disabled)] {
        if let Some(name) = names.iter().find(|name| PLUGINS.iter().all(|(known, ..)| known != name)) {
            return Err(SettingsError::Unknown { flag, name: name.clone() });
        }
    }
    if let Some(name) = enabled.iter().find(|name| disabled.contains(name)) {
        return Err(SettingsError::Both(name.clone()));
    }
    let named = |names: &[String], name: &str| names.iter().any(|one| one == name);
    if named(enabled, "EventRateLimit") {
        settings.event_rate_limit.check().map_err(|why| SettingsError::Plugin("EventRateLimit", why))?;
    }
    let mut running = Vec::new();
    for (name, usually, make) in PLUGINS {
        let wanted = named(enabled, name);
        if named(disabled, name) || (*usually == Off && !wanted) {
            continue;
        }
        match make {
            Some(make) => running.push(make(settings)),
            None if wanted => return Err(SettingsError::Absent((*name).to_owned())),
            None => {}
        }
    }
    Ok(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(enabled: &[&str], disabled: &[&str]) -> Result<Vec<&'static str>, String> {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let settings = Settings { enabled: owned(enabled), disabled: owned(disabled), ..Settings::default() };
        let plugins = plugins(&settings).map_err(|error| error.to_string())?;
        Ok(plugins.iter().map(|plugin| plugin.name()).collect())
    }

    #[test]
    fn plugins_run_in_order_unless_told_otherwise() {
        let all = names(&[], &[]).unwrap();
        assert_eq!(all.first(), Some(&"NamespaceLifecycle"));
        assert_eq!(all.last(), Some(&"ResourceQuota"));
        assert!(!names(&[], &["LimitRanger"]).unwrap().contains(&"LimitRanger"));
        assert_eq!(names(&["Nonsense"], &[]).unwrap_err(), "enable-admission-plugins plugin \"Nonsense\" is unknown");
        assert!(names(&["Priority"], &["Priority"]).unwrap_err().contains("overlapped"));
    }

    #[test]
    fn the_table_says_each_plugins_own_name() {
        for (name, _, make) in PLUGINS {
            if let Some(make) = make {
                assert_eq!(make(&Settings::default()).name(), *name);
            }
        }
    }
}
