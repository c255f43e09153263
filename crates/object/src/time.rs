//! Points in time as RFC 3339 and spans as Go writes them.
//!
//! This crate has no clock: times come in and go out as numbers or text.

use std::fmt::{self, Write as _};

/// A point in time: seconds since 1970 and the nanoseconds within the second.
///
/// Wider than 64-bit nanoseconds because Go's zero time, the year 1, is a legal value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time {
    /// Seconds since the start of 1970, UTC.
    pub seconds: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanos: u32,
}

const NANOS: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;
/// The years that RFC 3339 can write, 0 to 9999.
const WRITABLE_SECONDS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// A text is no time, in Go's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("parsing time {} as \"2006-01-02T15:04:05Z07:00\": {}", crate::errors::quote(.text), .why)]
pub struct TimeError {
    text: String,
    why: String,
}

impl Time {
    /// Go's zero time, the start of the year 1: a time that was never set.
    pub const ZERO: Self = Self { seconds: -62_135_596_800, nanos: 0 };

    /// Whether the year is one that [`Time::rfc3339`] writes so that [`Time::parse`] reads it.
    pub fn is_writable(self) -> bool {
        WRITABLE_SECONDS.contains(&self.seconds)
    }

    /// From nanoseconds since 1970.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { seconds: nanos.div_euclid(NANOS), nanos: nanos.rem_euclid(NANOS) as u32 }
    }

    /// Nanoseconds since 1970; what does not fit is cut to the nearest that does.
    pub const fn to_nanos(self) -> i64 {
        self.seconds.saturating_mul(NANOS).saturating_add(self.nanos as i64)
    }

    /// Reads RFC 3339 with any offset and any precision.
    ///
    /// # Errors
    /// When the text is no RFC 3339 time.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let mut reader = Reader { rest: text };
        match reader.time() {
            Ok(time) if reader.rest.is_empty() => Ok(time),
            Ok(_) => Err(TimeError {
                text: text.to_owned(),
                why: format!("extra text: {}", crate::errors::quote(reader.rest)),
            }),
            Err(why) => Err(TimeError { text: text.to_owned(), why }),
        }
    }

    /// `2006-01-02T15:04:05Z`, as `metav1.Time` is written.
    pub fn rfc3339(self) -> String {
        let mut out = self.date_time();
        out.push('Z');
        out
    }

    /// `2006-01-02T15:04:05.000000Z`, as `metav1.MicroTime` is written.
    pub fn rfc3339_micro(self) -> String {
        let mut out = self.date_time();
        let _ = write!(out, ".{:06}Z", self.nanos / 1_000);
        out
    }

    fn date_time(self) -> String {
        let days = self.seconds.div_euclid(DAY_SECONDS);
        let second = self.seconds.rem_euclid(DAY_SECONDS);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// Days since 1970 of a date of the Gregorian calendar (Hinnant's algorithm).
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + (month <= 2) as i64, month, day)
}

const fn month_days(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn number(&mut self, digits: usize, layout: &str) -> Result<i64, String> {
        let wrong = || format!("cannot parse {} as \"{layout}\"", crate::errors::quote(self.rest));
        let bytes = self.rest.as_bytes().get(..digits).ok_or_else(wrong)?;
        if !bytes.iter().all(u8::is_ascii_digit) {
            return Err(wrong());
        }
        let value = bytes.iter().fold(0, |value, c| value * 10 + i64::from(c - b'0'));
        self.rest = &self.rest[digits..];
        Ok(value)
    }

    fn literal(&mut self, c: char) -> Result<(), String> {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(format!("cannot parse {} as \"{c}\"", crate::errors::quote(self.rest))),
        }
    }

    fn time(&mut self) -> Result<Time, String> {
        let year = self.number(4, "2006")?;
        self.literal('-')?;
        let month = self.number(2, "01")?;
        self.literal('-')?;
        let day = self.number(2, "02")?;
        self.literal('T')?;
        let hour = self.number(2, "15")?;
        self.literal(':')?;
        let minute = self.number(2, "04")?;
        self.literal(':')?;
        let second = self.number(2, "05")?;
        let nanos = self.fraction();
        let offset = self.offset()?;
        for (range, fine) in [
            ("month", (1..=12).contains(&month)),
            ("day", (1..=month_days(year, month)).contains(&day)),
            ("hour", hour < 24),
            ("minute", minute < 60),
            ("second", second < 60),
        ] {
            if !fine {
                return Err(format!("{range} out of range"));
            }
        }
        let seconds = days(year, month, day) * DAY_SECONDS + hour * 3_600 + minute * 60 + second - offset;
        // The offset can lead out of what can be written again.
        let time = Time { seconds, nanos };
        if time.is_writable() { Ok(time) } else { Err("year out of range".to_owned()) }
    }

    fn fraction(&mut self) -> u32 {
        let Some(rest) = self.rest.strip_prefix(['.', ',']) else { return 0 };
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if end == 0 {
            return 0;
        }
        let digits = rest.bytes().take(end).chain(std::iter::repeat(b'0')).take(9);
        let nanos = digits.fold(0, |value, c| value * 10 + u32::from(c - b'0'));
        self.rest = &rest[end..];
        nanos
    }

    fn offset(&mut self) -> Result<i64, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let wrong = format!("cannot parse {} as \"Z07:00\"", crate::errors::quote(self.rest));
        let sign = match self.rest.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(wrong),
        };
        self.rest = &self.rest[1..];
        let (hour, minute) = (|| {
            let hour = self.number(2, "")?;
            self.literal(':')?;
            Ok::<_, String>((hour, self.number(2, "")?))
        })()
        .map_err(|_| wrong)?;
        if hour > 24 || minute >= 60 {
            return Err("time zone offset out of range".to_owned());
        }
        Ok(sign * (hour * 3_600 + minute * 60))
    }
}

/// A text is no duration, in Go's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DurationError {
    /// Malformed or too large.
    #[error("time: invalid duration {}", crate::errors::quote(.0))]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {}", crate::errors::quote(.0))]
    MissingUnit(String),
    /// A unit Go does not know.
    #[error("time: unknown unit {} in duration {}", crate::errors::quote(.0), crate::errors::quote(.1))]
    UnknownUnit(String, String),
}

/// Reads Go's duration text (`1h30m`, `1.5s`, `-2ms`) as nanoseconds.
///
/// # Errors
/// When the text is no duration.
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
        None => return Err(invalid()),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (part, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if whole.is_empty() && part.is_empty() {
            return Err(invalid());
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let nanos: i128 = match unit {
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            other => return Err(DurationError::UnknownUnit(other.to_owned(), text.to_owned())),
        };
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        total += i128::from(whole) * nanos;
        let mut scale = nanos;
        for digit in part.bytes() {
            scale /= 10;
            total += i128::from(digit - b'0') * scale;
        }
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return Err(invalid());
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// Writes nanoseconds as Go's `Duration.String` does: `1h0m0s`, `1.5s`, `300ms`.
pub fn format_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    let fraction = |size: u64, unit: u64, name: &str| {
        let (whole, rest) = (size / unit, size % unit);
        if rest == 0 {
            return format!("{whole}{name}");
        }
        let width = unit.ilog10() as usize;
        let digits = format!("{rest:0width$}");
        format!("{whole}.{}{name}", digits.trim_end_matches('0'))
    };
    let text = match size {
        0..1_000 => format!("{size}ns"),
        1_000..1_000_000 => fraction(size, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(size, 1_000_000, "ms"),
        _ => {
            let seconds = size / 1_000_000_000;
            let rest = fraction(size % 60_000_000_000, 1_000_000_000, "s");
            match (seconds / 3_600, seconds / 60 % 60) {
                (0, 0) => rest,
                (0, minutes) => format!("{minutes}m{rest}"),
                (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// A span as `kubectl get` prints ages: `5s`, `3m20s`, `27h`, `4d2h`, `2y10d`.
pub fn human_duration(nanos: i64) -> String {
    let seconds = nanos / NANOS;
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    if seconds < 0 {
        return "0s".to_owned();
    }
    let two = |major: i64, unit: &str, minor: i64, small: &str| {
        if minor == 0 { format!("{major}{unit}") } else { format!("{major}{unit}{minor}{small}") }
    };
    if seconds < 60 * 2 {
        return format!("{seconds}s");
    }
    let minutes = seconds / 60;
    if minutes < 10 {
        return two(minutes, "m", seconds % 60, "s");
    }
    if minutes < 60 * 3 {
        return format!("{minutes}m");
    }
    let hours = minutes / 60;
    if hours < 8 {
        return two(hours, "h", minutes % 60, "m");
    }
    if hours < 48 {
        return format!("{hours}h");
    }
    if hours < 24 * 8 {
        return two(hours / 24, "d", hours % 24, "h");
    }
    if hours < 24 * 365 * 2 {
        return format!("{}d", hours / 24);
    }
    if hours < 24 * 365 * 8 {
        return two(hours / 24 / 365, "y", (hours / 24) % 365, "d");
    }
    format!("{}y", hours / 24 / 365)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_with_offsets_and_fractions() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2026-11-22T17:15:00+01:00", 1_795_364_100, 0),
            ("0001-01-01T00:00:00Z", -62_135_596_800, 0),
            ("2000-02-29T23:59:59.5Z", 951_868_799, 500_000_000),
        ] {
            assert_eq!(Time::parse(text), Ok(Time { seconds, nanos }), "{text}");
        }
        for (text, want) in [
            ("", r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#),
            (
                "2001-02-29T00:00:00Z",
                r#"parsing time "2001-02-29T00:00:00Z" as "2006-01-02T15:04:05Z07:00": day out of range"#,
            ),
            ("2001-02-28", r#"parsing time "2001-02-28" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#),
        ] {
            assert_eq!(Time::parse(text).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn durations_read_and_print_as_in_go() {
        for (text, nanos, printed) in [
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("300ms", 300_000_000, "300ms"),
            ("-2us", -2_000, "-2µs"),
            ("0", 0, "0s"),
            ("90s", 90_000_000_000, "1m30s"),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
            assert_eq!(format_duration(nanos), printed);
        }
        assert_eq!(parse_duration("5").unwrap_err().to_string(), r#"time: missing unit in duration "5""#);
        assert_eq!(parse_duration("5x").unwrap_err().to_string(), r#"time: unknown unit "x" in duration "5x""#);
        assert_eq!(parse_duration("x").unwrap_err().to_string(), r#"time: invalid duration "x""#);
    }

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        for (seconds, want) in [
            (5, "5s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (600, "10m"),
            (3 * 3_600, "3h"),
            (3 * 3_600 + 60, "3h1m"),
            (27 * 3_600, "27h"),
            (98 * 3_600, "4d2h"),
            (10 * 86_400, "10d"),
            (-1, "0s"),
            (-5, "<invalid>"),
        ] {
            assert_eq!(human_duration(seconds * NANOS), want, "{seconds}");
        }
    }

    proptest! {
        #[test]
        fn times_survive_printing(seconds in -62_135_596_800_i64..253_402_300_800, nanos in 0_u32..1_000_000) {
            let time = Time { seconds, nanos: nanos * 1_000 };
            prop_assert_eq!(Time::parse(&time.rfc3339_micro()), Ok(time));
            prop_assert_eq!(Time::parse(&time.rfc3339()).unwrap().seconds, seconds);
        }

        #[test]
        fn durations_survive_printing(nanos in any::<i64>()) {
            prop_assert_eq!(parse_duration(&format_duration(nanos)), Ok(nanos));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = Time::parse(&text);
            let _ = parse_duration(&text);
        }
    }
}
