//! Cron schedules: five fields, or a name.

use std::time::Duration;

use k8s_openapi::jiff::civil::{Date, DateTime};
use k8s_openapi::jiff::{ToSpan, civil};

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    /// At these minutes of these hours of these days.
    Calendar(Calendar),
    /// Again and again after this time.
    Every(Duration),
}

/// Each field as a set of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the day fields are restricted: when both are, either suffices.
    any_day: bool,
    any_weekday: bool,
}

/// A schedule that never comes (February 30th) is given up after this many days.
const DAYS_MAX: i32 = 366 * 5;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Reads a schedule; the error says what is wrong.
pub(super) fn parse(text: &str) -> Result<Schedule, String> {
    let text = text.trim();
    if let Some(every) = text.strip_prefix("@every ") {
        return duration(every).map(Schedule::Every);
    }
    let text = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => other,
    };
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        return Err(format!("expected exactly 5 fields, found {}: {text:?}", fields.len()));
    };
    let mut weekdays = field(weekday, 0, 7, &WEEKDAYS)?;
    if weekdays & (1 << 7) != 0 {
        weekdays = (weekdays | 1) & 0x7f; // 7 is Sunday too
    }
    let is_any = |text: &str| text.starts_with(['*', '?']);
    Ok(Schedule::Calendar(Calendar {
        minutes: field(minute, 0, 59, &[])?,
        hours: field(hour, 0, 23, &[])?,
        days: field(day, 1, 31, &[])?,
        months: field(month, 1, 12, &MONTHS)?,
        weekdays,
        any_day: is_any(day),
        any_weekday: is_any(weekday),
    }))
}

fn field(text: &str, min: u32, max: u32, names: &[&str]) -> Result<u64, String> {
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step: u32 = match step {
            None => 1,
            Some(step) => step.parse().ok().filter(|step| *step > 0).ok_or_else(|| bad(part))?,
        };
        let number = |text: &str| {
            let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
            let named = named.and_then(|at| u32::try_from(at).ok()).map(|at| at + min);
            named.or_else(|| text.parse().ok()).filter(|number| (min..=max).contains(number)).ok_or_else(|| bad(part))
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None if range == "*" || range == "?" => (min, max),
            None if part.contains('/') => (number(range)?, max),
            None => (number(range)?, number(range)?),
        };
        if first > last {
            return Err(bad(part));
        }
        bits |= (first..=last).step_by(step as usize).fold(0_u64, |bits, number| bits | 1 << number);
    }
    Ok(bits)
}

fn bad(part: &str) -> String {
    format!("failed to parse {part:?}")
}

/// `1h30m`, `90s`.
fn duration(text: &str) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    let mut number = String::new();
    for letter in text.trim().chars() {
        if letter.is_ascii_digit() {
            number.push(letter);
            continue;
        }
        let value: u64 = number.parse().map_err(|_| bad(text))?;
        number.clear();
        let unit = match letter {
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return Err(bad(text)),
        };
        total += Duration::from_secs(value.saturating_mul(unit));
    }
    if number.is_empty() && total >= Duration::from_secs(1) { Ok(total) } else { Err(bad(text)) }
}

impl Calendar {
    /// The first due minute after `after`; `None` when none comes within five years.
    pub(super) fn next(&self, after: DateTime) -> Option<DateTime> {
        let has = |bits: u64, number: i8| u32::try_from(number).is_ok_and(|number| bits >> number & 1 == 1);
        let start = after.checked_add(1.minute()).ok()?;
        let mut date: Date = start.date();
        let mut from = (start.hour(), start.minute());
        for _ in 0..DAYS_MAX {
            if self.matches(date) {
                for hour in (from.0..24).filter(|hour| has(self.hours, *hour)) {
                    let first = if hour == from.0 { from.1 } else { 0 };
                    if let Some(minute) = (first..60).find(|minute| has(self.minutes, *minute)) {
                        return Some(date.to_datetime(civil::time(hour, minute, 0, 0)));
                    }
                }
            }
            date = date.tomorrow().ok()?;
            from = (0, 0);
        }
        None
    }

    fn matches(&self, date: Date) -> bool {
        let bit = |bits: u64, number: i8| u32::try_from(number).is_ok_and(|number| bits >> number & 1 == 1);
        let day = bit(self.days, date.day());
        let weekday = bit(self.weekdays, date.weekday().to_sunday_zero_offset());
        let fits = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        bit(self.months, date.month()) && fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: &str, after: &str, expected: &str) {
        let Schedule::Calendar(calendar) = parse(schedule).unwrap() else { panic!("a calendar") };
        let next = calendar.next(after.parse().unwrap());
        assert_eq!(next.map_or("never".to_owned(), |next| next.to_string()), expected);
    }

    #[test]
    fn the_next_due_minute() {
        check("* * * * *", "2026-11-22T10:00:30", "2026-11-22T10:01:00");
        check("*/15 * * * *", "2026-11-22T10:50:00", "2026-11-22T11:00:00");
        check("30 4 1 * *", "2026-11-22T10:00:00", "2026-12-01T04:30:00");
        check("0 9-17/4 * * mon-fri", "2026-11-20T17:00:00", "2026-11-23T09:00:00");
        check("0 0 13 * 5", "2026-11-22T00:00:00", "2026-11-27T00:00:00");
        check("@weekly", "2026-11-22T00:00:00", "2026-11-29T00:00:00");
        check("0 0 29 feb *", "2026-11-22T00:00:00", "2028-02-29T00:00:00");
        check("0 0 30 2 *", "2026-11-22T00:00:00", "never");
    }

    #[test]
    fn bad_schedules_are_refused() {
        for text in ["", "* * * *", "60 * * * *", "* * 0 * *", "a * * * *", "*/0 * * * *", "5-1 * * * *", "@every 1x"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("@every 1h30m"), Ok(Schedule::Every(Duration::from_secs(5_400))));
    }
}
