//! What the kernel knows about this process.

use std::fs;

use super::names::Name;
use super::text::Page;

/// `USER_HZ`, the same on every Linux that Rust knows.
const TICKS_PER_SECOND: f64 = 100.0;

/// Writes the `process_*` metrics; what cannot be read is left out.
pub(super) fn write(page: &mut Page) {
    let mut gauge = |name: Name, value: Option<f64>| {
        if let Some(value) = value {
            page.begin(name);
            page.value(name, "", value);
        }
    };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command may hold spaces and parentheses: fields are counted from the last parenthesis.
    let fields: Vec<&str> =
        stat.rsplit_once(") ").map(|(_, rest)| rest.split_ascii_whitespace().collect()).unwrap_or_default();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    let cpu = field(11).zip(field(12)).map(|(user, system)| (user + system) / TICKS_PER_SECOND);
    let started = field(19).zip(boot_seconds()).map(|(ticks, boot)| boot + ticks / TICKS_PER_SECOND);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    gauge(Name::CpuSeconds, cpu);
    gauge(Name::MaxFds, number_after(&limits, "Max open files"));
    gauge(Name::OpenFds, fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64));
    gauge(Name::ResidentBytes, number_after(&status, "VmRSS:").map(|kib| kib * 1024.0));
    gauge(Name::StartSeconds, started);
    gauge(Name::VirtualBytes, number_after(&status, "VmSize:").map(|kib| kib * 1024.0));
}

fn boot_seconds() -> Option<f64> {
    number_after(&fs::read_to_string("/proc/stat").ok()?, "btime")
}

/// The first number on the line that begins with `name`.
fn number_after(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
}
