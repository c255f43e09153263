//! `list`: selectors, chunks, and which revision is read.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use skiff_kinds::Kind;
use skiff_store::Error;
use skiff_store::cache::Snapshot;

use super::Subject;
use super::continue_token::ContinueToken;
use crate::body::Body;
use crate::chain::Call;
use crate::custom::convert;
use crate::errors::{ApiError, ApiResult};
use crate::listing::{self, Objects};
use crate::request::options::ListOptions;
use crate::respond::ListMeta;
use crate::selection::Selection;
use crate::server::ApiServer;
use crate::storage::Item;

/// Lists objects.
pub async fn list(server: &ApiServer, call: &Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let form = subject.form(call)?;
    let options = ListOptions::parse(&call.query)?;
    options.validate()?;
    let selection = Selection::parse(subject.kind.as_ref(), &options.label_selector, &options.field_selector)?;
    let (objects, meta) = select(server, subject, &options, &selection).await?;
    listing::respond(server, call, (&subject.kind, form), objects, meta).await
}

/// The objects that a list asks for.
pub(crate) async fn select(
    server: &ApiServer,
    subject: &Subject,
    options: &ListOptions,
    selection: &Selection,
) -> ApiResult<(Objects, ListMeta)> {
    let token = match options.continue_token.as_str() {
        "" => None,
        text => Some(ContinueToken::decode(text)?),
    };
    let snapshot = snapshot(subject, options, token.as_ref()).await?;
    let mut meta = ListMeta { revision: snapshot.revision(), ..ListMeta::default() };
    let after = token.map(|token| Bytes::from([&subject.collection.prefix()[..], token.after()].concat()));
    let kind = subject.kind.as_ref();
    let needs_webhook = convert::needs_webhook(kind);
    let mut objects = if needs_webhook && selection.asks_for_fields() {
        // Fields are those of the version that is asked for, which only the webhook knows.
        let all = Objects::selected(subject, snapshot.clone(), &Selection::default(), after);
        let mut all = converted(server, kind, all).await?;
        all.retain(|item| selection.matches(kind, item));
        Objects::given(all)
    } else {
        Objects::selected(subject, snapshot.clone(), selection, after)
    };
    if let Ok(limit @ 1..) = usize::try_from(options.limit) {
        let end = objects.page(limit).await?;
        if let Some(last) = end.last {
            meta.continue_token = ContinueToken::new(i64::try_from(meta.revision).unwrap_or(-1), &last).encode();
            meta.remaining = end.left.map(|left| i64::try_from(left).unwrap_or(i64::MAX));
            subject.collection.cache().keep(&snapshot);
        }
    }
    if needs_webhook && !selection.asks_for_fields() {
        objects = Objects::given(converted(server, kind, objects).await?);
    }
    Ok((objects, meta))
}

/// Objects in the version of the path, of a kind that a webhook converts: all at once.
async fn converted(server: &ApiServer, kind: &dyn Kind, objects: Objects) -> ApiResult<Vec<Arc<Item>>> {
    let stored = objects.collect().await?.iter().map(|item| item.stored.clone()).collect();
    let served = convert::served(server, kind, stored).await?;
    Ok(served.into_iter().map(|stored| Arc::new(Item::of(stored))).collect())
}

/// The objects at the revision that the options ask for.
async fn snapshot(
    subject: &Subject,
    options: &ListOptions,
    token: Option<&ContinueToken>,
) -> ApiResult<Snapshot<Item>> {
    let cache = subject.collection.cache();
    let failure = |error| subject.collection.failure(error);
    if let Some(token) = token {
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        return match u64::try_from(token.revision()) {
            Ok(revision) => cache.at(revision).await.map_err(|error| continue_failure(subject, token, error)),
            Err(_) => cache.current().await.map_err(failure),
        };
    }
    let Some(version) = options.version()?.filter(|version| *version > 0) else {
        return cache.current().await.map_err(failure);
    };
    // Without a match rule, a limited list of a version means exactly that version.
    let exact = match options.resource_version_match.as_str() {
        "Exact" => true,
        "" => options.limit > 0,
        _ => false,
    };
    if exact { cache.at(version).await.map_err(failure) } else { cache.at_least(version).await.map_err(failure) }
}

fn continue_failure(subject: &Subject, token: &ContinueToken, error: Error) -> ApiError {
    if !matches!(error, Error::Compacted { .. }) {
        return subject.collection.failure(error);
    }
    let mut expired = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of \
         the results. Continuing with the provided token results in an inconsistent list - objects that were \
         created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    expired.continue_token = Some(token.inconsistent().encode());
    expired
}
