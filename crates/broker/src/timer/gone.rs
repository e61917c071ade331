//! What an exchange keeps back goes with it: messages of exchanges that are gone are settled before their time.
//!
//! A message says which exchange keeps it back, by its number, so that one which has the name since has none of it: neither is it routed there when its time
//! comes, nor does anything of the new one's go. One thread looks through the queues of the shards that are led here when such an exchange is gone, and
//! when a shard is led, since a node may have died meanwhile: a piece at a time, whose messages are settled by one entry. That a message is looked at
//! twice, or has fired meanwhile, changes nothing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use sabir_model::Term;
use tracing::{error, info};

use super::alarm::Alarm;
use super::driver::TimerDriver;
use super::kept::KeptQueue;
use crate::caller::Caller;
use crate::catalog::Topic;
use crate::converter::DelayedAddress;
use crate::shard::Leading;

/// When it is tried again what could not be done.
const RETRY: Duration = Duration::from_secs(1);
/// Others have the disk and the processor between two pieces.
const PAUSE: Duration = Duration::from_millis(10);
/// What was on its way to an exchange as that went is stored by then; what comes later is dropped when it is due.
const LATE: Duration = Duration::from_secs(5);
/// How often it is looked whether it is time to end, while an entry is not decided.
const LOOKS: Duration = Duration::from_millis(100);

/// Tells of exchanges that kept messages back and are gone.
#[derive(Debug, Default)]
pub(crate) struct DelaysGone {
    /// How often there was something to look for.
    count: AtomicU64,
    alarm: Arc<Alarm>,
}

impl DelaysGone {
    /// One is gone.
    pub(crate) fn note(&self) {
        self.count.fetch_add(1, SeqCst);
        self.alarm.raise();
    }
}

impl Leading for DelaysGone {
    fn led(self: Arc<Self>, _: Term) {
        self.note();
    }

    fn laid_down(self: Arc<Self>) {}
}

/// Drops what exchanges kept back that are gone.
pub(crate) struct GoneDriver {
    timers: Arc<TimerDriver>,
    gone: Arc<DelaysGone>,
}

/// A queue, and which of its messages are to be looked at.
struct GoneSearch {
    queue: KeptQueue,
    messages: Range<u64>,
    dropped: u64,
    /// Whether it is for what was on its way while the exchange went.
    is_late: bool,
    not_before: Instant,
}

/// How a search stands.
enum SearchProgress {
    Done,
    /// It is gone on with, after a while.
    After(Duration),
}

impl GoneDriver {
    pub(crate) fn new(timers: Arc<TimerDriver>) -> Arc<Self> {
        let gone = timers.exchanges.delays_gone().clone();
        // Timers are told before it that their shard is led.
        for shard in &timers.shards {
            let leading: Arc<dyn Leading> = gone.clone();
            shard.lead_with(Arc::downgrade(&leading));
        }
        gone.note();
        Arc::new(Self { timers, gone })
    }

    /// What wakes the thread.
    pub(crate) fn alarm(&self) -> &Arc<Alarm> {
        &self.gone.alarm
    }

    /// Drops what is to be dropped until it is time to end.
    pub(crate) fn run(&self, has_ended: impl Fn() -> bool) {
        let (mut seen, mut searches) = (0, Vec::new());
        while !has_ended() {
            let gone = self.gone.count.load(SeqCst);
            if gone != seen {
                // What was looked at before may have been of one that is gone since.
                searches = self.searches();
                seen = gone;
            }
            let mut again: Option<Duration> = None;
            searches.retain_mut(|search| {
                let (shard, mut progress) = (search.queue.shard.clone(), SearchProgress::Done);
                shard.contain("drop delayed messages", || progress = self.go_on(search, &has_ended));
                if let SearchProgress::After(after) = progress {
                    again = again.into_iter().chain([after]).min();
                    return true;
                }
                search.tell();
                false
            });
            self.gone.alarm.wait(again);
        }
    }

    /// At a start there is nothing to read where no exchange has ever gone.
    fn searches(&self) -> Vec<GoneSearch> {
        if !self.timers.exchanges.has_lost_any() {
            return Vec::new();
        }
        let searched = |queue: KeptQueue| GoneSearch {
            messages: queue.offsets(),
            queue,
            dropped: 0,
            is_late: false,
            not_before: Instant::now(),
        };
        self.timers.kept_queues().into_iter().map(searched).collect()
    }

    fn go_on(&self, search: &mut GoneSearch, has_ended: impl Fn() -> bool) -> SearchProgress {
        let left = search.not_before.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return SearchProgress::After(left);
        }
        let GoneSearch { queue, messages, dropped, is_late, not_before } = search;
        if !queue.shard.timers.is_led() || queue.shard.is_stopped() {
            return SearchProgress::Done;
        }
        let looked = self
            .timers
            .look_through(queue, messages.clone(), |caller, address, _| self.is_gone(caller, address));
        let looked = match looked {
            Ok(looked) => looked,
            Err(error) => {
                error!(shard = %queue.shard.id, %error, "delayed messages of deleted exchanges are not dropped yet");
                return SearchProgress::After(RETRY);
            }
        };
        if !looked.meant.is_empty() {
            let (tell, told) = sync_channel(1);
            let settling = queue.settle(&looked.meant, move |outcome| {
                let _ = tell.try_send(outcome);
            });
            let settled = settling.is_ok().then(|| {
                loop {
                    match told.recv_timeout(LOOKS) {
                        Ok(outcome) => break outcome.ok(),
                        Err(RecvTimeoutError::Timeout) if !has_ended() => {}
                        Err(_) => break None,
                    }
                }
            });
            match settled.flatten() {
                Some(settled) => *dropped += settled,
                None => return SearchProgress::After(RETRY),
            }
        }
        messages.start = looked.next;
        match (messages.is_empty(), *is_late) {
            (false, _) => SearchProgress::After(PAUSE),
            (true, true) => SearchProgress::Done,
            (true, false) => {
                (*is_late, *not_before) = (true, Instant::now() + LATE);
                *messages = messages.end..u64::MAX;
                SearchProgress::After(LATE)
            }
        }
    }

    /// Whether the exchange is gone that keeps a message back. It is asked after the message was read: one that has published has been there.
    fn is_gone(&self, caller: &Caller, address: &DelayedAddress<'_>) -> bool {
        // The default one is always there.
        let DelayedAddress { exchange, exchange_id, .. } = *address;
        !exchange.is_empty() && self.timers.exchanges.is_gone(caller, exchange, exchange_id)
    }
}

impl GoneSearch {
    fn tell(&self) {
        if self.dropped > 0 {
            let Topic { name, namespace, .. } = &*self.queue.topic;
            info!(queue = %name, %namespace, messages = self.dropped, "dropped what deleted exchanges kept back");
        }
    }
}
