//! Points in time and spans, over the years 1 to 9999.

use std::fmt;

use skiff_object::time::parse_duration;

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

/// 0001-01-01T00:00:00Z
const SECONDS_MIN: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z
const SECONDS_MAX: i64 = 253_402_300_799;

/// A date and time of day somewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// 1 to 12
    pub(crate) month: i64,
    /// 1 to 31
    pub(crate) day: i64,
    /// 0 to 365
    pub(crate) day_of_year: i64,
    /// 0 is Sunday.
    pub(crate) weekday: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
}

impl Timestamp {
    /// Seconds since 1970 and nanoseconds in that second; `None` outside the years 1 to 9999.
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        ((SECONDS_MIN..=SECONDS_MAX).contains(&seconds) && nanos < 1_000_000_000).then_some(Self { seconds, nanos })
    }

    /// Seconds since 1970.
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds in the second.
    pub const fn subsecond_nanos(self) -> u32 {
        self.nanos
    }

    pub(crate) fn total_nanos(self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }

    /// Moved by a span; `None` when that leaves the range.
    pub(crate) fn plus(self, nanos: i64) -> Option<Self> {
        let total = self.total_nanos() + i128::from(nanos);
        let seconds = i64::try_from(total.div_euclid(1_000_000_000)).ok()?;
        Self::new(seconds, u32::try_from(total.rem_euclid(1_000_000_000)).ok()?)
    }

    /// Reads RFC 3339.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if !text.is_ascii() || bytes.len() < 20 {
            return None;
        }
        let number = |from: usize, to: usize| -> Option<i64> {
            let part = &text[from..to];
            part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten()
        };
        let signs = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
        if signs.iter().any(|(at, sign)| bytes[*at] != *sign) || !matches!(bytes[10], b'T' | b't') {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let mut rest = &text[19..];
        let mut nanos = 0;
        if let Some(fraction) = rest.strip_prefix('.') {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                return None;
            }
            let kept = &fraction[..digits.min(9)];
            nanos = kept.parse::<u32>().ok()? * 10_u32.pow(9 - u32::try_from(kept.len()).ok()?);
            rest = &fraction[digits..];
        }
        let offset = if matches!(rest, "Z" | "z") { 0 } else { parse_offset(rest)? };
        let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
        Self::new(seconds, nanos)
    }

    /// Date and time of day at an offset from UTC in seconds.
    pub(crate) fn civil(self, offset: i64) -> Civil {
        let local = self.seconds + offset;
        let (days, second_of_day) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        Civil {
            year,
            month,
            day,
            day_of_year: days - days_from_civil(year, 1, 1),
            weekday: (days + 4).rem_euclid(7),
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.civil(0);
        write!(f, "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", at.year, at.month, at.day, at.hour, at.minute, at.second)?;
        if self.nanos > 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// Reads `+01:00` or `-0130` as seconds.
fn parse_offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |part: &str| (part.len() == 2).then(|| part.parse::<i64>().ok()).flatten();
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours <= 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// The offset of a time zone as expressions name it: `UTC`, `+01:00`, `-08:00`, `02:00`.
///
/// Names of the time zone database are not known here: they would need its tables.
pub(crate) fn zone_offset(name: &str) -> Result<i64, String> {
    if matches!(name, "UTC" | "" | "Etc/UTC" | "GMT" | "Z") {
        return Ok(0);
    }
    let Some((hours, minutes)) = name.split_once(':') else {
        return Err(format!("unknown time zone {name}"));
    };
    let (sign, hours) = match hours.strip_prefix('-') {
        Some(hours) => (-1, hours),
        None => (1, hours.strip_prefix('+').unwrap_or(hours)),
    };
    let number = |part: &str| -> Result<i64, String> {
        let digits = !part.is_empty() && part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit());
        let invalid = || format!("unknown time zone {name}");
        if digits { part.parse().map_err(|_| invalid()) } else { Err(invalid()) }
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    if hours > 23 {
        return Err(format!("timezone offset hours out of range [-23, 23]: {name}"));
    }
    if minutes > 59 {
        return Err(format!("timezone offset minutes out of range [0, 59]: {name}"));
    }
    Ok(sign * (hours * 3_600 + minutes * 60))
}

/// A span as `string()` gives it: seconds, with a fraction when there is one.
pub(crate) fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    let (seconds, rest) = (size / 1_000_000_000, size % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let digits = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", digits.trim_end_matches('0'))
}

/// Reads a duration of format `duration`: Go's notation, or a number with a unit in words (`3 days`).
pub(crate) fn parse_schema_duration(text: &str) -> Option<i64> {
    if let Ok(nanos) = parse_duration(text) {
        return Some(nanos);
    }
    const UNITS: &[(&[&str], i64)] = &[
        (&["ns", "nano", "nanos", "nanosecond", "nanoseconds"], 1),
        (&["us", "µs", "micro", "micros", "microsecond", "microseconds"], 1_000),
        (&["ms", "milli", "millis", "millisecond", "milliseconds"], 1_000_000),
        (&["s", "sec", "secs", "second", "seconds"], 1_000_000_000),
        (&["m", "min", "mins", "minute", "minutes"], 60_000_000_000),
        (&["h", "hr", "hrs", "hour", "hours"], 3_600_000_000_000),
        (&["d", "day", "days"], 86_400_000_000_000),
        (&["w", "wk", "wks", "week", "weeks"], 604_800_000_000_000),
    ];
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let count: i64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim().to_lowercase();
    let (_, nanos) = UNITS.iter().find(|(names, _)| names.contains(&unit.as_str()))?;
    count.checked_mul(*nanos)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01, counting years from March so that the leap day is the last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = (shifted + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}
