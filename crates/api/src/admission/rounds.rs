//! Mutating admission may go round twice: what one webhook changed, an earlier one wants to see.
//!
//! One [`Rounds`] belongs to one write. A plugin that changes an object on somebody else's word
//! (webhooks, policies) asks for a second round; then every plugin runs once more, and of the
//! webhooks and policies those that ran before, have `reinvocationPolicy: IfNeeded`, and whose
//! object was changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use skiff_object::Tree;

/// See the [module](self).
#[derive(Default)]
pub struct Rounds {
    is_second: AtomicBool,
    is_wanted: AtomicBool,
    plugins: Mutex<BTreeMap<&'static str, Callees>>,
}

/// What one plugin remembers of those it calls.
#[derive(Default)]
pub struct Callees {
    previous: BTreeSet<String>,
    again: BTreeSet<String>,
    left: Option<Tree>,
}

impl Callees {
    /// Everybody called so far who wants to be called again shall be.
    pub fn require_previous(&mut self) {
        self.again.append(&mut self.previous);
    }

    /// One who wants to be called again was called.
    pub fn add_previous(&mut self, uid: &str) {
        self.previous.insert(uid.to_owned());
    }

    /// Whether `uid` is to be called in the second round.
    pub fn wants(&self, uid: &str) -> bool {
        self.again.contains(uid)
    }

    /// Remembers the object as this plugin left it.
    pub fn leave(&mut self, object: &Tree) {
        self.left = Some(object.clone());
    }

    /// Whether somebody else changed the object since.
    pub fn is_changed(&self, object: &Tree) -> bool {
        self.left.as_ref().is_some_and(|left| left != object)
    }
}

impl Rounds {
    /// Whether this is the second round.
    pub fn is_second(&self) -> bool {
        self.is_second.load(Ordering::Relaxed)
    }

    /// Asks for a second round.
    pub fn ask(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
    }

    /// Goes into the second round, if one was asked for.
    pub(super) fn advance(&self) -> bool {
        let goes = self.is_wanted.load(Ordering::Relaxed) && !self.is_second();
        self.is_second.store(goes || self.is_second(), Ordering::Relaxed);
        goes
    }

    /// What a plugin remembers; not to be held across a wait.
    pub fn with<T>(&self, plugin: &'static str, work: impl FnOnce(&mut Callees) -> T) -> T {
        work(self.plugins.lock().entry(plugin).or_default())
    }
}
