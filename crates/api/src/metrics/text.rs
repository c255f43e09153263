//! The text exposition format of Prometheus, version 0.0.4.

use std::fmt::Write;

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

/// Appends `name="value"`.
pub(crate) fn push_label(text: &mut String, name: &str, value: &str) {
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

/// As Go writes it: bounds of buckets are labels, so clients compare them as text.
fn number(value: f64) -> String {
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
