//! Fair queuing: which of the waiting requests of one priority level goes next.
//!
//! Pure and on a clock of its own: the caller says what time it is and whether a request of a given
//! width may start. Flows are dealt to queues by shuffle sharding; queues take turns by virtual
//! finish time, in seat-seconds, as KEP-1040 and "fair queuing for server requests" have it. It
//! does not know tasks, requests, or what a seat is worth.

use std::collections::VecDeque;
use std::time::Duration;

/// What a request is expected to take until it is known: upstream's estimate.
const SERVICE_SECONDS: f64 = 0.003;
/// Entropy of a flow's hash allows hands of up to this many cards (validation of the API says the same).
const HAND_MAX: usize = 32;

/// How a priority level queues. No queues means that what does not fit is turned away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) queues: usize,
    pub(crate) hand_size: usize,
    pub(crate) queue_length_max: usize,
}

/// How much a request takes: seats while it runs, and seats for a while after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Work {
    pub(crate) initial_seats: u32,
    pub(crate) final_seats: u32,
    pub(crate) additional_latency: Duration,
}

impl Work {
    /// One seat and nothing after it.
    pub(crate) const ONE: Self = Self::of(1);

    pub(crate) const fn of(seats: u32) -> Self {
        Self { initial_seats: seats, final_seats: 0, additional_latency: Duration::ZERO }
    }

    /// The seats that are held for all of the time.
    pub(crate) fn seats(&self) -> u32 {
        self.initial_seats.max(self.final_seats)
    }

    /// Seat-seconds, as far as they can be told beforehand.
    fn estimated(&self) -> f64 {
        f64::from(self.initial_seats) * SERVICE_SECONDS
            + f64::from(self.final_seats) * self.additional_latency.as_secs_f64()
    }
}

/// A request in a queue.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    id: u64,
    arrival_r: f64,
    pub(crate) work: Work,
    pub(crate) item: T,
}

/// Where a waiting request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) queue: usize,
    id: u64,
}

/// One queue.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// The virtual time at which the oldest request would start.
    pub(crate) next_dispatch_r: f64,
    pub(crate) waiting: VecDeque<Waiting<T>>,
    pub(crate) executing: usize,
    pub(crate) seats_in_use: u64,
}

impl<T> Queue<T> {
    const fn new() -> Self {
        Self { next_dispatch_r: 0.0, waiting: VecDeque::new(), executing: 0, seats_in_use: 0 }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0
    }

    pub(crate) fn seats_waiting(&self) -> u64 {
        self.waiting.iter().map(|one| u64::from(one.work.seats())).sum()
    }

    /// Seat-seconds of what waits.
    pub(crate) fn work(&self) -> f64 {
        self.waiting.iter().map(|one| one.work.estimated()).sum()
    }

    /// A queue that could not use its turn must not save it up: nothing starts before it came.
    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.next_dispatch_r = self.next_dispatch_r.max(oldest.arrival_r);
        }
    }
}

/// The queues of a priority level.
#[derive(Debug)]
pub(crate) struct QueueSet<T> {
    shape: Shape,
    queues: Vec<Queue<T>>,
    /// Seat-seconds given to each busy queue so far.
    r: f64,
    at: Duration,
    /// The queue that was served last.
    robin: usize,
    next_id: u64,
    waiting: usize,
}

impl<T> QueueSet<T> {
    pub(crate) fn new(shape: Shape, now: Duration) -> Self {
        let mut set = Self { shape, queues: Vec::new(), r: 0.0, at: now, robin: 0, next_id: 0, waiting: 0 };
        set.reshape(shape);
        set
    }

    /// Takes another shape. Queues that are too many are dealt nothing and go once they are idle.
    pub(crate) fn reshape(&mut self, shape: Shape) {
        self.shape = shape;
        while self.queues.len() < shape.queues {
            self.queues.push(Queue::new());
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.queues.len() > self.shape.queues && self.queues.last().is_some_and(Queue::is_idle) {
            self.queues.pop();
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn queues(&self) -> &[Queue<T>] {
        &self.queues
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Moves virtual time to `now`, `seats` being what the level may use at most.
    pub(crate) fn advance(&mut self, now: Duration, seats: u32) {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now.max(self.at);
        let busy = self.queues.iter().filter(|queue| !queue.is_idle()).count();
        if busy > 0 {
            let wanted: u64 = self.queues.iter().map(|queue| queue.seats_in_use + queue.seats_waiting()).sum();
            self.r += elapsed * (wanted as f64).min(f64::from(seats)) / busy as f64;
        }
    }

    /// Puts a request into the queue of its flow's hand that has the least work; gives it back when
    /// that queue is full and `is_full` (no seat is free).
    pub(crate) fn enqueue(&mut self, flow_hash: u64, work: Work, is_full: bool, item: T) -> Result<Place, T> {
        let Some(at) = self.deal(flow_hash) else { return Err(item) };
        let r = self.r;
        let queue = &mut self.queues[at];
        if is_full && queue.waiting.len() >= self.shape.queue_length_max {
            return Err(item);
        }
        if queue.is_idle() {
            queue.next_dispatch_r = r;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.waiting += 1;
        queue.waiting.push_back(Waiting { id, arrival_r: r, work, item });
        queue.bound();
        Ok(Place { queue: at, id })
    }

    fn deal(&self, flow_hash: u64) -> Option<usize> {
        let hand = hand(flow_hash, self.shape.queues, self.shape.hand_size);
        let size = self.shape.hand_size.min(self.shape.queues).min(HAND_MAX);
        if size == 0 {
            return None;
        }
        // Where the search begins moves on, so that flows whose hands overlap are treated alike.
        let offset = (self.next_id % size as u64) as usize;
        let cards = (0..size).map(|step| hand[(offset + step) % size]);
        cards.min_by(|one, other| self.queues[*one].work().total_cmp(&self.queues[*other].work()))
    }

    /// Takes the request that is to go next out of its queue, if `may_start` gives it its seats.
    pub(crate) fn dispatch(&mut self, mut may_start: impl FnMut(&Work) -> bool) -> Option<(usize, Waiting<T>)> {
        let count = self.queues.len();
        let next = (1..=count)
            .map(|step| (self.robin + step) % count)
            .filter_map(|at| {
                let oldest = self.queues[at].waiting.front()?;
                Some((at, self.queues[at].next_dispatch_r + oldest.work.estimated()))
            })
            .min_by(|one, other| one.1.total_cmp(&other.1));
        let (at, _) = next?;
        let queue = &mut self.queues[at];
        if !may_start(&queue.waiting.front()?.work) {
            // A wide request is not overtaken: it would wait for ever.
            return None;
        }
        let request = queue.waiting.pop_front()?;
        self.robin = at;
        self.waiting -= 1;
        queue.executing += 1;
        queue.seats_in_use += u64::from(request.work.seats());
        queue.next_dispatch_r += request.work.estimated();
        queue.bound();
        Some((at, request))
    }

    /// The request that is to go next.
    pub(crate) fn next_up(&self) -> Option<&Waiting<T>> {
        let finish = |queue: &&Queue<T>| {
            queue.next_dispatch_r + queue.waiting.front().map_or(0.0, |oldest| oldest.work.estimated())
        };
        let busy = self.queues.iter().filter(|queue| !queue.waiting.is_empty());
        busy.min_by(|one, other| finish(one).total_cmp(&finish(other)))?.waiting.front()
    }

    /// A request that came from `queue` has been served in `took`. Its seats may be held longer: see
    /// [`QueueSet::release`].
    pub(crate) fn finish(&mut self, queue: usize, work: &Work, took: Duration) {
        let Some(queue) = self.queues.get_mut(queue) else { return };
        queue.executing = queue.executing.saturating_sub(1);
        let estimate_was_short_by = took.as_secs_f64() - SERVICE_SECONDS;
        queue.next_dispatch_r += f64::from(work.initial_seats) * estimate_was_short_by;
        queue.bound();
    }

    /// The seats of a request that came from `queue` are free again.
    pub(crate) fn release(&mut self, queue: usize, work: &Work) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.seats_in_use = queue.seats_in_use.saturating_sub(u64::from(work.seats()));
        }
        self.shrink();
    }

    /// Takes a waiting request out; `None` when it was dispatched before.
    pub(crate) fn cancel(&mut self, place: Place) -> Option<T> {
        let queue = self.queues.get_mut(place.queue)?;
        let at = queue.waiting.iter().position(|one| one.id == place.id)?;
        let gone = queue.waiting.remove(at)?;
        queue.bound();
        self.waiting -= 1;
        self.shrink();
        Some(gone.item)
    }
}

/// A hand of different cards from a deck, the same for the same hash.
fn hand(mut hash: u64, deck: usize, size: usize) -> [usize; HAND_MAX] {
    let mut hand = [0; HAND_MAX];
    for drawn in 0..size.min(deck).min(HAND_MAX) {
        let left = (deck - drawn) as u64;
        let mut card = (hash % left) as usize;
        hash /= left;
        // The card counts among those that are left: step over what was drawn, lowest first.
        let mut before: [usize; HAND_MAX] = hand;
        before[..drawn].sort_unstable();
        for taken in &before[..drawn] {
            if card >= *taken {
                card += 1;
            }
        }
        hand[drawn] = card;
    }
    hand
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPE: Shape = Shape { queues: 16, hand_size: 4, queue_length_max: 50 };

    /// A level of `seats` seats under simulated time.
    struct World {
        set: QueueSet<usize>,
        now: Duration,
        seats: u32,
        in_use: u32,
        /// When it ends, its queue, its work, its flow.
        running: Vec<(Duration, usize, Work, usize)>,
        served: Vec<f64>,
    }

    impl World {
        fn new(seats: u32, flows: usize) -> Self {
            let set = QueueSet::new(SHAPE, Duration::ZERO);
            Self { set, now: Duration::ZERO, seats, in_use: 0, running: Vec::new(), served: vec![0.0; flows] }
        }

        fn arrive(&mut self, flow: usize, work: Work) -> bool {
            self.set.advance(self.now, self.seats);
            let hash = (flow as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let fits = self.set.enqueue(hash, work, self.in_use >= self.seats, flow).is_ok();
            self.dispatch(flow_time);
            fits
        }

        fn dispatch(&mut self, time: fn(usize) -> Duration) {
            loop {
                let (in_use, seats) = (&mut self.in_use, self.seats);
                let next = self.set.dispatch(|work| {
                    let fits = *in_use + work.seats() <= seats || (*in_use == 0 && work.seats() > seats);
                    if fits {
                        *in_use += work.seats();
                    }
                    fits
                });
                let Some((queue, request)) = next else { return };
                assert!(self.in_use <= self.seats || self.running.is_empty(), "seats exceeded");
                self.running.push((self.now + time(request.item), queue, request.work, request.item));
            }
        }

        /// Serves until `until`.
        fn run(&mut self, until: Duration, mut again: impl FnMut(&mut Self, usize)) {
            while let Some(at) =
                (0..self.running.len()).min_by_key(|at| self.running[*at].0).filter(|at| self.running[*at].0 <= until)
            {
                let (end, queue, work, flow) = self.running.swap_remove(at);
                self.now = end;
                self.set.advance(end, self.seats);
                self.set.finish(queue, &work, flow_time(flow));
                self.set.release(queue, &work);
                self.in_use -= work.seats();
                self.served[flow] += flow_time(flow).as_secs_f64() * f64::from(work.seats());
                again(self, flow);
                self.dispatch(flow_time);
            }
        }
    }

    /// Flow 0 sends slow requests.
    fn flow_time(flow: usize) -> Duration {
        Duration::from_millis(if flow == 0 { 40 } else { 5 })
    }

    #[test]
    fn a_hand_holds_different_cards_of_the_deck() {
        for hash in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let mut cards = hand(hash, 64, 6)[..6].to_vec();
            assert!(cards.iter().all(|card| *card < 64));
            cards.sort_unstable();
            cards.dedup();
            assert_eq!(cards.len(), 6);
        }
    }

    /// An elephant with two hundred requests at once does not keep a mouse from its turn.
    #[test]
    fn a_flow_that_floods_does_not_starve_one_that_asks_politely() {
        let mut world = World::new(4, 2);
        for _ in 0..200 {
            world.arrive(0, Work::ONE);
        }
        world.arrive(1, Work::ONE);
        world.run(Duration::from_secs(2), |world, flow| {
            world.arrive(flow, Work::ONE);
        });
        // The mouse never has more than one request at once, so all that it can have is one seat.
        assert!(world.served[1] > 0.1, "the mouse got {:?}", world.served);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Flows in different queues that always have something waiting get the same seat-seconds,
        /// however long and wide their requests are.
        #[test]
        fn backlogged_flows_share_alike(width in 1_u32..4, seats in 4_u32..20) {
            let mut world = World::new(seats, 2);
            for _ in 0..30 {
                world.arrive(0, Work::of(width));
                world.arrive(1, Work::ONE);
            }
            let queues: std::collections::BTreeSet<usize> =
                (0..16).filter(|at| !world.set.queues()[*at].is_idle()).collect();
            prop_assume!(queues.len() > 1);
            world.run(Duration::from_secs(4), |world, flow| {
                let work = if flow == 0 { Work::of(width) } else { Work::ONE };
                world.arrive(flow, work);
            });
            let (one, other) = (world.served[0], world.served[1]);
            prop_assert!(one > 0.0 && other > 0.0, "{:?}", world.served);
            prop_assert!(one / other < 6.0 && other / one < 6.0, "{:?}", world.served);
        }

        /// Whatever comes: seats are never exceeded (asserted at each dispatch), everything that was
        /// taken in is served, and the counts come back to nothing.
        #[test]
        fn everything_is_served_and_nothing_is_left(
            arrivals in proptest::collection::vec((0_usize..6, 1_u32..12, 0_u64..20), 1..200),
            seats in 1_u32..10,
        ) {
            let mut world = World::new(seats, 6);
            let mut taken = [0.0; 6];
            for (flow, width, pause) in arrivals {
                let until = world.now + Duration::from_millis(pause);
                world.run(until, |_, _| {});
                world.now = world.now.max(until);
                if world.arrive(flow, Work::of(width)) {
                    taken[flow] += flow_time(flow).as_secs_f64() * f64::from(width);
                }
            }
            world.run(Duration::from_secs(1_000), |_, _| {});
            prop_assert_eq!(world.in_use, 0);
            prop_assert_eq!(world.set.waiting(), 0);
            for (served, taken) in world.served.iter().zip(taken) {
                prop_assert!((served - taken).abs() < 1e-6);
            }
            prop_assert!(world.set.queues().iter().all(|queue| queue.is_idle() && queue.seats_in_use == 0));
        }

        /// Taking requests out from anywhere leaves the rest in order.
        #[test]
        fn cancelled_requests_are_not_served(gone in proptest::collection::btree_set(0_usize..40, 0..40)) {
            let mut set = QueueSet::new(SHAPE, Duration::ZERO);
            let places: Vec<Place> =
                (0..40).map(|at| set.enqueue(at as u64 % 3, Work::ONE, false, at).unwrap()).collect();
            for at in &gone {
                prop_assert_eq!(set.cancel(places[*at]), Some(*at));
                prop_assert_eq!(set.cancel(places[*at]), None);
            }
            let mut served = Vec::new();
            while let Some((_, request)) = set.dispatch(|_| true) {
                served.push(request.item);
            }
            served.sort_unstable();
            let wanted: Vec<usize> = (0..40).filter(|at| !gone.contains(at)).collect();
            prop_assert_eq!(served, wanted);
        }
    }
}
