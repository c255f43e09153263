//! One function per verb; never one per resource.

use std::sync::Arc;

use skiff_kinds::Kind;

use crate::chain::Call;
use crate::errors::{ApiError, ApiResult, Qualified};
use crate::negotiate::{self, Form, Offer};
use crate::respond::View;
use crate::server::ApiServer;
use crate::storage::Collection;

pub mod continue_token;
pub mod create;
pub mod delete;
pub mod delete_collection;
pub mod get;
pub mod list;
pub mod patch;
pub mod update;
pub mod watch;

/// What a request is about, looked up.
#[derive(Clone)]
pub struct Subject {
    /// The resource in the version of the path.
    pub kind: Arc<dyn Kind>,
    /// Where its objects are.
    pub collection: Arc<Collection>,
    /// The namespace of the path; empty for all or none.
    pub namespace: String,
    /// The name in the path; empty for collections.
    pub name: String,
    /// The subresource of the path; empty for none.
    pub subresource: String,
}

impl Subject {
    /// What a component inside the server works on.
    pub fn internal(server: &ApiServer, kind: &Arc<dyn Kind>, namespace: &str, name: &str) -> Self {
        Self {
            kind: Arc::clone(kind),
            collection: server.collections.of(kind.as_ref()),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
        }
    }

    /// `deployments.apps`, for messages about the resource.
    pub fn resource(&self) -> Qualified<'_> {
        let facts = self.kind.facts();
        Qualified { group: facts.group.as_str(), name: facts.plural.as_str() }
    }

    /// `Deployment.apps`, for messages about an object.
    pub fn kind_name(&self) -> Qualified<'_> {
        let facts = self.kind.facts();
        Qualified { group: facts.group.as_str(), name: facts.kind.as_str() }
    }

    /// What the resource can be answered as.
    pub fn offer(&self) -> Offer {
        if skiff_kinds::builtin()
            .kind(self.kind.facts().api_version.as_str(), self.kind.facts().kind.as_str())
            .is_some()
        {
            Offer::RESOURCE
        } else {
            Offer::CUSTOM
        }
    }

    /// How its objects are shown now.
    pub fn view(&self, server: &ApiServer, form: Form) -> View<'_> {
        View::new(server, self.kind.as_ref(), form)
    }

    /// The form the client wants.
    pub fn form(&self, call: &Call) -> ApiResult<Form> {
        negotiate::accept(&call.headers, &call.query, self.offer())
    }

    /// The 404 for this object.
    pub fn not_found(&self) -> ApiError {
        ApiError::not_found(self.resource(), &self.name)
    }
}
