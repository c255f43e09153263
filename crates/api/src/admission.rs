//! Admission: an ordered slice of plugins that may change a write and refuse it.
//!
//! Webhooks and policies are plugins among others. Which run, and in which order, is the table in
//! [`settings`]; a second round of the mutating halves is the matter of [`rounds`].

use async_trait::async_trait;
use skiff_object::Tree;

use crate::authn::UserInfo;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::registry;
use crate::request::options::{DeleteOptions, WriteOptions};
use crate::server::ApiServer;
use crate::verbs::Subject;

pub mod certificates;
pub mod configuration;
pub mod default_ingress_class;
pub mod default_storage_class;
pub mod default_toleration_seconds;
pub mod event_rate_limit;
pub mod exchanged;
pub mod image_policy;
pub mod limit_ranger;
pub mod namespace_lifecycle;
pub mod namespaces;
pub mod node_restriction;
pub mod optional;
pub mod owner_references;
pub mod persistent_volume_claim_resize;
pub mod pod_node_selector;
pub mod pod_resources;
pub mod pod_security;
pub mod pod_topology_labels;
pub mod policy;
pub mod priority;
pub mod resource_quota;
pub mod rounds;
pub mod runtime_class;
pub mod service_account;
pub mod settings;
pub mod storage_object_in_use_protection;
pub mod taint_nodes_by_condition;
pub mod webhook;

pub use rounds::Rounds;
pub use settings::{Settings, SettingsError};

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

/// The options of a write, as the request carries them.
#[derive(Clone, Copy)]
pub enum Options<'a> {
    /// A connection has none.
    None,
    /// Of a create.
    Create(&'a WriteOptions),
    /// Of an update or a patch.
    Update(&'a WriteOptions),
    /// Of a delete.
    Delete(&'a DeleteOptions),
}

impl Options<'_> {
    /// As webhooks and policies see them; null for none.
    pub fn to_tree(self) -> Tree {
        match self {
            Self::None => Tree::Null,
            Self::Create(options) => options.to_tree("CreateOptions"),
            Self::Update(options) => options.to_tree("UpdateOptions"),
            Self::Delete(options) => options.to_tree(),
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
    /// The object's name; empty while a name is still to be generated.
    pub name: &'a str,
    /// Who writes.
    pub user: &'a UserInfo,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// The request, when there is one.
    pub call: Option<&'a Call>,
    /// The options of the request.
    pub options: Options<'a>,
    /// What mutating plugins tell each other.
    pub rounds: &'a Rounds,
}

impl<'a> Attributes<'a> {
    /// Whether this is about a resource itself and not a subresource of it.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subject.subresource.is_empty() && registry::is(self.subject.kind.as_ref(), group, plural)
    }

    /// `apiVersion` and `kind` of what is exchanged: those of the resource, or of the subresource
    /// where that has its own (`Scale`, `Binding`, `PodExecOptions`).
    pub fn exchanged(&self) -> (&'a str, &'a str) {
        let facts = self.subject.kind.facts();
        match facts.subresource(&self.subject.subresource) {
            Some(sub) if !self.subject.subresource.is_empty() => (sub.api_version.as_str(), sub.kind.as_str()),
            _ => (facts.api_version.as_str(), facts.kind.as_str()),
        }
    }

    /// The namespace as admission sees it: a namespace is in itself.
    pub fn namespace(&self) -> &'a str {
        if registry::is(self.subject.kind.as_ref(), "", "namespaces") { self.name } else { &self.subject.namespace }
    }

    /// Tells the client something besides the answer.
    pub fn warn(&self, text: impl Into<String>) {
        if let Some(call) = self.call {
            call.warn(text);
        }
    }

    /// Notes something for the audit log.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        if let Some(call) = self.call {
            call.annotate(key, value);
        }
    }

    /// The 403 of a plugin. What has no name yet is called by what its name will begin with.
    pub fn forbidden(&self, object: &Tree, why: &str) -> ApiError {
        let generated = object.str_at(&["metadata", "generateName"]);
        let name = [self.name, meta::name(object), generated].into_iter().find(|name| !name.is_empty());
        ApiError::forbidden(self.subject.resource(), name.unwrap_or("Unknown"), why)
    }
}

/// One plugin. Both halves do nothing unless it says otherwise. On a delete the object is null and
/// `old` is what goes; on a connection the object is the options of the connection.
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
    /// The plugins that `settings` wants.
    ///
    /// # Errors
    /// When a plugin is named that there is not.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self { plugins: settings::plugins(settings)? })
    }

    /// Runs every plugin's mutating half, a second time where a webhook or policy asks for it.
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
        loop {
            for plugin in self.plugins.iter().filter(|plugin| plugin.handles(attributes)) {
                let began = server.clock().instant();
                let outcome = plugin.mutate(server, attributes, object, old).await;
                let took = server.clock().instant() - began;
                let operation = attributes.operation.as_str();
                server.metrics.admitted(plugin.name(), operation, "admit", outcome.is_err(), took);
                outcome?;
            }
            if !attributes.rounds.advance() {
                return Ok(());
            }
        }
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

    /// Both halves for what is not stored as it is: a binding, an eviction, a token request, the
    /// options of a connection; for a delete with the null object.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn admit(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &mut Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        self.mutate(server, attributes, object, old).await?;
        self.validate(server, attributes, object, old).await
    }
}
