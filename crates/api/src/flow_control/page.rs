//! `apiserver_flowcontrol_*`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::FlowControl;
use super::level::Level;
use super::stats::{Refusal, SchemaStats};
use crate::metrics::names::Name;
use crate::metrics::text::{Page, push_label};

/// Writes everything that is counted here.
pub(crate) fn write(page: &mut Page, control: &FlowControl) {
    if !control.enabled {
        return;
    }
    let known = control.known.lock();
    let stats: Vec<Arc<SchemaStats>> = known.stats.values().map(Arc::clone).collect();
    let levels: Vec<Arc<Level>> = known.levels.values().map(Arc::clone).collect();
    drop(known);
    schemas(page, &stats);
    seats(page, &levels);
}

fn schemas(page: &mut Page, stats: &[Arc<SchemaStats>]) {
    let gauge = |value: &AtomicI64| value.load(Ordering::Relaxed) as f64;
    let counter = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
    let mut each = |name: Name, of: &dyn Fn(&SchemaStats) -> f64| {
        page.begin(name);
        for one in stats {
            page.value(name, &labels(one, &[]), of(one));
        }
    };
    each(Name::FlowExecuting, &|one| gauge(&one.executing));
    each(Name::FlowExecutingSeats, &|one| gauge(&one.executing_seats));
    each(Name::FlowWaiting, &|one| gauge(&one.waiting));
    each(Name::FlowWaitingSeats, &|one| gauge(&one.waiting_seats));
    each(Name::FlowDispatched, &|one| counter(&one.dispatched));
    each(Name::FlowUnaccommodated, &|one| counter(&one.unaccommodated));
    page.begin(Name::FlowRejected);
    for one in stats {
        for (refusal, count) in Refusal::ALL.into_iter().zip(&one.rejected).filter(|(_, count)| counter(count) > 0.0) {
            page.value(Name::FlowRejected, &labels(one, &[("reason", refusal.as_str())]), counter(count));
        }
    }
    page.begin(Name::FlowExecutionSeconds);
    for one in stats {
        for (ty, histogram) in ["regular", "watch"].into_iter().zip(&one.executed).filter(|(_, one)| one.count() > 0) {
            page.histogram(Name::FlowExecutionSeconds, &labels(one, &[("type", ty)]), histogram);
        }
    }
    page.begin(Name::FlowWaitSeconds);
    for one in stats {
        for (execute, histogram) in ["true", "false"].into_iter().zip(&one.waited).filter(|(_, one)| one.count() > 0) {
            let text = labels(one, &[]);
            let mut with = String::new();
            push_label(&mut with, "execute", execute);
            page.histogram(Name::FlowWaitSeconds, &format!("{with},{text}"), histogram);
        }
    }
    for (name, of) in [
        (Name::FlowQueueLength, (|one| &one.queue_length) as fn(&SchemaStats) -> &crate::metrics::histogram::Histogram),
        (Name::FlowWatchers, |one| &one.watchers),
        (Name::FlowEstimatedSeats, |one| &one.estimated),
    ] {
        page.begin(name);
        for one in stats.iter().filter(|one| of(one).count() > 0) {
            page.histogram(name, &labels(one, &[]), of(one));
        }
    }
}

fn seats(page: &mut Page, levels: &[Arc<Level>]) {
    let mut each = |name: Name, of: &dyn Fn(&Level) -> f64| {
        page.begin(name);
        for level in levels {
            let mut labels = String::new();
            push_label(&mut labels, "priority_level", &level.name);
            page.value(name, &labels, of(level));
        }
    };
    let lending = |level: &Level| *level.lending.lock();
    each(Name::FlowNominal, &|level| f64::from(lending(level).seats.nominal));
    each(Name::FlowLower, &|level| f64::from(lending(level).seats.least));
    each(Name::FlowUpper, &|level| f64::from(lending(level).seats.most));
    each(Name::FlowCurrent, &|level| {
        f64::from(if level.is_exempt { lending(level).demand.high_watermark } else { level.limit() })
    });
    each(Name::FlowDemandHigh, &|level| f64::from(lending(level).demand.high_watermark));
    each(Name::FlowDemandAverage, &|level| lending(level).demand.average);
    each(Name::FlowDemandDeviation, &|level| lending(level).demand.deviation);
    each(Name::FlowDemandSmoothed, &|level| lending(level).demand.smoothed);
    each(Name::FlowTarget, &|level| lending(level).target);
}

fn labels(stats: &SchemaStats, more: &[(&str, &str)]) -> String {
    let mut text = String::new();
    push_label(&mut text, "flow_schema", &stats.schema);
    push_label(&mut text, "priority_level", &stats.level);
    for (name, value) in more {
        push_label(&mut text, name, value);
    }
    text
}
