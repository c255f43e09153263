//! Parameters of requests.

use serde_json::json;

use crate::resource::push_query;

/// Which objects a list or watch is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selection {
    /// Label selector in the API's own text form; empty for all.
    pub labels: String,
    /// Field selector in the API's own text form; empty for all.
    pub fields: String,
}

impl Selection {
    /// Objects that match the label selector `labels`.
    pub fn labels(labels: impl Into<String>) -> Self {
        Self { labels: labels.into(), fields: String::new() }
    }

    /// Objects that match the field selector `fields`.
    pub fn fields(fields: impl Into<String>) -> Self {
        Self { labels: String::new(), fields: fields.into() }
    }
}

/// Parameters of a list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Which objects.
    pub selection: Selection,
    /// At most so many objects in one answer; 0 for no bound.
    pub limit: u32,
    /// Where the previous answer ended.
    pub continue_token: String,
    /// "At least as new as"; empty for the newest, `0` for whatever the server has at hand.
    pub resource_version: String,
}

impl From<Selection> for ListOptions {
    fn from(selection: Selection) -> Self {
        Self { selection, ..Self::default() }
    }
}

/// Parameters of a watch.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// Which objects.
    pub selection: Selection,
    /// The events after this version; empty for the present state as `Added` events first.
    pub resource_version: String,
    /// The present state first, ended by an annotated bookmark.
    pub initial_events: bool,
    /// The server ends the watch after so many seconds; 0 for its own bound.
    pub timeout_secs: u32,
}

/// What becomes of dependents when an object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector deletes them afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

impl Propagation {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// Parameters of a delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds a pod has to end; `None` for what the object says.
    pub grace_secs: Option<i64>,
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only the object in this version.
    pub resource_version: Option<String>,
    /// What becomes of dependents; `None` for the kind's default.
    pub propagation: Option<Propagation>,
}

impl DeleteOptions {
    /// Only the object with this uid.
    pub fn uid(uid: impl Into<String>) -> Self {
        Self { uid: Some(uid.into()), ..Self::default() }
    }

    /// With this propagation.
    #[must_use]
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = Some(propagation);
        self
    }

    /// With this grace period in seconds.
    #[must_use]
    pub fn grace(mut self, seconds: i64) -> Self {
        self.grace_secs = Some(seconds);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if let Some(seconds) = self.grace_secs {
            body["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = json!(propagation.as_str());
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = json!(uid);
        }
        if let Some(version) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = json!(version);
        }
        body
    }
}

/// A change to an object.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(serde_json::Value),
    /// RFC 7386.
    Merge(serde_json::Value),
    /// The API's own merge, by list keys.
    Strategic(serde_json::Value),
    /// Server-side apply.
    Apply {
        /// The fields that the manager wants.
        object: serde_json::Value,
        /// Who wants them.
        manager: String,
        /// Whether fields of other managers are taken over.
        force: bool,
    },
}

impl Patch {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json-patch+json",
            Self::Merge(_) => "application/merge-patch+json",
            Self::Strategic(_) => "application/strategic-merge-patch+json",
            Self::Apply { .. } => "application/apply-patch+yaml",
        }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let (Self::Json(value) | Self::Merge(value) | Self::Strategic(value) | Self::Apply { object: value, .. }) =
            self;
        value.to_string().into_bytes()
    }

    pub(crate) fn push_query(&self, path: &mut String) {
        if let Self::Apply { manager, force, .. } = self {
            push_query(path, "fieldManager", manager);
            push_query(path, "force", if *force { "true" } else { "false" });
        }
    }
}

impl ListOptions {
    pub(crate) fn push_query(&self, path: &mut String) {
        self.selection.push_query(path);
        if self.limit > 0 {
            push_query(path, "limit", &self.limit.to_string());
        }
        if !self.continue_token.is_empty() {
            push_query(path, "continue", &self.continue_token);
        }
        if !self.resource_version.is_empty() {
            push_query(path, "resourceVersion", &self.resource_version);
        }
    }
}

impl WatchOptions {
    pub(crate) fn push_query(&self, path: &mut String) {
        push_query(path, "watch", "1");
        push_query(path, "allowWatchBookmarks", "true");
        self.selection.push_query(path);
        if self.initial_events {
            push_query(path, "sendInitialEvents", "true");
            push_query(path, "resourceVersionMatch", "NotOlderThan");
        }
        if !self.resource_version.is_empty() {
            push_query(path, "resourceVersion", &self.resource_version);
        }
        if self.timeout_secs > 0 {
            push_query(path, "timeoutSeconds", &self.timeout_secs.to_string());
        }
    }
}

impl Selection {
    pub(crate) fn push_query(&self, path: &mut String) {
        if !self.labels.is_empty() {
            push_query(path, "labelSelector", &self.labels);
        }
        if !self.fields.is_empty() {
            push_query(path, "fieldSelector", &self.fields);
        }
    }
}
