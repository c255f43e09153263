//! API Priority and Fairness: which requests go first when not all can.
//!
//! Map: [`classify`] (which FlowSchema, which flow), [`width`] (how many seats), [`level`] (the way
//! in and out; one compare-and-swap while seats are free), [`queues`] (fair queuing, pure),
//! [`shares`] (dividing and lending seats, pure), [`configure`] (the objects, followed), `bootstrap`
//! (the objects every cluster has), [`stats`] and [`page`] (metrics), [`debug`] (dumps).
//!
//! Fairness is among requests that wait: as long as seats are free, nothing is kept about flows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use skiff_base::{Clock, Tasks};
use skiff_object::Tree;

use crate::authn::{MASTERS, UserInfo};
use crate::body::Body;
use crate::chain::Call;
use crate::limits::Limits;
use crate::respond;
use crate::server::ApiServer;

mod bootstrap;
mod classify;
pub(crate) mod configure;
pub(crate) mod debug;
mod level;
pub(crate) mod page;
mod queues;
mod shares;
mod stats;
mod width;

use classify::{Distinguisher, Matcher};
use level::{Flow, Level, Seat};
use queues::Shape;
use shares::{Borrower, Share};
use stats::SchemaStats;

/// No request waits longer than this, however long it may take (upstream's hard limit).
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A request waits for at most this part of the time it may take.
const WAIT_PART: u32 = 4;
/// Pairs of level and schema whose counters are kept after they are gone.
const STATS_MAX: usize = 1_024;
/// Which part of a level's seats one request may take at most.
const REQUEST_SEATS_PART: f64 = 0.15;

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// What the server's flags say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether requests are classified and queued (`--enable-priority-and-fairness`); otherwise they
    /// are only counted against the limits of requests in flight.
    pub enabled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// The state of flow control of one server.
pub(crate) struct FlowControl {
    enabled: bool,
    clock: Clock,
    tasks: Tasks,
    limits: Limits,
    table: ArcSwap<Table>,
    known: Mutex<Known>,
    /// Reads and writes in flight, when they are only counted.
    in_flight: [Arc<AtomicUsize>; 2],
}

/// What requests are classified by.
#[derive(Default)]
struct Table {
    /// In the order in which they are asked; the last is `catch-all`.
    schemas: Vec<Schema>,
    /// Every level that has a configuration, by name.
    levels: Vec<Arc<Level>>,
}

struct Schema {
    name: String,
    uid: HeaderValue,
    level_uid: HeaderValue,
    matcher: Matcher,
    level: Arc<Level>,
    is_queued: bool,
    /// Seats that one request may take; 0 for not said.
    seats_max: u32,
    stats: Arc<SchemaStats>,
}

/// What outlives a change of the configuration.
#[derive(Default)]
struct Known {
    levels: BTreeMap<String, Arc<Level>>,
    stats: BTreeMap<(String, String), Arc<SchemaStats>>,
}

/// A configuration object, as far as it is used.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    name: String,
    uid: String,
    spec: Tree,
}

/// The classification of a request, as its answer's headers say it.
#[derive(Clone, Debug)]
pub(crate) struct Classified {
    schema: HeaderValue,
    level: HeaderValue,
}

impl Classified {
    /// Puts the headers into an answer.
    pub(crate) fn mark(&self, response: &mut Response<Body>) {
        // A level or a schema that is only imagined has no uid.
        response.headers_mut().insert(LEVEL_UID, self.level.clone());
        response.headers_mut().insert(SCHEMA_UID, self.schema.clone());
    }
}

/// A request's leave to run; dropped when it is answered, or a watch has begun.
#[expect(dead_code, reason = "held, not looked at")]
pub(crate) enum Entered {
    /// Not limited.
    Free,
    /// With seats.
    Seated(Seat),
    /// Counted.
    Counted(Counted),
}

/// One more request in flight until it is dropped.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FlowControl {
    pub(crate) fn new(settings: &Settings, limits: &Limits, clock: Clock, tasks: Tasks) -> Self {
        // Upstream, too, has nothing to divide when both limits are off.
        let enabled = settings.enabled && limits.inflight_max + limits.mutating_inflight_max > 0;
        let control = Self {
            enabled,
            clock,
            tasks,
            limits: limits.clone(),
            table: ArcSwap::default(),
            known: Mutex::default(),
            in_flight: Default::default(),
        };
        control.configure(&[], &[]);
        control
    }

    /// Whether requests are classified.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The seats of the whole server.
    fn total(&self) -> u32 {
        u32::try_from(self.limits.inflight_max + self.limits.mutating_inflight_max).unwrap_or(u32::MAX)
    }

    /// Uses these objects from now on. What cannot do without `exempt` and `catch-all` imagines
    /// them when they are missing.
    fn configure(&self, levels: &[Object], schemas: &[Object]) {
        let wanted = with_mandatory(levels, "prioritylevelconfigurations");
        let shares: Vec<Share> = wanted.iter().map(|level| share(&level.spec)).collect();
        let seats = shares::divide(self.total(), &shares);
        let mut known = self.known.lock();
        let mut table = Table::default();
        for (object, seats) in wanted.iter().zip(&seats) {
            let (shape, is_exempt) = (shape(&object.spec), object.spec.str_at(&["type"]) == "Exempt");
            let level = known.levels.entry(object.name.clone()).or_insert_with(|| {
                let level = Level::new(&object.name, is_exempt, shape, self.clock.clone(), self.tasks.clone());
                level.set_limit(seats.nominal - (seats.nominal - seats.least) / 2);
                Arc::new(level)
            });
            level.reshape(shape);
            level.lending.lock().seats = *seats;
            // Within the new bounds until seats are lent the next time.
            level.set_limit(level.limit().clamp(seats.least, seats.most));
            table.levels.push(Arc::clone(level));
        }
        known.levels.retain(|name, level| wanted.iter().any(|one| one.name == *name) || !level.is_idle());
        for object in with_mandatory(schemas, "flowschemas") {
            let matcher = Matcher::of(&object.spec);
            // A schema whose level is missing classifies nothing.
            let Some(at) = wanted.iter().position(|level| level.name == matcher.level) else { continue };
            let queues = shape(&wanted[at].spec);
            let key = (matcher.level.clone(), object.name.clone());
            let stats =
                known.stats.entry(key).or_insert_with_key(|(level, schema)| Arc::new(SchemaStats::new(level, schema)));
            table.schemas.push(Schema {
                uid: header_value(&object.uid),
                level_uid: header_value(&wanted[at].uid),
                level: Arc::clone(&table.levels[at]),
                is_queued: queues.queues > 1,
                seats_max: seats_max(seats[at].nominal, queues),
                stats: Arc::clone(stats),
                name: object.name,
                matcher,
            });
        }
        table
            .schemas
            .sort_by(|one, other| (one.matcher.precedence, &one.name).cmp(&(other.matcher.precedence, &other.name)));
        if known.stats.len() > STATS_MAX {
            known.stats.retain(|_, stats| Arc::strong_count(stats) > 1);
        }
        drop(known);
        self.table.store(Arc::new(table));
    }

    /// Lends seats for the next period by what was asked for in the last.
    fn lend(&self) {
        let table = self.table.load();
        let borrowers: Vec<Borrower> = table
            .levels
            .iter()
            .map(|level| {
                let (high, average) = level.take_demand(shares::PERIOD);
                let mut lending = level.lending.lock();
                lending.demand.observe(high, average);
                let borrower = Borrower { seats: lending.seats, demand: lending.demand, is_exempt: level.is_exempt };
                lending.target = borrower.target();
                borrower
            })
            .collect();
        for (level, seats) in table.levels.iter().zip(shares::lend(&borrowers)) {
            level.set_limit(seats);
        }
    }

    fn count(&self, user: &UserInfo, is_mutating: bool) -> Option<Entered> {
        let (at, most) =
            if is_mutating { (1, self.limits.mutating_inflight_max) } else { (0, self.limits.inflight_max) };
        if most == 0 {
            return Some(Entered::Free);
        }
        let counted = Counted(Arc::clone(&self.in_flight[at]));
        let before = counted.0.fetch_add(1, Ordering::Relaxed);
        (before < most || user.in_group(MASTERS)).then_some(Entered::Counted(counted))
    }
}

/// Lets a request in when there are seats for it, and gives its classification; the answer when
/// there are none.
pub(crate) async fn enter(server: &ApiServer, call: &Call, deadline: Duration) -> Result<Entered, Response<Body>> {
    let control = &server.flow_control;
    let is_watch = call.info.verb == "watch";
    if !is_watch && call.is_long_running() {
        return Ok(Entered::Free);
    }
    if !control.enabled {
        if is_watch {
            return Ok(Entered::Free);
        }
        let is_mutating = !matches!(call.info.verb, "get" | "list");
        return control.count(&call.user, is_mutating).ok_or_else(|| too_many_requests(1));
    }
    let table = control.table.load();
    let Some(schema) =
        table.schemas.iter().find(|schema| schema.matcher.matches(&call.info, &call.user)).or(table.schemas.last())
    else {
        return Ok(Entered::Free);
    };
    let classified = Classified { schema: schema.uid.clone(), level: schema.level_uid.clone() };
    let _ = call.trail.classified.set(classified);
    let estimate = width::of(server, call, schema.seats_max);
    if let Some(watchers) = estimate.watchers {
        schema.stats.watched_by(watchers);
    }
    let (level, stats) = (Arc::clone(&schema.level), Arc::clone(&schema.stats));
    let name = schema.matcher.flow(&call.info, &call.user);
    let is_flow = schema.is_queued && schema.matcher.distinguisher != Distinguisher::None;
    let hash = if schema.is_queued { classify::hash_flow(&schema.name, name) } else { 0 };
    let flow = Flow { name: if is_flow { name } else { "" }, hash };
    // The table may change while this request waits.
    drop(table);
    let longest = (deadline / WAIT_PART).min(WAIT_MAX);
    match level.enter(&stats, estimate.work, flow, longest, is_watch).await {
        Ok(seat) => Ok(Entered::Seated(seat)),
        Err(rejected) => Err(too_many_requests(rejected.retry_after_seconds)),
    }
}

/// Upstream's answer is plain text: it is made before anything else is.
fn too_many_requests(retry_after_seconds: u32) -> Response<Body> {
    let mut response = respond::text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
    response
}

fn header_value(uid: &str) -> HeaderValue {
    HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""))
}

/// The objects, and those that are mandatory as they must be.
fn with_mandatory(objects: &[Object], plural: &str) -> Vec<Object> {
    let mut all = objects.to_vec();
    for kept in bootstrap::objects().into_iter().filter(|kept| kept.is_mandatory && kept.plural == plural) {
        match all.iter_mut().find(|object| object.name == kept.name) {
            // Whatever somebody made of it: without these two the server could be locked out. Of
            // `exempt` and `catch-all` only the shares may be chosen.
            Some(object) if plural == "flowschemas" || object.spec.str_at(&["type"]) != kept.spec.str_at(&["type"]) => {
                object.spec = kept.spec;
            }
            Some(_) => {}
            None => all.push(Object { name: kept.name.to_owned(), uid: String::new(), spec: kept.spec }),
        }
    }
    all
}

fn section(spec: &Tree) -> &'static str {
    if spec.str_at(&["type"]) == "Exempt" { "exempt" } else { "limited" }
}

fn share(spec: &Tree) -> Share {
    let number = |field: &str| spec.int_at(&[section(spec), field]).map(|value| u32::try_from(value).unwrap_or(0));
    Share {
        shares: number("nominalConcurrencyShares").unwrap_or(if section(spec) == "exempt" { 0 } else { 30 }),
        lendable_percent: number("lendablePercent").unwrap_or(0).min(100),
        borrowing_limit_percent: number("borrowingLimitPercent"),
    }
}

fn shape(spec: &Tree) -> Shape {
    let response = ["limited", "limitResponse"];
    if spec.str_at(&[response[0], response[1], "type"]) != "Queue" {
        return Shape::default();
    }
    let number = |field: &str, default: usize| {
        let value = spec.int_at(&[response[0], response[1], "queuing", field]);
        value.and_then(|value| usize::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
    };
    Shape {
        queues: number("queues", 64).min(QUEUES_MAX),
        hand_size: number("handSize", 8),
        queue_length_max: number("queueLengthLimit", 50),
    }
}

/// Upstream's validation allows ten million queues; each costs memory here.
const QUEUES_MAX: usize = 10_000;

fn seats_max(nominal: u32, shape: Shape) -> u32 {
    if shape.queues == 0 {
        return 0;
    }
    let part = (f64::from(nominal) * REQUEST_SEATS_PART).ceil() as u32;
    part.min(nominal / u32::try_from(shape.hand_size).unwrap_or(u32::MAX).max(1)).max(1)
}

#[cfg(test)]
mod tests;
