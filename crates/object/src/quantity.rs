//! Quantities: `100m`, `1.5Gi`, `12e6`. Exact decimal arithmetic, canonical form as upstream prints.
//!
//! A quantity is a whole number of billionths, which is upstream's resolution: anything finer is
//! rounded up, away from zero.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

/// An exact amount and the notation it was given in. Compares by amount alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The notation a quantity keeps when it is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// Powers of 1000: `m`, `k`, `M`, …
    #[default]
    DecimalSi,
    /// Powers of 1024: `Ki`, `Mi`, …
    BinarySi,
    /// Powers of 1000 as `e3`, `e6`, …
    DecimalExponent,
}

/// Why a text is no quantity, in upstream's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuantityError {
    /// Not of the form of a quantity at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number is malformed.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i128 = 1_000_000_000;
/// Upstream keeps larger amounts only while they have at most this many digits.
const DIGITS_EXACT_MAX: usize = 18;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number.
    pub const fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: units as i128 * NANO, format }
    }

    /// A number of thousandths.
    pub const fn from_milli(milli: i64, format: Format) -> Self {
        Self { nanos: milli as i128 * (NANO / 1_000), format }
    }

    /// The amount in billionths.
    pub const fn nanos(self) -> i128 {
        self.nanos
    }

    /// The notation.
    pub const fn format(self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is below zero.
    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// The amount in whole units, rounded up (away from zero), at most what an `i64` holds.
    pub fn units(self) -> i64 {
        self.scaled(NANO)
    }

    /// The amount in thousandths, rounded up (away from zero), at most what an `i64` holds.
    pub fn milli(self) -> i64 {
        self.scaled(NANO / 1_000)
    }

    /// Whether it is a whole number of units.
    pub const fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// Whether it is a whole number of thousandths.
    pub const fn is_milli(self) -> bool {
        self.nanos % (NANO / 1_000) == 0
    }

    /// The amount times `factor`.
    pub const fn times(self, factor: i64) -> Self {
        Self { nanos: self.nanos.saturating_mul(factor as i128), format: self.format }
    }

    fn scaled(self, by: i128) -> i64 {
        let (whole, rest) = (self.nanos / by, self.nanos % by);
        let rounded = whole + rest.signum();
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }

    fn write_decimal(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut mantissa = self.nanos;
        let mut exponent: i32 = -9;
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        let above = exponent.rem_euclid(3);
        for _ in 0..above {
            mantissa *= 10;
        }
        exponent -= above;
        // Beyond exa there is no suffix: stay at exa and let the number grow.
        while exponent > 18 && self.format != Format::DecimalExponent {
            mantissa = mantissa.saturating_mul(1_000);
            exponent -= 3;
        }
        match self.format {
            Format::DecimalExponent if exponent == 0 => write!(f, "{mantissa}"),
            Format::DecimalExponent => write!(f, "{mantissa}e{exponent}"),
            _ => {
                let suffix = DECIMAL.iter().find(|(_, power)| *power == exponent).map_or("", |(name, _)| name);
                write!(f, "{mantissa}{suffix}")
            }
        }
    }

    fn write_binary(units: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut mantissa, mut power) = (units, 0);
        while mantissa % 1_024 == 0 && power < BINARY.len() {
            mantissa /= 1_024;
            power += 1;
        }
        let suffix = power.checked_sub(1).map_or("", |index| BINARY[index]);
        write!(f, "{mantissa}{suffix}")
    }
}

/// The canonical form of a quantity's text.
///
/// # Errors
/// When it is no quantity.
pub fn canonical(text: &str) -> Result<String, QuantityError> {
    text.parse::<Quantity>().map(|quantity| quantity.to_string())
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1_024 * NANO;
        if self.format == Format::BinarySi && !small && self.is_whole() {
            Self::write_binary(self.nanos / NANO, f)
        } else {
            self.write_decimal(f)
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let whole_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(whole_end);
        let (part, suffix) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if !is_suffix(suffix) {
            return Err(QuantityError::Format);
        }
        let (format, unit) = unit(suffix)?;
        if whole.is_empty() && part.is_empty() {
            return Err(QuantityError::Numeric);
        }
        let magnitude = magnitude(whole.trim_start_matches('0'), part, unit);
        // What is between nothing and one unit has no binary form.
        let format =
            if format == Format::BinarySi && magnitude < NANO && magnitude > 0 { Format::DecimalSi } else { format };
        Ok(Self { nanos: if negative { -magnitude } else { magnitude }, format })
    }
}

fn is_suffix(text: &str) -> bool {
    let rest = text.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest.bytes().all(|c| c.is_ascii_digit())
}

/// How much one is: a power of ten or of two.
#[derive(Clone, Copy)]
enum Unit {
    Ten(i64),
    Two(u32),
}

fn unit(suffix: &str) -> Result<(Format, Unit), QuantityError> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::DecimalSi, Unit::Ten(i64::from(*power))));
    }
    if let Some(index) = BINARY.iter().position(|name| *name == suffix) {
        return Ok((Format::BinarySi, Unit::Two(10 * (index as u32 + 1))));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent = exponent.parse::<i64>().map_err(|_| QuantityError::Suffix)?;
    Ok((Format::DecimalExponent, Unit::Ten(exponent)))
}

/// Billionths in `whole.part` units, rounded up, capped where upstream caps.
fn magnitude(whole: &str, part: &str, unit: Unit) -> i128 {
    const CAP: i128 = i64::MAX as i128 * NANO;
    let part = part.trim_end_matches('0');
    let digits = || whole.bytes().chain(part.bytes()).map(|c| i128::from(c - b'0'));
    if digits().all(|digit| digit == 0) {
        return 0;
    }
    let exact = matches!(unit, Unit::Ten(_)) && whole.len() + part.len() <= DIGITS_EXACT_MAX;
    // The value is `number` · 10^`tens` · 2^`twos` billionths.
    let (mut tens, twos) = match unit {
        Unit::Ten(power) => (power.saturating_add(9), 0),
        Unit::Two(power) => (9, power),
    };
    tens = tens.saturating_sub(part.len() as i64);
    let mut number: i128 = 0;
    let mut lost = false;
    // Digits beyond what an i128 holds are far below a billionth, or the cap applies anyway.
    for (index, digit) in digits().enumerate() {
        match number.checked_mul(10).and_then(|number| number.checked_add(digit)) {
            Some(next) => number = next,
            None => {
                tens = tens.saturating_add((whole.len() + part.len() - index) as i64);
                lost = true;
                break;
            }
        }
    }
    let Some(scaled) = 1_i128.checked_shl(twos).and_then(|factor| number.checked_mul(factor)) else {
        // More than 2^67 times a binary unit: only a long fraction could make it small again.
        let down = 10_i128.checked_pow(u32::try_from(tens.saturating_neg()).unwrap_or(0)).unwrap_or(i128::MAX);
        return (number / down).checked_shl(twos).filter(|value| *value >= 0 && *value < CAP).unwrap_or(CAP);
    };
    let nanos = if tens >= 0 {
        u32::try_from(tens)
            .ok()
            .and_then(|tens| 10_i128.checked_pow(tens))
            .and_then(|factor| scaled.checked_mul(factor))
    } else {
        let down = u32::try_from(-tens).ok().and_then(|tens| 10_i128.checked_pow(tens));
        // Smaller than anything we hold still rounds up to one billionth.
        Some(down.map_or(1, |down| scaled / down + i128::from(scaled % down != 0 || lost)))
    };
    match nanos {
        Some(nanos) if nanos <= CAP || exact => nanos,
        _ => CAP,
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// Keeps the notation of the left side unless that is zero, as upstream does.
impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: self.nanos.saturating_neg(), format: self.format }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_print_in_canonical_form() {
        for (given, want) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("-0", "0"),
            ("1000m", "1"),
            ("100m", "100m"),
            ("1.5", "1500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1500", "1500"),
            ("1000", "1k"),
            ("1024Ki", "1Mi"),
            ("1536Mi", "1536Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1023", "1023"),
            ("1Ki", "1Ki"),
            ("0.1Ki", "102400m"),
            ("12e6", "12e6"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("1E3", "1e3"),
            ("10e2", "1e3"),
            ("1e-3", "1e-3"),
            ("0.0000000001", "1n"),
            ("-1.5", "-1500m"),
            ("+3", "3"),
            ("128974848", "128974848"),
            ("129M", "129M"),
            ("123Mi", "123Mi"),
            ("9223372036854775807", "9223372036854775807"),
            ("99999999999999999999", "9223372036854775807"),
            ("100E", "100E"),
            ("16Ei", "9223372036854775807"),
            ("0.3Gi", "322122547200m"),
        ] {
            assert_eq!(canonical(given).as_deref(), Ok(want), "{given}");
        }
    }

    #[test]
    fn what_is_no_quantity_says_why() {
        for (given, want) in [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1 ", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1ki", QuantityError::Suffix),
            ("1mi", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
            (".", QuantityError::Numeric),
            ("+", QuantityError::Numeric),
            ("M", QuantityError::Numeric),
            ("1e", QuantityError::Suffix),
        ] {
            assert_eq!(given.parse::<Quantity>(), Err(want), "{given:?}");
        }
    }

    #[test]
    fn units_round_up() {
        let q: Quantity = "1001m".parse().unwrap();
        assert_eq!((q.units(), q.milli()), (2, 1_001));
        let q: Quantity = "-1001m".parse().unwrap();
        assert_eq!(q.units(), -2);
        assert_eq!(("1".parse::<Quantity>().unwrap() + "1Gi".parse().unwrap()).to_string(), "1073741825");
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(milli in any::<i64>(), format in 0..3) {
            let format = [Format::DecimalSi, Format::BinarySi, Format::DecimalExponent][format as usize];
            let quantity = Quantity::from_milli(milli, format);
            let text = quantity.to_string();
            prop_assert_eq!(text.parse::<Quantity>().unwrap(), quantity);
            prop_assert_eq!(canonical(&text).unwrap(), text);
        }

        #[test]
        fn decimals_agree_with_whole_numbers(whole in 0_i64..1_000_000_000, part in 0_u32..1_000, power in 0_usize..6) {
            let (suffix, power) = [("", 0), ("k", 3), ("M", 6), ("m", -3), ("u", -6), ("G", 9)][power];
            let quantity: Quantity = format!("{whole}.{part:03}{suffix}").parse().unwrap();
            let milli = i128::from(whole) * 1_000 + i128::from(part);
            let want = if power >= -6 { milli * 10_i128.pow((power + 6) as u32) } else { unreachable!() };
            prop_assert_eq!(quantity.nanos(), want);
        }

        #[test]
        fn sums_agree_with_integers(a in -(1_i64 << 60)..(1_i64 << 60), b in -(1_i64 << 60)..(1_i64 << 60)) {
            let (qa, qb) = (Quantity::from_milli(a, Format::DecimalSi), Quantity::from_milli(b, Format::BinarySi));
            prop_assert_eq!((qa + qb).nanos(), (i128::from(a) + i128::from(b)) * 1_000_000);
            prop_assert_eq!((qa - qb).nanos(), (i128::from(a) - i128::from(b)) * 1_000_000);
            prop_assert_eq!(qa.cmp(&qb), a.cmp(&b));
        }

        #[test]
        fn no_text_panics(text in "[+-]?[0-9.]{0,50}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,20}") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let _ = quantity.to_string();
            }
        }
    }
}
