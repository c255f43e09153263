//! Query parameters as the options types of metav1, parsed as strictly (and as loosely) as
//! upstream does.

use skiff_object::Tree;

use super::query_decode;
use crate::errors::{ApiError, ApiResult, Cause, Qualified};

/// `metav1.ListOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// `labelSelector`, as written.
    pub label_selector: String,
    /// `fieldSelector`, as written.
    pub field_selector: String,
    /// `watch`
    pub watch: bool,
    /// `allowWatchBookmarks`
    pub allow_watch_bookmarks: bool,
    /// `resourceVersion`, as written.
    pub resource_version: String,
    /// `resourceVersionMatch`
    pub resource_version_match: String,
    /// `timeoutSeconds`
    pub timeout_seconds: Option<i64>,
    /// `limit`
    pub limit: i64,
    /// `continue`
    pub continue_token: String,
    /// `sendInitialEvents`
    pub send_initial_events: Option<bool>,
}

/// The options of create, update and patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// `dryRun=All`
    pub dry_run: bool,
    /// `fieldManager`, as written; empty when not given.
    pub field_manager: String,
    /// `fieldValidation`
    pub field_validation: FieldValidation,
    /// `force`
    pub force: Option<bool>,
}

/// What happens to fields that the schema does not know and to duplicates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a `Warning` header.
    #[default]
    Warn,
    /// An error.
    Strict,
}

/// `metav1.DeleteOptions`, from query or body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// `gracePeriodSeconds`
    pub grace_period_seconds: Option<i64>,
    /// `propagationPolicy`
    pub propagation_policy: Option<String>,
    /// `orphanDependents`
    pub orphan_dependents: Option<bool>,
    /// `dryRun=All`
    pub dry_run: bool,
    /// `preconditions.uid`
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`
    pub resource_version: Option<String>,
}

/// Key and value pairs of a query, decoded.
pub fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (query_decode(key).into_owned(), query_decode(value).into_owned())
    })
}

/// The first value of `key`.
pub fn first(query: &str, key: &str) -> Option<String> {
    pairs(query).find(|(name, _)| name == key).map(|(_, value)| value)
}

/// Go's conversion of a query value to a bool: anything but `false` and `0` is true.
fn truth(value: &str) -> bool {
    !(value == "0" || value.eq_ignore_ascii_case("false"))
}

fn whole(value: &str) -> ApiResult<i64> {
    value.parse().map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax")))
}

/// Whether the query asks for a watch.
pub fn is_watch(query: &str) -> bool {
    query.contains("watch") && first(query, "watch").is_some_and(|value| truth(&value))
}

/// The name that `fieldSelector=metadata.name=x` asks for, when it asks for exactly one.
pub fn name_selector(query: &str) -> Option<String> {
    if !query.contains("fieldSelector") {
        return None;
    }
    let selector = first(query, "fieldSelector")?;
    selector.split(',').find_map(|term| {
        let rest = term.trim().strip_prefix("metadata.name=")?;
        let name = rest.strip_prefix('=').unwrap_or(rest);
        (!name.is_empty()).then(|| name.to_owned())
    })
}

impl ListOptions {
    /// Parses and validates.
    pub fn parse(query: &str) -> ApiResult<Self> {
        let mut options = Self::default();
        let mut seen = Vec::new();
        for (key, value) in pairs(query) {
            if seen.contains(&key) {
                continue; // the first one counts, as with Go's url.Values.Get
            }
            match key.as_str() {
                "labelSelector" => options.label_selector = value,
                "fieldSelector" => options.field_selector = value,
                "watch" => options.watch = truth(&value),
                "allowWatchBookmarks" => options.allow_watch_bookmarks = truth(&value),
                "resourceVersion" => options.resource_version = value,
                "resourceVersionMatch" => options.resource_version_match = value,
                "timeoutSeconds" => options.timeout_seconds = Some(whole(&value)?),
                "limit" => options.limit = whole(&value)?,
                "continue" => options.continue_token = value,
                "sendInitialEvents" => options.send_initial_events = Some(truth(&value)),
                _ => continue,
            }
            seen.push(key);
        }
        Ok(options)
    }

    /// The rules between `resourceVersionMatch`, `resourceVersion`, `continue` and
    /// `sendInitialEvents`.
    pub fn validate(&self) -> ApiResult<()> {
        let mut causes = Vec::new();
        let mut forbid = |field: &str, why: &str| {
            causes.push(Cause {
                reason: "FieldValueForbidden".into(),
                message: format!("Forbidden: {why}"),
                field: field.into(),
            });
        };
        let rv_match = self.resource_version_match.as_str();
        if self.watch {
            if self.send_initial_events.is_some() && rv_match != "NotOlderThan" {
                forbid(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
            if !rv_match.is_empty() && self.send_initial_events.is_none() {
                forbid(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
        } else {
            if !rv_match.is_empty() && self.resource_version.is_empty() {
                forbid("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if rv_match == "Exact" && self.resource_version == "0" {
                forbid("resourceVersionMatch", "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
            if self.send_initial_events.is_some() {
                forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
            }
        }
        if !rv_match.is_empty() && !self.continue_token.is_empty() {
            forbid("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided");
        }
        let supported: &[&str] = if self.watch { &["NotOlderThan"] } else { &["Exact", "NotOlderThan"] };
        if !rv_match.is_empty() && !supported.contains(&rv_match) {
            let listed: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
            causes.push(Cause {
                reason: "FieldValueNotSupported".into(),
                message: format!("Unsupported value: {rv_match:?}: supported values: {}", listed.join(", ")),
                field: "resourceVersionMatch".into(),
            });
        }
        if causes.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(Qualified { group: "meta.k8s.io", name: "ListOptions" }, "", causes))
    }

    /// `resourceVersion` as a number; `None` when it is not set.
    pub fn version(&self) -> ApiResult<Option<u64>> {
        parse_version(&self.resource_version)
    }
}

/// Reads a resourceVersion; `None` for the empty one.
pub fn parse_version(text: &str) -> ApiResult<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let cause = Cause {
            reason: "FieldValueInvalid".into(),
            message: format!("Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"),
            field: "resourceVersion".into(),
        };
        let mut error = ApiError::bad_request(format!("resourceVersion: {}", cause.message));
        error.details.get_or_insert_default().causes.push(cause);
        error
    })
}

/// `fieldManager` may have this many bytes.
const FIELD_MANAGER_BYTES_MAX: usize = 128;

impl WriteOptions {
    /// Parses and validates. `options_kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    pub fn parse(query: &str, options_kind: &str) -> ApiResult<Self> {
        let mut options = Self::default();
        let mut causes = Vec::new();
        for (key, value) in pairs(query) {
            match key.as_str() {
                "dryRun" => match value.as_str() {
                    "" => {}
                    "All" => options.dry_run = true,
                    _ => causes.push(unsupported("dryRun", &value, "\"All\"")),
                },
                "fieldManager" => options.field_manager = value,
                "fieldValidation" => {
                    options.field_validation = match value.as_str() {
                        "Strict" => FieldValidation::Strict,
                        "" | "Warn" => FieldValidation::Warn,
                        "Ignore" => FieldValidation::Ignore,
                        _ => {
                            causes.push(unsupported("fieldValidation", &value, "\"Ignore\", \"Strict\", \"Warn\""));
                            FieldValidation::Warn
                        }
                    }
                }
                "force" => options.force = Some(truth(&value)),
                _ => {}
            }
        }
        if options.field_manager.len() > FIELD_MANAGER_BYTES_MAX {
            causes.push(Cause {
                reason: "FieldValueTooLong".into(),
                message: format!("Too long: may not be more than {FIELD_MANAGER_BYTES_MAX} bytes"),
                field: "fieldManager".into(),
            });
        }
        if let Some(bad) = options.field_manager.chars().find(|c| c.is_control()) {
            causes.push(Cause {
                reason: "FieldValueInvalid".into(),
                message: format!("Invalid value: {bad:?}: should only contain printable characters"),
                field: "fieldManager".into(),
            });
        }
        if causes.is_empty() {
            return Ok(options);
        }
        Err(ApiError::invalid(Qualified { group: "meta.k8s.io", name: options_kind }, "", causes))
    }
}

impl WriteOptions {
    /// As admission shows them. `kind` is `CreateOptions` or `UpdateOptions`: a patch is one of both.
    pub fn to_tree(&self, kind: &str) -> Tree {
        let mut tree = options_tree(kind, self.dry_run);
        if !self.field_manager.is_empty() {
            tree.set(&["fieldManager"], self.field_manager.as_str());
        }
        match self.field_validation {
            FieldValidation::Ignore => tree.set(&["fieldValidation"], "Ignore"),
            FieldValidation::Strict => tree.set(&["fieldValidation"], "Strict"),
            FieldValidation::Warn => {}
        }
        tree
    }
}

fn options_tree(kind: &str, dry_run: bool) -> Tree {
    let mut tree = Tree::map();
    tree.set(&["kind"], kind);
    tree.set(&["apiVersion"], "meta.k8s.io/v1");
    if dry_run {
        tree.set(&["dryRun"], vec![Tree::from("All")]);
    }
    tree
}

fn unsupported(field: &str, value: &str, supported: &str) -> Cause {
    Cause {
        reason: "FieldValueNotSupported".into(),
        message: format!("Unsupported value: {value:?}: supported values: {supported}"),
        field: field.into(),
    }
}

impl DeleteOptions {
    /// As admission shows them.
    pub fn to_tree(&self) -> Tree {
        let mut tree = options_tree("DeleteOptions", self.dry_run);
        if let Some(seconds) = self.grace_period_seconds {
            tree.set(&["gracePeriodSeconds"], seconds);
        }
        if let Some(policy) = &self.propagation_policy {
            tree.set(&["propagationPolicy"], policy.as_str());
        }
        if let Some(orphan) = self.orphan_dependents {
            tree.set(&["orphanDependents"], orphan);
        }
        if let Some(uid) = &self.uid {
            tree.set(&["preconditions", "uid"], uid.as_str());
        }
        if let Some(version) = &self.resource_version {
            tree.set(&["preconditions", "resourceVersion"], version.as_str());
        }
        tree
    }

    /// From the query; a body overrides all of it.
    pub fn parse(query: &str) -> ApiResult<Self> {
        let mut options = Self::default();
        for (key, value) in pairs(query) {
            match key.as_str() {
                "gracePeriodSeconds" => options.grace_period_seconds = Some(whole(&value)?),
                "propagationPolicy" => options.propagation_policy = Some(value),
                "orphanDependents" => options.orphan_dependents = Some(truth(&value)),
                "dryRun" if value == "All" => options.dry_run = true,
                "dryRun" if !value.is_empty() => {
                    return Err(delete_invalid(vec![unsupported("dryRun", &value, "\"All\"")]));
                }
                _ => {}
            }
        }
        Ok(options)
    }

    /// The rules between the fields.
    pub fn validate(&self) -> ApiResult<()> {
        if self.orphan_dependents.is_some() && self.propagation_policy.is_some() {
            return Err(delete_invalid(vec![Cause {
                reason: "FieldValueInvalid".into(),
                message: format!(
                    "Invalid value: {:?}: orphanDependents and deletionPropagation cannot be both set",
                    self.propagation_policy.as_deref().unwrap_or("")
                ),
                field: "propagationPolicy".into(),
            }]));
        }
        match self.propagation_policy.as_deref() {
            None | Some("Foreground" | "Background" | "Orphan") => Ok(()),
            Some(other) => Err(delete_invalid(vec![unsupported(
                "propagationPolicy",
                other,
                "\"Foreground\", \"Background\", \"Orphan\", \"nil\"",
            )])),
        }
    }
}

fn delete_invalid(causes: Vec<Cause>) -> ApiError {
    ApiError::invalid(Qualified { group: "meta.k8s.io", name: "DeleteOptions" }, "", causes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_options_follow_gos_conversions() {
        let options =
            ListOptions::parse("watch&allowWatchBookmarks=False&limit=5&labelSelector=a%3Db&limit=9").unwrap();
        assert!(options.watch && !options.allow_watch_bookmarks);
        assert_eq!((options.limit, options.label_selector.as_str()), (5, "a=b"));
        assert_eq!(
            ListOptions::parse("limit=x").unwrap_err().message,
            "strconv.ParseInt: parsing \"x\": invalid syntax"
        );
    }

    #[test]
    fn the_version_rules_are_upstreams() {
        let check = |query: &str| ListOptions::parse(query).unwrap().validate().map_err(|error| error.message);
        assert_eq!(check("resourceVersionMatch=Exact&resourceVersion=5"), Ok(()));
        assert_eq!(
            check("resourceVersionMatch=Exact").unwrap_err(),
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
             resourceVersionMatch is forbidden unless resourceVersion is provided"
        );
        assert_eq!(check("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), Ok(()));
        assert!(check("watch=1&sendInitialEvents=true").is_err());
        assert!(check("sendInitialEvents=true").is_err());
    }

    #[test]
    fn field_validation_is_one_of_three() {
        assert_eq!(
            WriteOptions::parse("fieldValidation=Loose", "CreateOptions").unwrap_err().message,
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Loose\": \
             supported values: \"Ignore\", \"Strict\", \"Warn\""
        );
    }
}
