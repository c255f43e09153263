//! Recording of events (`kubectl describe` shows them), aggregated as upstream's recorder does.
//!
//! Recording never waits and never fails: an event is a courtesy. What it costs is bounded by the
//! queue, by the memory of the [`Correlator`] and by its budget per object.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use skiff_base::{Clock, Tasks, Timestamp};
use tokio::sync::mpsc;

use crate::time::to_time;
use crate::{Client, Patch, View};

/// Events that wait to be written; more are dropped.
const QUEUE_EVENTS: usize = 1_024;

/// Event series remembered; the oldest is forgotten first.
const SERIES_MAX: usize = 4_096;

/// Different messages of one reason on one object before they are written as one series.
const SIMILAR_MAX: usize = 10;

/// How long similar events count together.
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);

/// Events of one source on one object: a burst, then one per refill period.
const BURST_EVENTS: f64 = 25.0;
const REFILL_SECS: f64 = 300.0;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One thing that happened to an object.
#[derive(Clone, Debug)]
struct Occurrence {
    about: ObjectReference,
    severity: Severity,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Records events in the name of one component. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    sender: mpsc::Sender<Occurrence>,
    clock: Clock,
}

impl Events {
    /// Starts a recorder for `component` (on `host`, empty for cluster-wide components).
    pub fn new(client: Client, clock: Clock, tasks: &Tasks, component: &str, host: &str) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
        let correlator = Correlator::new(component, host);
        tasks.spawn("events", write_events(receiver, correlator, client));
        Self { sender, clock }
    }

    /// Records that `message` happened to `object` for `reason`.
    pub fn record<K: View>(&self, object: &K, severity: Severity, reason: &str, message: impl Into<String>) {
        self.record_about(reference(object), severity, reason, message);
    }

    /// Records that `message` happened to what `about` names (a container, say, by its field path).
    pub fn record_about(&self, about: ObjectReference, severity: Severity, reason: &str, message: impl Into<String>) {
        let (reason, message) = (reason.to_owned(), message.into());
        let occurrence = Occurrence { about, severity, reason, message, at: self.clock.now() };
        if self.sender.try_send(occurrence).is_err() {
            tracing::debug!("event dropped: too many wait to be written");
        }
    }
}

/// Names `object` in an event.
pub fn reference<K: View>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::RESOURCE.api_version()),
        kind: Some(K::RESOURCE.kind.to_string()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

async fn write_events(mut receiver: mpsc::Receiver<Occurrence>, mut correlator: Correlator, client: Client) {
    while let Some(occurrence) = receiver.recv().await {
        match correlator.correlate(occurrence) {
            None => {}
            Some(Write::Create(event)) => create(&client, &event).await,
            Some(Write::Count { event, patch }) => {
                let meta = &event.metadata;
                let (namespace, name) = (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
                match client.patch::<Event>(namespace, name, &patch).await {
                    Ok(_) => {}
                    // It has expired meanwhile.
                    Err(error) if error.is_not_found() => create(&client, &event).await,
                    Err(error) => tracing::debug!(%error, "event not counted"),
                }
            }
        }
    }
}

async fn create(client: &Client, event: &Event) {
    if let Err(error) = client.create(event).await {
        tracing::debug!(%error, "event not written");
    }
}

#[derive(Debug)]
enum Write {
    Create(Box<Event>),
    Count { event: Box<Event>, patch: Patch },
}

/// Decides whether an occurrence is a new event, counts on an old one, or is too much.
struct Correlator {
    component: String,
    host: String,
    series: BTreeMap<String, Series>,
    similar: BTreeMap<String, Similar>,
    budgets: BTreeMap<String, Budget>,
    order: VecDeque<String>,
    last_name: i64,
}

struct Series {
    name: String,
    first: Timestamp,
    count: i32,
}

struct Similar {
    last: Timestamp,
    messages: BTreeSet<String>,
}

struct Budget {
    tokens: f64,
    at: Timestamp,
}

impl Correlator {
    fn new(component: &str, host: &str) -> Self {
        Self {
            component: component.to_owned(),
            host: host.to_owned(),
            series: BTreeMap::new(),
            similar: BTreeMap::new(),
            budgets: BTreeMap::new(),
            order: VecDeque::new(),
            last_name: 0,
        }
    }

    fn correlate(&mut self, occurrence: Occurrence) -> Option<Write> {
        let Occurrence { about, severity, reason, mut message, at } = occurrence;
        let field = |value: &Option<String>| value.clone().unwrap_or_default();
        let object = [&about.kind, &about.namespace, &about.name, &about.uid].map(field).join("\0");
        let kind = [&object, &field(&about.field_path), severity.as_str(), &reason].join("\0");
        let mut key = format!("{kind}\0{message}");
        if self.is_one_of_many(&kind, &message, at) {
            message = format!("(combined from similar events): {message}");
            key = kind;
        }
        if !self.spend(&object, at) {
            return None;
        }
        let known = self.series.contains_key(&key);
        if !known {
            self.remember(&key, &object);
        }
        // Named by the moment; two of one moment must differ.
        self.last_name = at.as_nanos().max(self.last_name.saturating_add(1));
        let name = format!("{}.{:x}", field(&about.name), self.last_name);
        let series = self.series.entry(key).or_insert(Series { name, first: at, count: 0 });
        series.count = series.count.saturating_add(1);
        let (name, first, count) = (series.name.clone(), series.first, series.count);
        let event = Box::new(self.event(about, severity, reason, message.clone(), (name, first, at, count)));
        if known {
            let patch = json!({"count": count, "lastTimestamp": to_time(at), "message": message});
            return Some(Write::Count { event, patch: Patch::Strategic(patch) });
        }
        Some(Write::Create(event))
    }

    fn is_one_of_many(&mut self, kind: &str, message: &str, at: Timestamp) -> bool {
        let similar = self.similar.entry(kind.to_owned()).or_insert(Similar { last: at, messages: BTreeSet::new() });
        if at.since(similar.last) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = at;
        if similar.messages.len() < SIMILAR_MAX {
            similar.messages.insert(message.to_owned());
            return similar.messages.len() >= SIMILAR_MAX;
        }
        true
    }

    fn spend(&mut self, object: &str, at: Timestamp) -> bool {
        let budget = self.budgets.entry(object.to_owned()).or_insert(Budget { tokens: BURST_EVENTS, at });
        budget.tokens = (budget.tokens + at.since(budget.at).as_secs_f64() / REFILL_SECS).min(BURST_EVENTS);
        budget.at = at;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }

    fn remember(&mut self, key: &str, object: &str) {
        self.order.push_back(key.to_owned());
        if self.order.len() > SERIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.series.remove(&oldest);
        }
        // Both follow the series in number; dropping one early only forgets to be strict.
        while self.similar.len() > SERIES_MAX {
            self.similar.pop_first();
        }
        while self.budgets.len() > SERIES_MAX {
            let other = self.budgets.keys().find(|key| *key != object).cloned();
            let Some(other) = other else { break };
            self.budgets.remove(&other);
        }
    }

    fn event(
        &self,
        about: ObjectReference,
        severity: Severity,
        reason: String,
        message: String,
        (name, first, last, count): (String, Timestamp, Timestamp, i32),
    ) -> Event {
        let namespace = about.namespace.clone().filter(|namespace| !namespace.is_empty());
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            involved_object: about,
            reason: Some(reason),
            message: Some(message),
            type_: Some(severity.as_str().to_owned()),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: Some(self.host.clone()).filter(|host| !host.is_empty()),
            }),
            first_timestamp: Some(to_time(first)),
            last_timestamp: Some(to_time(last)),
            count: Some(count),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occur(correlator: &mut Correlator, object: &str, message: &str, secs: i64) -> String {
        let about = ObjectReference { name: Some(object.into()), ..ObjectReference::default() };
        let occurrence = Occurrence {
            about,
            severity: Severity::Normal,
            reason: "Test".into(),
            message: message.into(),
            at: Timestamp::from_secs(secs),
        };
        match correlator.correlate(occurrence) {
            None => "dropped".into(),
            Some(Write::Create(event)) => format!("create {}", event.message.unwrap_or_default()),
            Some(Write::Count { event, .. }) => {
                format!("count {} {}", event.count.unwrap_or_default(), event.message.unwrap_or_default())
            }
        }
    }

    #[test]
    fn repetitions_count_on_the_first_event() {
        let mut correlator = Correlator::new("test", "");
        assert_eq!(occur(&mut correlator, "a", "x", 1), "create x");
        assert_eq!(occur(&mut correlator, "a", "x", 2), "count 2 x");
        assert_eq!(occur(&mut correlator, "b", "x", 3), "create x");
    }

    #[test]
    fn many_similar_messages_become_one_series() {
        let mut correlator = Correlator::new("test", "");
        for index in 0..9 {
            assert_eq!(occur(&mut correlator, "a", &index.to_string(), index), format!("create {index}"));
        }
        assert_eq!(occur(&mut correlator, "a", "9", 9), "create (combined from similar events): 9");
        assert_eq!(occur(&mut correlator, "a", "10", 10), "count 2 (combined from similar events): 10");
    }

    #[test]
    fn one_object_cannot_flood() {
        let mut correlator = Correlator::new("test", "");
        let written = (0..100).filter(|_| occur(&mut correlator, "a", "x", 1) != "dropped").count();
        assert_eq!(written, 25);
        assert_eq!(occur(&mut correlator, "a", "x", 302), "count 26 x");
    }
}
