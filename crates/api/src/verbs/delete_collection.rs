//! `deletecollection`

use http::Response;

use super::delete::{self, Asking, Outcome};
use super::{Subject, list};
use crate::body::Body;
use crate::chain::Call;
use crate::errors::ApiResult;
use crate::listing::{self, Objects};
use crate::meta;
use crate::request::options::ListOptions;
use crate::respond;
use crate::selection::Selection;
use crate::server::ApiServer;

/// Deletes every object that a list would give, and answers with that list.
pub async fn delete_collection(server: &ApiServer, call: &mut Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let form = subject.form(call)?;
    let listed = ListOptions::parse(&call.query)?;
    listed.validate()?;
    let selection = Selection::parse(subject.kind.as_ref(), &listed.label_selector, &listed.field_selector)?;
    let options = delete::read_options(call).await?;
    let (objects, meta) = list::select(server, subject, &listed, &selection).await?;
    let items = objects.collect().await?;
    let mut deleted = Vec::with_capacity(items.len());
    for item in items {
        let object = respond::decode_stored(subject.kind.as_ref(), &item.stored.value)?;
        let one = Subject {
            kind: subject.kind.clone(),
            collection: subject.collection.clone(),
            namespace: meta::namespace(&object).to_owned(),
            name: meta::name(&object).to_owned(),
            subresource: String::new(),
        };
        match delete::remove(server, &one, &options, Some(Asking { user: &call.user, call: Some(call) })).await {
            Ok(Outcome::Gone(stored) | Outcome::Deleting(stored)) => deleted.push(stored),
            // Somebody else was faster: it is gone, which is what was wanted.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    listing::respond(server, call, (&subject.kind, form), Objects::stored(deleted), meta).await
}
