//! Whether this node leads the shard, and what it does only then.
//!
//! ```text
//!   Event::Leading ─► *started* proposed ─► applied: so is all that earlier leaders committed ─► led
//!   Event::Following ─► laid down
//! ```

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use sabir_base::wake::WakeBatch;
use sabir_journal::Priority;
use sabir_model::{NodeId, ShardFailure, Term};
use tracing::{info, warn};

use super::Shard;
use crate::answer::Waiter;
use crate::entry::Started;

/// How often a thread that waits for leadership looks whether the shard has stopped.
const LOOK: Duration = Duration::from_millis(10);

/// What only the leader of a shard does, beside its projections: deadlines, what waits for others, what is proposed by time.
///
/// Both are called one after the other and never at once, with no lock of the shard held, mostly on the thread that applies: they wait for
/// nothing. Each may come again without the other in between.
pub trait Leading: Send + Sync {
    /// This node leads in that term, and all that earlier leaders committed is applied.
    fn led(self: Arc<Self>, term: Term);

    /// It does not lead any more: what it did is of no effect from now on.
    fn laid_down(self: Arc<Self>);
}

/// The term of an announcement, and what became of it.
type Announced = Arc<Mutex<Option<(Term, Result<(), ShardFailure>)>>>;

/// What a shard knows of its leader.
#[derive(Default)]
pub(super) struct Leadership {
    state: Mutex<State>,
    changed: Condvar,
    /// Filled where the announcement ends, seen where the shard is driven.
    announced: Announced,
    /// Held while the parts that lead with it are told, so that they are told in order.
    telling: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The term that the replicator says this node leads in.
    leads: Option<Term>,
    /// The one that it is announced for, and all before it applied.
    led: Option<Term>,
    /// Whether it was led before in this run: what was sent since may be lost with a term's tail.
    was_led: bool,
    /// Whether it may be announced: not before the start is known to be good.
    taken_up: bool,
    /// Why it could not be announced.
    failed: Option<ShardFailure>,
    parts: Vec<Part>,
}

/// One that leads with the shard.
struct Part {
    leading: Weak<dyn Leading>,
    /// The term that it was told of last, if that goes on.
    told: Option<Term>,
}

impl State {
    /// Those that were not told yet of the term that is led.
    fn untold(&mut self) -> Vec<Arc<dyn Leading>> {
        self.parts.retain(|part| part.leading.strong_count() > 0);
        let (led, parts) = (self.led, self.parts.iter_mut());
        let untold = parts.filter(|part| led.is_some() && part.told != led);
        untold.filter_map(|part| part.leading.upgrade().inspect(|_| part.told = led)).collect()
    }

    /// Those that lead in a term that is laid down.
    fn told(&mut self) -> Vec<Arc<dyn Leading>> {
        let told = self.parts.iter_mut().filter_map(|part| part.told.take().and(part.leading.upgrade()));
        told.collect()
    }
}

impl Shard {
    /// From now on it is announced when this node leads.
    pub(crate) fn take_up(&self) {
        let leads = {
            let mut state = self.applies.leadership.state.lock();
            state.taken_up = true;
            state.leads
        };
        if let Some(term) = leads {
            self.announce(term);
            self.submit();
        }
    }

    /// Waits until this node leads and everything before is applied. Blocking.
    ///
    /// # Errors
    /// It does not lead, or could not say so.
    pub(crate) fn await_leadership(&self) -> Result<(), ShardFailure> {
        let mut state = self.applies.leadership.state.lock();
        loop {
            match (state.led, state.failed) {
                (Some(_), _) => return Ok(()),
                (None, Some(error)) => return Err(error),
                _ if self.is_stopped() => return Err(ShardFailure::StorageError),
                _ if !self.replicator.is_leader() => return Err(ShardFailure::NotLeader),
                _ => {
                    self.applies.leadership.changed.wait_for(&mut state, LOOK);
                }
            }
        }
    }

    /// Whether this node leads, and everything that earlier leaders committed is applied.
    pub(crate) fn is_led(&self) -> bool {
        self.applies.leadership.state.lock().led.is_some()
    }

    /// Has a part told from now on, and at once if this node leads.
    pub(crate) fn lead_with(&self, part: Weak<dyn Leading>) {
        self.applies.leadership.state.lock().parts.push(Part { leading: part, told: None });
        self.tell_led();
    }

    /// The replicator says that this node leads.
    pub(super) fn leads(&self, term: Term) {
        let mut state = self.applies.leadership.state.lock();
        (state.leads, state.failed) = (Some(term), None);
        let taken_up = state.taken_up;
        drop(state);
        if taken_up {
            self.announce(term);
        }
    }

    /// The replicator says that it does not.
    pub(super) fn follows(&self, leader: Option<NodeId>) {
        info!(shard = %self.id, leader = leader.map(|node| node.0), "this node leads the shard no more");
        let _telling = self.applies.leadership.telling.lock();
        let mut state = self.applies.leadership.state.lock();
        state.leads = None;
        state.led = None;
        let told = state.told();
        drop(state);
        self.end_waiting(None, ShardFailure::NotLeader);
        told.into_iter().for_each(|part| part.laid_down());
    }

    /// Says in the journal that this node leads; once that is applied, so is everything that earlier leaders committed.
    fn announce(&self, term: Term) {
        let (announced, raiser) = (self.applies.leadership.announced.clone(), self.applies.signal.raiser());
        let ended = move |done: Result<(), ShardFailure>, _: &mut WakeBatch| {
            *announced.lock() = Some((term, done));
            raiser.raise();
        };
        let clean = self.clean_start && !self.applies.leadership.state.lock().was_led;
        let body = Started { node: self.settings.node, clean };
        self.propose(Priority::Reserve, &body, Waiter::then(ended));
    }

    /// Goes on from an announcement that has ended.
    pub(super) fn settle_leadership(&self) {
        let Some((term, ended)) = self.applies.leadership.announced.lock().take() else { return };
        let mut state = self.applies.leadership.state.lock();
        if state.leads != Some(term) {
            return;
        }
        match ended {
            Ok(()) => {
                (state.led, state.was_led) = (Some(term), true);
                drop(state);
                self.applies.leadership.changed.notify_all();
                self.tell_led();
            }
            // It was cut off, and this node leads on.
            Err(ShardFailure::NotLeader) if self.replicator.is_leader() => {
                drop(state);
                self.announce(term);
            }
            Err(error) => {
                state.failed = Some(error);
                drop(state);
                self.applies.leadership.changed.notify_all();
                warn!(shard = %self.id, %error, "that this node leads could not be announced");
            }
        }
    }

    /// Tells each part once of the term that is led, whichever thread comes to tell: that of the term's start, or one that registers a part meanwhile.
    fn tell_led(&self) {
        let _telling = self.applies.leadership.telling.lock();
        let mut state = self.applies.leadership.state.lock();
        let (Some(term), untold) = (state.led, state.untold()) else { return };
        drop(state);
        untold.into_iter().for_each(|part| part.led(term));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<Option<Term>>>);

    impl Leading for Told {
        fn led(self: Arc<Self>, term: Term) {
            self.0.lock().push(Some(term));
        }

        fn laid_down(self: Arc<Self>) {
            self.0.lock().push(None);
        }
    }

    #[test]
    fn each_part_is_told_of_each_term_once_whenever_it_registers() {
        let (mut state, early, late) =
            (State::default(), Arc::new(Told::default()), Arc::new(Told::default()));
        let register = |state: &mut State, part: &Arc<Told>| {
            let leading: Arc<dyn Leading> = part.clone();
            state.parts.push(Part { leading: Arc::downgrade(&leading), told: None });
        };
        let tell = |state: &mut State| {
            let led = state.led;
            state.untold().into_iter().for_each(|part| part.led(led.expect("it is led")));
        };
        register(&mut state, &early);
        tell(&mut state);
        state.led = Some(Term(1));
        // Between the moment at which a term begins and its telling.
        register(&mut state, &late);
        tell(&mut state);
        tell(&mut state);
        state.led = None;
        state.told().into_iter().for_each(|part| part.laid_down());
        tell(&mut state);
        state.told().into_iter().for_each(|part| part.laid_down());
        state.led = Some(Term(2));
        tell(&mut state);
        let terms = [Some(Term(1)), None, Some(Term(2))];
        assert_eq!((&early.0.lock()[..], &late.0.lock()[..]), (&terms[..], &terms[..]));
    }
}
