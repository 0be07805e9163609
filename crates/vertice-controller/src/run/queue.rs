//! Which object is reconciled next: a pure queue, so that tests need neither time nor tasks.
//!
//! Rules: an object is never reconciled twice at once; events that arrive within the debounce window after the first one make
//! one reconcile (counted from the first, so that an object that changes all the time cannot starve); an event while the
//! object is being reconciled makes one more reconcile afterwards; a failed object waits longer each time, yet a new event
//! brings it forward (a person who fixes a spec does not wait five minutes), though never closer than the base backoff to
//! its last failure (a controller that triggers itself does not spin).

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    time::Duration,
};

use jiff::Timestamp;

use crate::backoff::Backoff;

/// Both readings of the clock, see [`crate::clock`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) wall: Timestamp,
    pub(crate) elapsed: Duration,
}

/// How one reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Outcome {
    /// Fine; look again at these times if nothing happens before.
    Done { at: Option<Timestamp>, after: Option<Duration> },
    /// Failed; `roll` is a random number in `0.0..=1.0` for the jitter.
    Failed { roll: f64 },
    /// The object no longer exists: everything known about it is dropped.
    Gone,
}

#[derive(Debug, Default)]
struct Entry {
    due: Option<Duration>,
    wake: Option<Timestamp>,
    running: bool,
    /// When an event arrived while the object was being reconciled.
    again: Option<Duration>,
    failures: u32,
    /// No start before this, see the module's rules.
    not_before: Duration,
}

#[derive(Debug)]
pub(crate) struct Queue<K> {
    entries: HashMap<K, Entry>,
    due: BTreeSet<(Duration, K)>,
    /// Those of `due` whose time had come at the last look, so that nobody has to count them.
    ready: BTreeSet<(Duration, K)>,
    wake: BTreeSet<(Timestamp, K)>,
    debounce: Duration,
    backoff: Backoff,
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    pub(crate) fn new(debounce: Duration, backoff: Backoff) -> Self {
        Self {
            entries: HashMap::new(),
            due: BTreeSet::new(),
            ready: BTreeSet::new(),
            wake: BTreeSet::new(),
            debounce,
            backoff,
        }
    }

    /// Something happened to `key`.
    pub(crate) fn trigger(&mut self, key: K, now: Now) {
        let at = now.elapsed.saturating_add(self.debounce);
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.running {
            entry.again.get_or_insert(at);
            return;
        }
        let at = at.max(entry.not_before);
        if entry.due.is_none_or(|due| at < due) {
            self.schedule(key, Some(at));
        }
    }

    /// The next object to reconcile, oldest first; it counts as running until [`Queue::finish`].
    pub(crate) fn pop(&mut self, now: Now) -> Option<K> {
        self.advance(now);
        let key = self.ready.first().map(|(_, key)| key.clone())?;
        self.schedule(key.clone(), None);
        self.schedule_wake(&key, None);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.running = true;
        }
        Some(key)
    }

    /// A reconcile of `key` ended; returns how many times in a row it has failed now.
    pub(crate) fn finish(&mut self, key: &K, outcome: Outcome, now: Now) -> u32 {
        let Some(entry) = self.entries.get_mut(key) else { return 0 };
        entry.running = false;
        let again = entry.again.take();
        let due = match outcome {
            Outcome::Gone => {
                self.forget(key);
                // An event during the last reconcile may be about a new object of the same name.
                if let Some(at) = again {
                    self.entries.entry(key.clone()).or_default();
                    self.schedule(key.clone(), Some(at));
                }
                return 0;
            }
            Outcome::Done { at, after } => {
                entry.failures = 0;
                entry.not_before = Duration::ZERO;
                self.schedule_wake(key, at);
                after.map(|after| now.elapsed.saturating_add(after))
            }
            Outcome::Failed { roll } => {
                entry.failures = entry.failures.saturating_add(1);
                entry.not_before = now.elapsed.saturating_add(self.backoff.base);
                Some(now.elapsed.saturating_add(self.backoff.delay(entry.failures, roll)))
            }
        };
        let Some(entry) = self.entries.get(key) else { return 0 };
        let (failures, not_before) = (entry.failures, entry.not_before);
        let again = again.map(|at| at.max(not_before));
        let first = [due, again].into_iter().flatten().min();
        self.schedule(key.clone(), first);
        failures
    }

    /// How long until [`Queue::pop`] has something; zero when it has now, `None` when nothing is planned.
    pub(crate) fn next(&self, now: Now) -> Option<Duration> {
        let due = self.ready.first().or(self.due.first()).map(|(at, _)| at.saturating_sub(now.elapsed));
        let wake = self.wake.first().map(|(at, _)| crate::clock::until(now.wall, *at).unwrap_or_default());
        [due, wake].into_iter().flatten().min()
    }

    /// How many objects could be reconciled now if a worker were free.
    pub(crate) fn depth(&mut self, now: Now) -> usize {
        self.advance(now);
        self.ready.len()
    }

    /// Finds those whose time has come.
    fn advance(&mut self, now: Now) {
        while let Some((_, key)) = self.wake.first().filter(|(at, _)| *at <= now.wall).cloned() {
            self.schedule_wake(&key, None);
            let due = self.entries.get(&key).and_then(|entry| entry.due);
            if due.is_none_or(|due| due > now.elapsed) {
                self.schedule(key, Some(now.elapsed));
            }
        }
        while self.due.first().is_some_and(|(at, _)| *at <= now.elapsed) {
            self.ready.extend(self.due.pop_first());
        }
    }

    /// Forgets what was running and every backoff: for a new leader, which starts from what it sees.
    pub(crate) fn reset(&mut self) {
        self.entries.clear();
        self.due.clear();
        self.ready.clear();
        self.wake.clear();
    }

    /// How many objects have state here.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn forget(&mut self, key: &K) {
        self.schedule(key.clone(), None);
        self.schedule_wake(key, None);
        self.entries.remove(key);
    }

    fn schedule(&mut self, key: K, at: Option<Duration>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(old) = entry.due.take() {
            let old = (old, key.clone());
            if !self.due.remove(&old) {
                self.ready.remove(&old);
            }
        }
        entry.due = at;
        if let Some(at) = at {
            self.due.insert((at, key));
        }
    }

    fn schedule_wake(&mut self, key: &K, at: Option<Timestamp>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(old) = entry.wake.take() {
            self.wake.remove(&(old, key.clone()));
        }
        entry.wake = at;
        if let Some(at) = at {
            self.wake.insert((at, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_mins(1) };

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn now(elapsed_ms: u64) -> Now {
        let wall = Timestamp::from_millisecond(1_000_000_000 + i64::try_from(elapsed_ms).unwrap()).unwrap();
        Now { wall, elapsed: ms(elapsed_ms) }
    }

    fn queue() -> Queue<&'static str> {
        Queue::new(ms(100), BACKOFF)
    }

    const AWAIT: Outcome = Outcome::Done { at: None, after: None };

    #[test]
    fn a_burst_makes_one_reconcile_at_the_end_of_the_window() {
        let mut queue = queue();
        for t in [0, 10, 20, 90, 99] {
            queue.trigger("a", now(t));
        }
        assert_eq!(queue.next(now(99)), Some(ms(1)));
        assert_eq!(queue.pop(now(99)), None);
        assert_eq!(queue.pop(now(100)), Some("a"));
        queue.finish(&"a", AWAIT, now(101));
        assert_eq!(queue.next(now(101)), None);
    }

    #[test]
    fn an_object_that_never_rests_is_reconciled_all_the_same() {
        let mut queue = queue();
        let mut reconciled = 0;
        for t in 0..1000 {
            queue.trigger("busy", now(t));
            if queue.pop(now(t)).is_some() {
                reconciled += 1;
                queue.finish(&"busy", AWAIT, now(t));
            }
        }
        assert_eq!(reconciled, 9);
    }

    #[test]
    fn no_object_runs_twice_at_once_and_an_event_meanwhile_is_not_lost() {
        let mut queue = queue();
        queue.trigger("a", now(0));
        assert_eq!(queue.pop(now(100)), Some("a"));
        queue.trigger("a", now(150));
        queue.trigger("a", now(160));
        assert_eq!(queue.pop(now(5000)), None);
        queue.finish(&"a", AWAIT, now(200));
        assert_eq!(queue.pop(now(249)), None);
        assert_eq!(queue.pop(now(250)), Some("a"));
        queue.finish(&"a", AWAIT, now(260));
        assert_eq!(queue.pop(now(9000)), None);
    }

    #[test]
    fn failures_back_off_exponentially_and_success_resets() {
        let mut queue = queue();
        queue.trigger("a", now(0));
        let mut t = 100;
        for (failures, wait) in [(1, 1000), (2, 2000), (3, 4000)] {
            assert_eq!(queue.pop(now(t)), Some("a"));
            assert_eq!(queue.finish(&"a", Outcome::Failed { roll: 1.0 }, now(t)), failures);
            assert_eq!(queue.pop(now(t + wait - 1)), None);
            t += wait;
        }
        assert_eq!(queue.pop(now(t)), Some("a"));
        assert_eq!(queue.finish(&"a", AWAIT, now(t)), 0);
        queue.trigger("a", now(t));
        assert_eq!(queue.pop(now(t + 100)), Some("a"));
        assert_eq!(queue.finish(&"a", Outcome::Failed { roll: 1.0 }, now(t + 100)), 1);
    }

    #[test]
    fn an_event_cuts_a_long_backoff_short_but_not_below_the_base() {
        let mut queue = queue();
        queue.trigger("a", now(0));
        queue.pop(now(100));
        for _ in 0..4 {
            queue.finish(&"a", Outcome::Failed { roll: 1.0 }, now(100));
        }
        assert_eq!(queue.next(now(100)), Some(ms(8000)));
        queue.trigger("a", now(200));
        assert_eq!(queue.next(now(100)), Some(ms(1000)));
        queue.trigger("a", now(1090));
        assert_eq!(queue.pop(now(1100)), Some("a"));
    }

    #[test]
    fn an_event_during_a_failing_reconcile_waits_for_the_base_backoff() {
        let mut queue = queue();
        queue.trigger("a", now(0));
        queue.pop(now(100));
        queue.trigger("a", now(120));
        queue.finish(&"a", Outcome::Failed { roll: 1.0 }, now(130));
        assert_eq!(queue.next(now(130)), Some(ms(1000)));
    }

    #[test]
    fn an_object_that_is_gone_leaves_nothing_behind() {
        let mut queue = queue();
        queue.trigger("a", now(0));
        queue.pop(now(100));
        queue.finish(&"a", Outcome::Failed { roll: 1.0 }, now(100));
        queue.pop(now(2000));
        queue.finish(&"a", Outcome::Gone, now(2000));
        assert_eq!(queue.len(), 0);
        assert_eq!(queue.next(now(2000)), None);
    }

    #[test]
    fn an_object_made_again_while_its_end_was_handled_is_reconciled() {
        let mut queue = queue();
        queue.trigger("a", now(0));
        queue.pop(now(100));
        queue.trigger("a", now(110));
        queue.finish(&"a", Outcome::Gone, now(120));
        assert_eq!(queue.pop(now(210)), Some("a"));
    }

    #[test]
    fn a_planned_instant_follows_the_wall_clock() {
        let mut queue = queue();
        queue.trigger("a", now(0));
        queue.pop(now(100));
        let at = now(60_000).wall;
        queue.finish(&"a", Outcome::Done { at: Some(at), after: Some(ms(3_600_000)) }, now(100));
        assert_eq!(queue.next(now(100)), Some(ms(59_900)));
        assert_eq!(queue.pop(now(59_999)), None);
        // The wall clock was stepped forward: the instant has come although less time has passed.
        let stepped = Now { wall: at, elapsed: ms(200) };
        assert_eq!(queue.depth(stepped), 1);
        assert_eq!(queue.pop(stepped), Some("a"));
        queue.finish(&"a", AWAIT, stepped);
        assert_eq!(queue.next(stepped), None, "the plan of the last reconcile replaces earlier ones");
    }

    #[test]
    fn an_early_event_replaces_the_planned_instant_with_the_new_plan() {
        let mut queue = queue();
        queue.trigger("a", now(0));
        queue.pop(now(100));
        queue.finish(&"a", Outcome::Done { at: Some(now(9000).wall), after: None }, now(100));
        queue.trigger("a", now(200));
        assert_eq!(queue.pop(now(300)), Some("a"));
        queue.finish(&"a", AWAIT, now(300));
        assert_eq!(queue.pop(now(9000)), None);
    }

    #[test]
    fn oldest_first_and_depth_counts_what_waits() {
        let mut queue = queue();
        queue.trigger("b", now(0));
        queue.trigger("a", now(5));
        queue.trigger("c", now(500));
        assert_eq!(queue.depth(now(105)), 2);
        assert_eq!(queue.pop(now(105)), Some("b"));
        assert_eq!(queue.depth(now(105)), 1);
        assert_eq!(queue.pop(now(105)), Some("a"));
        assert_eq!(queue.pop(now(105)), None);
    }

    #[test]
    fn a_reset_queue_ignores_reconciles_of_the_time_before() {
        let mut queue = queue();
        queue.trigger("a", now(0));
        queue.pop(now(100));
        queue.reset();
        queue.finish(&"a", Outcome::Failed { roll: 1.0 }, now(100));
        assert_eq!(queue.len(), 0);
    }
}
