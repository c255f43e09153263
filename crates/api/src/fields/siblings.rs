//! The versions of a kind as field ownership asks for them.
//!
//! Conversions of built-in kinds are made at once. Those by webhook are noted, made by [`Siblings::settle`], and known
//! the next time they are asked for.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use skiff_kinds::custom::Conversion;
use skiff_kinds::{Kind, Registry};
use skiff_object::managed::versions::{Other, Pending, Versions};
use skiff_object::{Tree, json};

use crate::custom::convert;
use crate::errors::{ApiError, ApiResult};
use crate::write::Writer;

/// A conversion: the version, and the object as JSON.
type Question = (String, Bytes);

/// The versions beside the one of a request.
pub(super) struct Siblings {
    kind: Arc<dyn Kind>,
    registry: Arc<Registry>,
    known: HashMap<Question, Tree>,
    wanted: Mutex<Vec<(Question, Tree)>>,
}

impl Siblings {
    pub(super) fn new(writer: &Writer<'_>) -> Self {
        let (kind, registry) = (Arc::clone(&writer.subject.kind), writer.server.registry());
        Self { kind, registry, known: HashMap::new(), wanted: Mutex::default() }
    }

    /// Makes the conversions that were asked for.
    ///
    /// # Errors
    /// When a webhook does not.
    pub(super) async fn settle(&mut self, writer: &Writer<'_>) -> ApiResult<()> {
        for (question, object) in std::mem::take(self.wanted.get_mut()) {
            let to = self.find(&question.0).cloned();
            let to = to.ok_or_else(|| ApiError::internal(format!("there is no {} any more", question.0)))?;
            let converted = convert::between(writer.server, to.as_ref(), &object).await?;
            self.known.insert(question, converted.unwrap_or(object));
        }
        Ok(())
    }

    /// The same resource in another version (or, for events, in another group).
    fn find(&self, api_version: &str) -> Option<&Arc<dyn Kind>> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let here = self.kind.facts();
        let found = self.registry.resource(group, version, here.plural.as_str())?;
        (found.facts().storage.group == here.storage.group).then_some(found)
    }
}

impl Versions for Siblings {
    fn other(&self, api_version: &str) -> Other<'_> {
        let found = self.find(api_version);
        if let Some(custom) = self.kind.custom() {
            let name = api_version.rsplit('/').next().unwrap_or_default();
            return match (custom.conversion(), found) {
                (Conversion::Webhook(_), Some(found)) => Other::Differs(found.schema(), found.facts().ty),
                _ if custom.has_version(name) => Other::Same,
                _ => Other::Gone,
            };
        }
        found.map_or(Other::Same, |found| Other::Differs(found.schema(), found.facts().ty))
    }

    fn convert(&self, object: &Tree, api_version: &str) -> Result<Tree, Pending> {
        if self.kind.custom().is_none() {
            let mut object = object.clone();
            let from = object.str_at(&["apiVersion"]).to_owned();
            if let (Some(from), Some(to)) = (self.find(&from), self.find(api_version)) {
                from.to_stored(&mut object);
                to.to_served(&mut object);
            }
            return Ok(object);
        }
        let question = (api_version.to_owned(), Bytes::from(json::encode_untyped(object)));
        if let Some(known) = self.known.get(&question) {
            return Ok(known.clone());
        }
        self.wanted.lock().push((question, object.clone()));
        Err(Pending)
    }
}
