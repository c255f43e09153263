//! How the seats of the server are divided among priority levels, and lent between them.
//!
//! Pure: shares and percentages of the configuration give each level its nominal, least and most
//! seats; every [`PERIOD`] what was asked for decides what each has until the next.

use std::time::Duration;

/// How often seats are lent anew.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);
/// How slowly past demand is forgotten: half of it in five minutes.
const SMOOTHING: f64 = 0.977;
/// Demands below it are taken for it, so that nothing is divided by zero.
const TARGET_MIN: f64 = 0.001;
/// Sums of seats closer than this are the same.
const EPSILON: f64 = 1e-7;

/// What a level is by configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seats {
    pub(crate) nominal: u32,
    pub(crate) least: u32,
    pub(crate) most: u32,
}

/// `concurrencyShares`, `lendablePercent` and `borrowingLimitPercent` of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Share {
    pub(crate) shares: u32,
    pub(crate) lendable_percent: u32,
    pub(crate) borrowing_limit_percent: Option<u32>,
}

/// Divides `total` seats by the levels' shares.
pub(crate) fn divide(total: u32, shares: &[Share]) -> Vec<Seats> {
    let sum: f64 = shares.iter().map(|one| f64::from(one.shares)).sum();
    let percent = |of: u32, percent: u32| (f64::from(of) * f64::from(percent) / 100.0).round() as u32;
    let seats = |one: &Share| {
        let nominal = if sum > 0.0 { (f64::from(total) * f64::from(one.shares) / sum).ceil() as u32 } else { 0 };
        let borrowed = one.borrowing_limit_percent.map_or(total, |limit| percent(nominal, limit));
        Seats {
            nominal,
            least: nominal.saturating_sub(percent(nominal, one.lendable_percent)),
            most: nominal.saturating_add(borrowed),
        }
    };
    shares.iter().map(seats).collect()
}

/// What a level asked for in the last period, in seats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Demand {
    pub(crate) high_watermark: u32,
    pub(crate) average: f64,
    pub(crate) deviation: f64,
    pub(crate) smoothed: f64,
}

impl Demand {
    /// Takes in one more period.
    ///
    /// The deviation is that of independent arrivals (its square is the average): measuring it would
    /// cost every request a lock.
    pub(crate) fn observe(&mut self, high_watermark: u32, average: f64) {
        self.high_watermark = high_watermark;
        self.average = average;
        self.deviation = average.sqrt().min((f64::from(high_watermark) - average).max(0.0));
        let envelope = self.average + self.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
    }
}

/// A level as lending sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Borrower {
    pub(crate) seats: Seats,
    pub(crate) demand: Demand,
    pub(crate) is_exempt: bool,
}

impl Borrower {
    /// What it has in any case: what it used, as long as that is its own.
    fn floor(&self) -> u32 {
        let own = if self.is_exempt { u32::MAX } else { self.seats.nominal };
        self.seats.least.max(own.min(self.demand.high_watermark))
    }

    pub(crate) fn target(&self) -> f64 {
        f64::from(self.floor()).max(self.demand.smoothed)
    }
}

/// How many seats each level has until the next period.
pub(crate) fn lend(levels: &[Borrower]) -> Vec<u32> {
    let total: u32 = levels.iter().map(|level| level.seats.nominal).sum();
    let exempt: u32 = levels.iter().filter(|level| level.is_exempt).map(Borrower::floor).sum();
    let limited = || levels.iter().filter(|level| !level.is_exempt);
    let least: u32 = limited().map(|level| level.seats.least).sum();
    let floors: u32 = limited().map(Borrower::floor).sum();
    let left = total.saturating_sub(exempt);
    let fair = fair_proportion(f64::from(left), &limited().copied().collect::<Vec<_>>());
    let of = |level: &Borrower| {
        let (least_one, floor) = (level.seats.least, level.floor());
        if level.is_exempt {
            floor
        } else if left <= least {
            least_one
        } else if left <= floors {
            let fraction = f64::from(left - least) / f64::from(floors - least);
            least_one + (f64::from(floor - least_one) * fraction).round() as u32
        } else {
            allocation(level, fair).round() as u32
        }
    };
    levels.iter().map(of).collect()
}

fn allocation(level: &Borrower, proportion: f64) -> f64 {
    let wanted = level.target().max(TARGET_MIN) * proportion;
    wanted.max(f64::from(level.floor())).min(f64::from(level.seats.most.max(level.floor())))
}

/// The proportion at which the levels' targets, kept within their bounds, add up to `total`; the
/// largest that matters when they never do.
fn fair_proportion(total: f64, levels: &[Borrower]) -> f64 {
    let sum = |proportion: f64| levels.iter().map(|level| allocation(level, proportion)).sum::<f64>();
    let highest = levels
        .iter()
        .map(|level| f64::from(level.seats.most.max(level.floor())) / level.target().max(TARGET_MIN))
        .fold(0.0, f64::max);
    if sum(highest) <= total {
        return highest;
    }
    // The sum grows with the proportion: halve until it fits.
    let (mut low, mut high) = (0.0, highest);
    while high - low > EPSILON * high.max(EPSILON) {
        let middle = f64::midpoint(low, high);
        if sum(middle) < total {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(shares: u32, lendable_percent: u32) -> Share {
        Share { shares, lendable_percent, borrowing_limit_percent: None }
    }

    #[test]
    fn upstreams_default_levels_get_upstreams_numbers() {
        // system, node-high, leader-election, workload-high, workload-low, global-default, catch-all
        let shares =
            [share(30, 33), share(40, 25), share(10, 0), share(40, 50), share(100, 90), share(20, 50), share(5, 0)];
        let seats = divide(600, &shares);
        let nominal: Vec<u32> = seats.iter().map(|one| one.nominal).collect();
        let least: Vec<u32> = seats.iter().map(|one| one.least).collect();
        assert_eq!(nominal, [74, 98, 25, 98, 245, 49, 13]);
        assert_eq!(least, [50, 73, 25, 49, 24, 24, 13]);
        assert_eq!(seats[0].most, 674);
    }

    #[test]
    fn who_asks_for_much_borrows_from_those_who_ask_for_little() {
        let seats = divide(600, &[share(100, 50), share(100, 50)]);
        let mut busy = Demand::default();
        busy.observe(400, 390.0);
        let levels = [
            Borrower { seats: seats[0], demand: busy, is_exempt: false },
            Borrower { seats: seats[1], demand: Demand::default(), is_exempt: false },
        ];
        assert_eq!(lend(&levels), [436, 164]);
    }

    proptest! {
        #[test]
        fn nobody_gets_less_than_its_least_or_more_than_its_most(
            shares in proptest::collection::vec((1_u32..200, 0_u32..=100, proptest::option::of(0_u32..200)), 1..8),
            demands in proptest::collection::vec((0_u32..900, 0.0_f64..900.0), 8),
            total in 1_u32..2_000,
        ) {
            let shares: Vec<Share> = shares
                .into_iter()
                .map(|(shares, lendable_percent, borrowing_limit_percent)| {
                    Share { shares, lendable_percent, borrowing_limit_percent }
                })
                .collect();
            let levels: Vec<Borrower> = divide(total, &shares)
                .into_iter()
                .zip(demands)
                .map(|(seats, (high, average))| {
                    let mut demand = Demand::default();
                    demand.observe(high, average.min(f64::from(high)));
                    Borrower { seats, demand, is_exempt: false }
                })
                .collect();
            let lent = lend(&levels);
            for (level, lent) in levels.iter().zip(&lent) {
                prop_assert!(*lent >= level.seats.least && *lent <= level.seats.most, "{level:?} {lent}");
            }
            let sum: u32 = levels.iter().map(|level| level.seats.nominal).sum();
            prop_assert!(lent.iter().sum::<u32>() <= sum + levels.len() as u32);
        }
    }
}
