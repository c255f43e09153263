//! Series by their labels: a table of fixed size that is read without locks.
//!
//! A series is found by hashing the label values as they are, so recording builds no text. The
//! table never grows: what finds no place in it is counted in one series with empty labels.

use std::sync::OnceLock;

/// How far from its place a series may stand. With half of the table in use almost none is
/// further than this.
const PROBES_MAX: usize = 32;

/// The series of one metric.
pub(super) struct Family<const LABELS: usize, V> {
    labels: [&'static str; LABELS],
    slots: Box<[OnceLock<Series<LABELS, V>>]>,
    make: fn() -> V,
    overflow: Series<LABELS, V>,
}

struct Series<const LABELS: usize, V> {
    values: [Box<str>; LABELS],
    value: V,
}

impl<const LABELS: usize, V> Family<LABELS, V> {
    /// No series yet, and at most about `series_max`.
    pub(super) fn new(labels: [&'static str; LABELS], series_max: usize, make: fn() -> V) -> Self {
        let slots = series_max.next_power_of_two();
        Self {
            labels,
            slots: std::iter::repeat_with(OnceLock::new).take(slots).collect(),
            make,
            overflow: Series { values: std::array::from_fn(|_| Box::default()), value: make() },
        }
    }

    /// The series with these label values, made when it is new and there is room.
    pub(super) fn with(&self, values: [&str; LABELS]) -> &V {
        match self.find(values) {
            Place::Found(value) => value,
            Place::Free(_) | Place::Full => self.insert(values),
        }
    }

    /// The series with these label values, if there is one.
    pub(super) fn get(&self, values: [&str; LABELS]) -> Option<&V> {
        match self.find(values) {
            Place::Found(value) => Some(value),
            Place::Free(_) | Place::Full => None,
        }
    }

    /// Every series, with its labels as text: `verb="GET",code="200"`.
    pub(super) fn each(&self, mut visit: impl FnMut(&str, &V)) {
        for series in self.slots.iter().filter_map(OnceLock::get) {
            visit(&labels_text(&self.labels, &series.values), &series.value);
        }
    }

    fn find(&self, values: [&str; LABELS]) -> Place<'_, V> {
        let mask = self.slots.len() - 1;
        let start = hash(&values) as usize;
        for step in 0..PROBES_MAX.min(self.slots.len()) {
            let at = (start + step) & mask;
            match self.slots[at].get() {
                None => return Place::Free(at),
                Some(series) if series.is(&values) => return Place::Found(&series.value),
                Some(_) => {}
            }
        }
        Place::Full
    }

    #[cold]
    fn insert(&self, values: [&str; LABELS]) -> &V {
        loop {
            match self.find(values) {
                Place::Found(value) => return value,
                Place::Full => return &self.overflow.value,
                Place::Free(at) => {
                    let series = Series { values: values.map(Box::from), value: (self.make)() };
                    // Somebody else may have taken the place; then the search goes on behind it.
                    let _ = self.slots[at].set(series);
                }
            }
        }
    }
}

enum Place<'a, V> {
    Found(&'a V),
    Free(usize),
    Full,
}

impl<const LABELS: usize, V> Series<LABELS, V> {
    fn is(&self, values: &[&str; LABELS]) -> bool {
        self.values.iter().zip(values).all(|(own, asked)| **own == **asked)
    }
}

/// Eight bytes at a time; the values come from closed sets and the registry, not from an adversary.
fn hash(values: &[&str]) -> u64 {
    let mut hash = 0_u64;
    let mut mix = |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for value in values {
        let mut words = value.as_bytes().chunks_exact(8);
        for word in words.by_ref() {
            mix(word.try_into().map_or(0, u64::from_le_bytes));
        }
        let rest = words.remainder().iter().fold(value.len() as u64, |rest, byte| rest << 8 | u64::from(*byte));
        mix(rest);
    }
    hash ^ (hash >> 32)
}

fn labels_text(names: &[&'static str], values: &[Box<str>]) -> String {
    let mut text = String::new();
    for (name, value) in names.iter().zip(values) {
        super::text::push_label(&mut text, name, value);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn series_are_found_again_and_the_table_never_overflows() {
        let family: Family<2, AtomicU64> = Family::new(["a", "b"], 64, AtomicU64::default);
        for round in 0..3 {
            for number in 0..1_000 {
                family.with([&number.to_string(), "x"]).fetch_add(1, Ordering::Relaxed);
            }
            let (mut series, mut total) = (0, family.overflow.value.load(Ordering::Relaxed));
            family.each(|_, value| {
                series += 1;
                total += value.load(Ordering::Relaxed);
            });
            assert!(series <= 64);
            assert_eq!(total, (round + 1) * 1_000);
        }
        assert_eq!(family.get(["0", "x"]).map(|value| value.load(Ordering::Relaxed)), Some(3));
    }
}
