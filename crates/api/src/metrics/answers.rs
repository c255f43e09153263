//! What is counted of the answers to one kind of request: found once, then only added to.

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

use super::histogram::{Histogram, RESPONSE_BYTES, SECONDS};

/// Different status codes of one kind of request; one more is not counted.
const CODES_MAX: usize = 16;
/// A counter holds the code above this bit and the count below it.
const CODE_SHIFT: u32 = 48;

/// See the [module](self).
pub(super) struct Answers {
    pub(super) seconds: Histogram,
    pub(super) bytes: Histogram,
    codes: [AtomicU64; CODES_MAX],
}

impl Default for Answers {
    fn default() -> Self {
        Self { seconds: Histogram::new(&SECONDS), bytes: Histogram::new(&RESPONSE_BYTES), codes: Default::default() }
    }
}

impl Answers {
    /// Counts an answer with this code.
    pub(super) fn count(&self, code: StatusCode) {
        let code = u64::from(code.as_u16());
        for counter in &self.codes {
            let mut held = counter.load(Ordering::Relaxed) >> CODE_SHIFT;
            if held == 0 {
                let first = code << CODE_SHIFT | 1;
                match counter.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => return,
                    Err(other) => held = other >> CODE_SHIFT,
                }
            }
            if held == code {
                counter.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Every code with how often it was answered.
    pub(super) fn codes(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let counters = self.codes.iter().map(|counter| counter.load(Ordering::Relaxed));
        counters.take_while(|held| *held > 0).map(|held| (held >> CODE_SHIFT, held & ((1 << CODE_SHIFT) - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_counted_apart() {
        let answers = Answers::default();
        for code in [200, 404, 200, 599] {
            answers.count(StatusCode::from_u16(code).unwrap());
        }
        assert_eq!(answers.codes().collect::<Vec<_>>(), [(200, 2), (404, 1), (599, 1)]);
    }
}
