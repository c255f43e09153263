//! `list`: selectors, chunks, and which revision is read.

use http::Response;
use skiff_store::Error;
use skiff_store::cache::Snapshot;

use super::Subject;
use super::continue_token::ContinueToken;
use crate::body::Body;
use crate::chain::Call;
use crate::custom;
use crate::errors::{ApiError, ApiResult};
use crate::request::options::ListOptions;
use crate::respond::{self, ListMeta};
use crate::selection::Selection;
use crate::server::ApiServer;
use crate::storage::{Item, Stored};

/// Lists objects.
pub async fn list(server: &ApiServer, call: &Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let form = subject.form(call)?;
    let options = ListOptions::parse(&call.query)?;
    options.validate()?;
    let selection = Selection::parse(subject.kind.as_ref(), &options.label_selector, &options.field_selector)?;
    let (items, meta) = collect(server, subject, &options, &selection).await?;
    let items = custom::convert::served(server, subject.kind.as_ref(), items).await?;
    respond::list(subject.view(server, form), &items, &meta)
}

/// Reads what a list asks for.
pub async fn collect(
    server: &ApiServer,
    subject: &Subject,
    options: &ListOptions,
    selection: &Selection,
) -> ApiResult<(Vec<Stored>, ListMeta)> {
    let token = match options.continue_token.as_str() {
        "" => None,
        text => Some(ContinueToken::decode(text)?),
    };
    let snapshot = snapshot(subject, options, token.as_ref()).await?;
    let mut meta = ListMeta { revision: snapshot.revision(), ..ListMeta::default() };
    let after = token.map(|token| [&subject.collection.prefix()[..], token.after()].concat());
    let one = selection.name().filter(|_| !subject.kind.facts().namespaced || !subject.namespace.is_empty());
    if let Some(name) = one {
        // One name is one key.
        let key = subject.collection.key(&subject.namespace, name);
        let found = snapshot.get(&key).filter(|item| selection.matches(subject.kind.as_ref(), item));
        let found = found.filter(|_| after.as_ref().is_none_or(|after| key > *after));
        return Ok((found.map(|item| item.stored.clone()).into_iter().collect(), meta));
    }
    let prefix = subject.collection.namespace_prefix(&subject.namespace);
    let limit = usize::try_from(options.limit).unwrap_or(0);
    let everything = selection.is_everything();
    let (items, left) = if selection.asks_for_fields() && custom::convert::needs_webhook(subject.kind.as_ref()) {
        // Fields are those of the version that is asked for, which only the webhook knows.
        let all = snapshot.range(&prefix, after.as_deref()).map(|(_, item)| item.stored.clone()).collect();
        let all = custom::convert::served(server, subject.kind.as_ref(), all).await?;
        selected(all.into_iter().map(Item::of), subject, selection, limit)
    } else {
        selected(snapshot.range(&prefix, after.as_deref()).map(|(_, item)| &**item), subject, selection, limit)
    };
    if let Some(last) = items.last().filter(|_| left > 0) {
        meta.continue_token = ContinueToken::new(i64::try_from(meta.revision).unwrap_or(-1), &last.key).encode();
        meta.remaining = everything.then(|| i64::try_from(left).unwrap_or(i64::MAX));
        subject.collection.cache().keep(&snapshot);
    }
    Ok((items, meta))
}

/// Up to `limit` objects that are wanted (0: all of them), and how many more there are to look at.
fn selected<I: std::ops::Deref<Target = Item>>(
    mut range: impl Iterator<Item = I>,
    subject: &Subject,
    selection: &Selection,
    limit: usize,
) -> (Vec<Stored>, usize) {
    let everything = selection.is_everything();
    let mut items = Vec::with_capacity(if everything && limit == 0 { range.size_hint().0 } else { 0 });
    for item in range.by_ref() {
        if everything || selection.matches(subject.kind.as_ref(), &item) {
            items.push(item.stored.clone());
            if items.len() == limit {
                break;
            }
        }
    }
    let left = if limit > 0 { range.count() } else { 0 };
    (items, left)
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
