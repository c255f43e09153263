//! Admission: an ordered slice of plugins that may change a write and refuse it.
//!
//! Webhooks and policies will be two of them; their slots are marked in [`Admission::standard`].

use async_trait::async_trait;
use skiff_object::Tree;

use crate::authn::UserInfo;
use crate::chain::Call;
use crate::errors::ApiResult;
use crate::registry;
use crate::server::ApiServer;
use crate::verbs::Subject;

pub mod default_storage_class;
pub mod default_toleration_seconds;
pub mod limit_ranger;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod pod_resources;
pub mod priority;
pub mod resource_quota;
pub mod service_account;
pub mod taint_nodes_by_condition;

/// What kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object.
    Update,
    /// A delete.
    Delete,
    /// A connection to an object (`exec`, `proxy`).
    Connect,
}

impl Operation {
    /// As upstream spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What is about to be written.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    /// What kind of write.
    pub operation: Operation,
    /// The resource, namespace and subresource.
    pub subject: &'a Subject,
    /// The object's name.
    pub name: &'a str,
    /// Who writes.
    pub user: &'a UserInfo,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// The request, when there is one.
    pub call: Option<&'a Call>,
}

impl Attributes<'_> {
    /// Whether this is about a resource itself and not a subresource of it.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subject.subresource.is_empty() && registry::is(self.subject.kind.as_ref(), group, plural)
    }
}

/// One plugin. Both halves do nothing unless it says otherwise.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// The name, as upstream calls it.
    fn name(&self) -> &'static str;

    /// Whether the plugin has anything to say about this write. Asked before either half, so
    /// that most writes wake few plugins.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// Changes the object. Called once for each write, before it is validated.
    async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &mut Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let _ = (server, attributes, object, old);
        Ok(())
    }

    /// Refuses the write.
    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let _ = (server, attributes, object, old);
        Ok(())
    }
}

/// The plugins, in order.
pub struct Admission {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Admission {
    /// The plugins of a standard cluster. Their order is the order.
    pub fn standard() -> Self {
        Self {
            plugins: vec![
                Box::new(namespace_lifecycle::NamespaceLifecycle),
                Box::new(limit_ranger::LimitRanger),
                Box::new(service_account::ServiceAccount),
                Box::new(node_restriction::NodeRestriction),
                Box::new(taint_nodes_by_condition::TaintNodesByCondition),
                Box::new(priority::Priority),
                Box::new(default_toleration_seconds::DefaultTolerationSeconds),
                Box::new(default_storage_class::DefaultStorageClass),
                // Slot: mutating policies, mutating webhooks; then validating policies and
                // webhooks.
                Box::new(resource_quota::ResourceQuota),
            ],
        }
    }

    /// Runs every plugin's mutating half.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &mut Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        for plugin in self.plugins.iter().filter(|plugin| plugin.handles(attributes)) {
            let began = server.clock().instant();
            let outcome = plugin.mutate(server, attributes, object, old).await;
            let took = server.clock().instant() - began;
            let operation = attributes.operation.as_str();
            server.metrics.admitted(plugin.name(), operation, "admit", outcome.is_err(), took);
            outcome?;
        }
        Ok(())
    }

    /// Runs every plugin's validating half.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        for plugin in self.plugins.iter().filter(|plugin| plugin.handles(attributes)) {
            let began = server.clock().instant();
            let outcome = plugin.validate(server, attributes, object, old).await;
            let took = server.clock().instant() - began;
            let operation = attributes.operation.as_str();
            server.metrics.admitted(plugin.name(), operation, "validate", outcome.is_err(), took);
            outcome?;
        }
        Ok(())
    }
}
