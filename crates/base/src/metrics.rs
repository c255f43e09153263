//! What a program counts, as a value: counters, gauges and histograms under the names and labels by
//! which Prometheus knows them.
//!
//! Whoever counts asks once for a series and keeps it; from then on counting is one atomic
//! addition. What is cheaper to look up than to count is looked up before a page is written.
//! [`Tasks`](crate::Tasks) carry the registry, as everything that counts runs under some.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Series of one metric; those beyond are counted in one without labels. Labels come from closed
/// sets, so this is never reached unless somebody errs.
const SERIES_MAX: usize = 1_024;

/// What is counted.
#[derive(Debug)]
pub struct Metric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

impl Metric {
    /// Something that only grows.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter }
    }

    /// Something that comes and goes.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge }
    }

    /// Observations by size; `bounds` are the upper ends of the buckets, growing.
    pub const fn histogram(name: &'static str, help: &'static str, bounds: &'static [f64]) -> Self {
        Self { name, help, kind: Kind::Histogram(bounds) }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that comes and goes.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// It is this now.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Observations by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound and one for what is above all of them; not cumulative.
    buckets: Box<[AtomicU64]>,
    sum: Gauge,
}

impl Histogram {
    /// Nothing observed; `metric` must be one of histograms, or there is one bucket.
    pub fn new(metric: &'static Metric) -> Self {
        let bounds = match metric.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        };
        let buckets = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self { bounds, buckets, sum: Gauge::default() }
    }

    /// Observes a duration, in seconds.
    pub fn observe(&self, took: Duration) {
        self.observe_value(took.as_secs_f64());
    }

    /// Observes a number.
    pub fn observe_value(&self, value: f64) {
        let at = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let _ = self.sum.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// One line, or the lines of one histogram.
#[derive(Clone, Debug)]
pub enum Series {
    /// Of a counter.
    Counter(Arc<Counter>),
    /// Of a gauge.
    Gauge(Arc<Gauge>),
    /// Of a histogram.
    Histogram(Arc<Histogram>),
}

/// Looks something up before a page is written; `false` when there is nothing to look up any more.
type LookUp = Box<dyn FnMut() -> bool + Send>;

/// Everything that is counted. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Default)]
struct Inner {
    families: Mutex<BTreeMap<&'static str, Family>>,
    lookups: Mutex<Vec<LookUp>>,
}

struct Family {
    metric: &'static Metric,
    series: BTreeMap<String, Series>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// The series of a counter with these labels, made when it is new.
    pub fn counter(&self, metric: &'static Metric, labels: &[(&str, &str)]) -> Arc<Counter> {
        match self.series(metric, labels, || Series::Counter(Arc::default())) {
            Series::Counter(counter) => counter,
            _ => Arc::default(),
        }
    }

    /// The series of a gauge with these labels, made when it is new.
    pub fn gauge(&self, metric: &'static Metric, labels: &[(&str, &str)]) -> Arc<Gauge> {
        match self.series(metric, labels, || Series::Gauge(Arc::default())) {
            Series::Gauge(gauge) => gauge,
            _ => Arc::default(),
        }
    }

    /// The series of a histogram with these labels, made when it is new.
    pub fn histogram(&self, metric: &'static Metric, labels: &[(&str, &str)]) -> Arc<Histogram> {
        match self.series(metric, labels, || Series::Histogram(Arc::new(Histogram::new(metric)))) {
            Series::Histogram(histogram) => histogram,
            _ => Arc::new(Histogram::new(metric)),
        }
    }

    /// Shows a series that counts already.
    pub fn show(&self, metric: &'static Metric, labels: &[(&str, &str)], series: Series) {
        self.0.families.lock().entry(metric.name).or_insert_with(|| Family::of(metric)).put(labels, series);
    }

    /// Calls `look_up` each time before a page is written, until it says that there is no more.
    pub fn before_writing(&self, look_up: impl FnMut() -> bool + Send + 'static) {
        self.0.lookups.lock().push(Box::new(look_up));
    }

    /// The text exposition format of Prometheus, version 0.0.4.
    pub fn text(&self) -> String {
        // Taken out while they run: one may ask for a series.
        let mut lookups = std::mem::take(&mut *self.0.lookups.lock());
        lookups.retain_mut(|look_up| look_up());
        self.0.lookups.lock().append(&mut lookups);
        let mut page = String::new();
        for family in self.0.families.lock().values() {
            family.write(&mut page);
        }
        page
    }

    fn series(&self, metric: &'static Metric, labels: &[(&str, &str)], make: impl FnOnce() -> Series) -> Series {
        let mut families = self.0.families.lock();
        let family = families.entry(metric.name).or_insert_with(|| Family::of(metric));
        family.series.entry(family.key(labels)).or_insert_with(make).clone()
    }
}

impl Family {
    fn of(metric: &'static Metric) -> Self {
        Self { metric, series: BTreeMap::new() }
    }

    fn key(&self, labels: &[(&str, &str)]) -> String {
        let mut text = String::new();
        labels.iter().for_each(|(name, value)| push_label(&mut text, name, value));
        if self.series.len() >= SERIES_MAX && !self.series.contains_key(&text) { String::new() } else { text }
    }

    fn put(&mut self, labels: &[(&str, &str)], series: Series) {
        let key = self.key(labels);
        self.series.insert(key, series);
    }

    fn write(&self, page: &mut String) {
        let Metric { name, help, kind } = self.metric;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, series) in &self.series {
            match series {
                Series::Counter(counter) => line(page, name, "", labels, counter.get() as f64),
                Series::Gauge(gauge) => line(page, name, "", labels, gauge.get()),
                Series::Histogram(histogram) => histogram.write(page, name, labels),
            }
        }
    }
}

impl Histogram {
    fn write(&self, page: &mut String, name: &str, labels: &str) {
        let mut total = 0;
        for (bound, bucket) in self.bounds.iter().copied().chain([f64::INFINITY]).zip(&self.buckets) {
            total += bucket.load(Ordering::Relaxed);
            let mut with_bound = labels.to_owned();
            push_label(&mut with_bound, "le", &number(bound));
            line(page, name, "_bucket", &with_bound, total as f64);
        }
        line(page, name, "_sum", labels, self.sum.get());
        line(page, name, "_count", labels, total as f64);
    }
}

fn line(page: &mut String, name: &str, suffix: &str, labels: &str, value: f64) {
    let value = number(value);
    let _ = match labels {
        "" => writeln!(page, "{name}{suffix} {value}"),
        _ => writeln!(page, "{name}{suffix}{{{labels}}} {value}"),
    };
}

/// Appends `name="value"`.
pub fn push_label(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(name);
    text.push_str("=\"");
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text.push('"');
}

/// A number as Go writes it: bounds of buckets are labels, so clients compare them as text.
pub fn number(value: f64) -> String {
    if value.is_infinite() {
        return "+Inf".to_owned();
    }
    if value.abs() < 1e21 && (value.fract() == 0.0 && value.abs() < 1e6 || value.fract() != 0.0 && value.abs() >= 1e-4)
    {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, power)) => match power.strip_prefix('-') {
            Some(power) => format!("{digits}e-{power:0>2}"),
            None => format!("{digits}e+{power:0>2}"),
        },
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static ASKED: Metric = Metric::counter("asked_total", "Questions.");
    static OPEN: Metric = Metric::gauge("open", "Questions without an answer.");
    static TOOK: Metric = Metric::histogram("took_seconds", "Time to an answer.", &[1e-8, 0.5, 1.0]);

    #[test]
    fn a_page_shows_what_was_counted_under_sorted_names() {
        let metrics = Metrics::default();
        let asked = metrics.counter(&ASKED, &[("who", "a\"b")]);
        asked.increment();
        metrics.clone().counter(&ASKED, &[("who", "a\"b")]).increment();
        let took = metrics.histogram(&TOOK, &[]);
        took.observe(Duration::from_millis(250));
        took.observe_value(2.0);
        let open = metrics.gauge(&OPEN, &[]);
        let mut left = 2;
        metrics.before_writing(move || {
            open.set(f64::from(left));
            left -= 1;
            left > 0
        });
        let page = metrics.text();
        let expected = "# HELP asked_total Questions.\n# TYPE asked_total counter\nasked_total{who=\"a\\\"b\"} 2\n\
            # HELP open Questions without an answer.\n# TYPE open gauge\nopen 2\n\
            # HELP took_seconds Time to an answer.\n# TYPE took_seconds histogram\n\
            took_seconds_bucket{le=\"1e-08\"} 0\ntook_seconds_bucket{le=\"0.5\"} 1\n\
            took_seconds_bucket{le=\"1\"} 1\ntook_seconds_bucket{le=\"+Inf\"} 2\n\
            took_seconds_sum 2.25\ntook_seconds_count 2\n";
        assert_eq!(page, expected);
        assert!(metrics.text().contains("\nopen 1\n"));
        assert!(metrics.text().contains("\nopen 1\n"), "what has ended is not asked again");
    }

    #[test]
    fn labels_beyond_the_bound_share_a_series() {
        let metrics = Metrics::default();
        for number in 0..SERIES_MAX + 10 {
            metrics.counter(&ASKED, &[("who", &number.to_string())]).increment();
        }
        assert!(metrics.text().contains("\nasked_total 10\n"));
    }

    #[test]
    fn numbers_are_written_like_go_writes_them() {
        let shown: Vec<String> =
            [0.0, 0.005, 1.0, 1.25, 131_072.0, 1e6, 1e9, 0.000_012_5, f64::INFINITY].into_iter().map(number).collect();
        assert_eq!(shown, ["0", "0.005", "1", "1.25", "131072", "1e+06", "1e+09", "1.25e-05", "+Inf"]);
    }

    #[test]
    fn label_values_are_escaped() {
        let mut text = String::new();
        push_label(&mut text, "a", "x\"\\\n");
        push_label(&mut text, "b", "");
        assert_eq!(text, r#"a="x\"\\\n",b="""#);
    }
}
