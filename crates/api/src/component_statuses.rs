//! `componentstatuses`: nothing of it is stored, the answer is made when somebody asks.
//!
//! Upstream asks the scheduler and the controller manager at ports of the machine it runs on, where they are
//! processes of their own. Here they are parts of whichever server leads, so the store is the only component that
//! every server can speak of.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use skiff_kinds::Kind;
use skiff_object::Tree;

use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::listing::{self, Objects};
use crate::request::options::ListOptions;
use crate::respond::{self, ListMeta};
use crate::selection::Selection;
use crate::server::ApiServer;
use crate::storage::{Item, Stored};
use crate::verbs::Subject;
use crate::write::encode_stored;

/// Upstream waits this long for a component.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How upstream calls the first server of the store.
const STORE: &str = "etcd-0";

/// Whether objects of this kind are made when they are asked for.
pub(crate) fn handles(kind: &dyn Kind) -> bool {
    let facts = kind.facts();
    facts.plural == *"componentstatuses" && facts.group == *""
}

/// Answers get and list; there is nothing else to do with them.
///
/// # Errors
/// 404 for a component that is not known, 405 for any other verb.
pub(crate) async fn answer(server: &ApiServer, call: &Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let form = subject.form(call)?;
    match (call.info.verb, call.info.path_names_object()) {
        ("get", true) if subject.name == STORE => {
            respond::object(StatusCode::OK, subject.view(server, form), &store(server, subject).await?)
        }
        ("get", true) => Err(subject.not_found()),
        ("list", false) => {
            let options = ListOptions::parse(&call.query)?;
            let selection = Selection::parse(subject.kind.as_ref(), &options.label_selector, &options.field_selector)?;
            let item = Item::of(store(server, subject).await?);
            let wanted = selection.matches(subject.kind.as_ref(), &item);
            let objects = Objects::given(wanted.then(|| Arc::new(item)));
            listing::respond(server, call, (&subject.kind, form), objects, ListMeta::default()).await
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn store(server: &ApiServer, subject: &Subject) -> ApiResult<Stored> {
    let problem = match tokio::time::timeout(TIMEOUT, server.config.store.check()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("context deadline exceeded".to_owned()),
    };
    let mut condition = Tree::map();
    condition.set(&["type"], "Healthy");
    condition.set(&["status"], if problem.is_none() { "True" } else { "False" });
    match problem {
        None => condition.set(&["message"], "ok"),
        Some(problem) => condition.set(&["error"], problem),
    }
    let mut object = Tree::map();
    object.set(&["kind"], "ComponentStatus");
    object.set(&["apiVersion"], "v1");
    object.set(&["metadata", "name"], STORE);
    object.set(&["conditions"], vec![condition]);
    Ok(Stored { key: STORE.into(), value: encode_stored(subject.kind.as_ref(), &object)?, revision: 0 })
}
