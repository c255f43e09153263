//! The text exposition format of Prometheus, version 0.0.4.

use std::fmt::Write;

use skiff_base::metrics::number;
pub(crate) use skiff_base::metrics::push_label;

use super::histogram::Histogram;
use super::names::Name;

/// A page in the making.
#[derive(Default)]
pub(crate) struct Page(String);

impl Page {
    /// Begins a metric: everything until the next belongs to it.
    pub(crate) fn begin(&mut self, name: Name) {
        let (text, help, kind) = (name.as_str(), name.help(), name.kind());
        let _ = writeln!(self.0, "# HELP {text} {help}\n# TYPE {text} {kind}");
    }

    /// One value; `labels` as [`push_label`] made them.
    pub(crate) fn value(&mut self, name: Name, labels: &str, value: f64) {
        self.line(name.as_str(), "", labels, value);
    }

    /// Buckets, sum and count.
    pub(crate) fn histogram(&mut self, name: Name, labels: &str, histogram: &Histogram) {
        let mut count = 0;
        for (bound, total) in histogram.cumulative() {
            let mut with_bound = labels.to_owned();
            push_label(&mut with_bound, "le", &number(bound));
            self.line(name.as_str(), "_bucket", &with_bound, total as f64);
            count = total;
        }
        self.line(name.as_str(), "_sum", labels, histogram.sum());
        self.line(name.as_str(), "_count", labels, count as f64);
    }

    /// The whole text.
    pub(crate) fn finish(self) -> String {
        self.0
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &str, value: f64) {
        let value = number(value);
        let _ = match labels {
            "" => writeln!(self.0, "{name}{suffix} {value}"),
            _ => writeln!(self.0, "{name}{suffix}{{{labels}}} {value}"),
        };
    }
}
