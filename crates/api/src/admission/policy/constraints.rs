//! Which writes a policy or a binding is for: `matchConstraints` and `matchResources`.

use std::sync::Arc;

use skiff_kinds::Kind;
use skiff_object::Tree;
use skiff_object::selector::label::{LabelSelectorError, Selector};

use crate::admission::Attributes;
use crate::admission::webhook::configuration::{Rule, selector};
use crate::admission::webhook::matching;
use crate::errors::ApiResult;
use crate::server::ApiServer;

/// `MatchResources`
#[derive(Debug)]
pub struct Constraints {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    is_equivalent: bool,
    namespace_selector: Result<Selector, LabelSelectorError>,
    object_selector: Result<Selector, LabelSelectorError>,
}

impl Constraints {
    /// Reads them; `None` when there are none.
    pub fn read(resources: Option<&Tree>) -> Option<Self> {
        let resources = resources.filter(|resources| !resources.is_null())?;
        let rules = |key: &str| resources.list_at(&[key]).iter().map(Rule::read).collect();
        Some(Self {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            is_equivalent: resources.str_at(&["matchPolicy"]) != "Exact",
            namespace_selector: selector(resources.get("namespaceSelector")),
            object_selector: selector(resources.get("objectSelector")),
        })
    }

    /// The kind in whose version the write is seen; `None` when it is not meant.
    ///
    /// # Errors
    /// When a selector cannot be told and the rules match.
    pub async fn matching(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<Option<Arc<dyn Kind>>> {
        let kind = if self.rules.is_empty() {
            Arc::clone(&attributes.subject.kind)
        } else {
            match matching::kind_for(server, attributes, &self.rules, self.is_equivalent) {
                Some(kind) => kind,
                None => return Ok(None),
            }
        };
        if matching::kind_for(server, attributes, &self.excluded, self.is_equivalent).is_some()
            || !matching::object_matches(&self.object_selector, object, old)?
            || !matching::namespace_matches(server, attributes, &self.namespace_selector, object).await?
        {
            return Ok(None);
        }
        Ok(Some(kind))
    }
}
