//! `list`: selectors, chunks, and which revision is read.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Response;
use serde::{Deserialize, Serialize};
use skiff_store::{Error, Range};

use super::Subject;
use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::request::options::ListOptions;
use crate::respond::{self, ListMeta};
use crate::selection::Selection;
use crate::server::ApiServer;
use crate::storage::{Stored, prefix_end};

/// A selective list reads at most so many entries at a time.
const PAGE_ENTRIES: usize = 1_000;

/// Where a list goes on: upstream's token, base64 of JSON.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Continue {
    v: String,
    /// The revision of the list; -1 for "whatever is current", after it expired.
    rv: i64,
    /// The key to begin with, relative to the collection.
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

impl Continue {
    fn new(rv: i64, last: &[u8]) -> Self {
        // The next key after the last one given out, as upstream writes it.
        Self { v: TOKEN_VERSION.into(), rv, start: format!("{}\0", String::from_utf8_lossy(last)) }
    }

    fn encode(&self) -> String {
        serde_json::to_vec(self).map(|json| URL_SAFE_NO_PAD.encode(json)).unwrap_or_default()
    }

    fn decode(text: &str) -> ApiResult<Self> {
        let invalid = |why: String| ApiError::bad_request(format!("continue key is not valid: {why}"));
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|error| invalid(error.to_string()))?;
        let token: Self = serde_json::from_slice(&json).map_err(|error| invalid(error.to_string()))?;
        if token.v != TOKEN_VERSION {
            return Err(invalid(format!("server does not recognize this encoded version {:?}", token.v)));
        }
        if token.rv == 0 {
            return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()));
        }
        if token.start.is_empty() || token.start.split('/').any(|part| part == "..") {
            return Err(invalid("encoded start key empty or invalid".into()));
        }
        Ok(token)
    }
}

/// What is read.
struct Plan {
    start: Bytes,
    end: Bytes,
    revision: Option<u64>,
    continued: Option<Continue>,
}

/// Lists objects.
pub async fn list(server: &ApiServer, call: &Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let form = subject.form(call)?;
    let options = ListOptions::parse(&call.query)?;
    options.validate()?;
    let selection = Selection::parse(subject.kind.as_ref(), &options.label_selector, &options.field_selector)?;
    let (items, meta) = collect(server, subject, &options, &selection).await?;
    let mut response = respond::list(subject.kind.as_ref(), &items, &meta, form)?;
    respond::compress(&mut response, &call.headers);
    Ok(response)
}

/// Reads what a list asks for.
pub async fn collect(
    server: &ApiServer,
    subject: &Subject,
    options: &ListOptions,
    selection: &Selection,
) -> ApiResult<(Vec<Stored>, ListMeta)> {
    let mut plan = plan(server, subject, options)?;
    let limit = usize::try_from(options.limit).unwrap_or(0);
    if let Some(name) = selection.name().filter(|_| !subject.namespace.is_empty() || !subject.kind.facts().namespaced) {
        // One name: the range is one key, and a token that points past it still ends there.
        let key = subject.collection.key(&subject.namespace, name);
        plan.end = plan.end.min(Bytes::from([&key[..], b"\0"].concat()));
        plan.start = plan.start.max(key);
    }
    let mut items = Vec::new();
    let mut meta = ListMeta { revision: plan.revision.unwrap_or(0), ..ListMeta::default() };
    let everything = selection.is_everything();
    loop {
        let page = if everything { limit } else { PAGE_ENTRIES };
        let range = Range { start: plan.start.clone(), end: plan.end.clone(), limit: page, revision: plan.revision };
        let found = if plan.start >= plan.end {
            skiff_store::RangeResult { entries: Vec::new(), count: 0, revision: server.config.store.revision() }
        } else {
            match subject.collection.range(range).await {
                Ok(found) => found,
                Err(error) => return Err(list_failure(subject, &plan, error)),
            }
        };
        if meta.revision == 0 {
            meta.revision = plan.revision.unwrap_or(found.revision);
        }
        // Later pages read the past as of the first one.
        plan.revision = Some(meta.revision);
        let (read, total) = (found.entries.len(), found.count);
        for (index, entry) in found.entries.into_iter().enumerate() {
            plan.start = Bytes::from([&entry.key[..], b"\0"].concat());
            let stored = subject.collection.stored(entry);
            if everything || matches(subject, selection, &stored)? {
                items.push(stored);
            }
            if limit > 0 && items.len() == limit {
                finish(&mut meta, &items, total - (index + 1), everything);
                return Ok((items, meta));
            }
        }
        if page == 0 || read < page || total <= read {
            return Ok((items, meta));
        }
    }
}

/// Says how to go on when `left` keys were not looked at.
fn finish(meta: &mut ListMeta, items: &[Stored], left: usize, everything: bool) {
    let Some(last) = items.last().filter(|_| left > 0) else { return };
    meta.continue_token = Continue::new(i64::try_from(meta.revision).unwrap_or(-1), &last.key).encode();
    meta.remaining = everything.then(|| i64::try_from(left).unwrap_or(i64::MAX));
}

/// Whether a stored object matches.
pub fn matches(subject: &Subject, selection: &Selection, stored: &Stored) -> ApiResult<bool> {
    if selection.is_everything() {
        return Ok(true);
    }
    let tree = respond::decode_stored(subject.kind.as_ref(), &stored.value)?;
    Ok(selection.matches(subject.kind.as_ref(), &tree))
}

fn plan(server: &ApiServer, subject: &Subject, options: &ListOptions) -> ApiResult<Plan> {
    let prefix = subject.collection.namespace_prefix(&subject.namespace);
    let end = prefix_end(&prefix);
    if !options.continue_token.is_empty() {
        let token = Continue::decode(&options.continue_token)?;
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let start = Bytes::from([&subject.collection.prefix()[..], token.start.as_bytes()].concat());
        let revision = u64::try_from(token.rv).ok();
        return Ok(Plan { start: start.max(prefix), end, revision, continued: Some(token) });
    }
    let current = server.config.store.revision();
    let version = options.version()?.filter(|version| *version > 0);
    if let Some(version) = version.filter(|version| *version > current) {
        return Err(ApiError::future_version(version, current));
    }
    // Without a match rule, a limited list of a version means exactly that version.
    let exact = match options.resource_version_match.as_str() {
        "Exact" => true,
        "" => options.limit > 0,
        _ => false,
    };
    Ok(Plan { start: prefix, end, revision: version.filter(|_| exact), continued: None })
}

fn list_failure(subject: &Subject, plan: &Plan, error: Error) -> ApiError {
    match (&error, &plan.continued) {
        (Error::Compacted { .. }, Some(token)) => {
            let mut expired = ApiError::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new \
                 list without the continue parameter, or use the continue token in this response to retrieve the \
                 remainder of the results. Continuing with the provided token results in an inconsistent list - \
                 objects that were created, modified, or deleted between the time the first chunk was returned and \
                 now may show up in the list.",
            );
            let inconsistent = Continue { v: token.v.clone(), rv: -1, start: token.start.clone() };
            expired.continue_token = Some(inconsistent.encode());
            expired
        }
        _ => subject.collection.failure(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_upstreams_and_junk_is_refused() {
        let token = Continue::new(7, b"ns/a");
        assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        assert_eq!(
            String::from_utf8(URL_SAFE_NO_PAD.decode(token.encode()).unwrap()).unwrap(),
            "{\"v\":\"meta.k8s.io/v1\",\"rv\":7,\"start\":\"ns/a\\u0000\"}"
        );
        for junk in ["x", "e30", "!!"] {
            assert!(Continue::decode(junk).unwrap_err().message.starts_with("continue key is not valid: "));
        }
    }
}
