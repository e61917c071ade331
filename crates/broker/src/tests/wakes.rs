//! A commit wakes each I/O thread once, whatever waits there.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use sabir_base::outbox::Outbox;
use sabir_base::wake::{self, WakeBatch};

use super::registers::{REGISTERS, set};
use super::rig::{batch, create, item};
use super::sim::{Machine, Seam};
use crate::push::{Confirmation, Push};
use crate::{Broker, Caller, ProjectionEntry, ReadTarget, Topic};

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(SeqCst)
    }

    fn until(&self, times: usize) {
        let began = Instant::now();
        while self.times() < times {
            assert!(began.elapsed() < Duration::from_secs(30), "{} of {times}", self.times());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn poll<F: Future>(future: Pin<&mut F>, woken: &Arc<Woken>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(woken.clone())))
}

/// Watches all of a topic, and waits for what is appended and written, as the connections of one I/O thread do.
fn commit_once(machine: &Machine, broker: &Broker, topic: &Topic, thread: &Arc<Woken>) {
    let (shard, mut dispatch) = (broker.inner.shards[1].clone(), pin!(wake::dispatch()));
    assert!(poll(dispatch.as_mut(), thread).is_pending());
    let before = thread.times();
    let tasks: Vec<_> = (0..9).map(|_| Arc::<Woken>::default()).collect();
    let mut watches: Vec<_> = topic
        .partitions
        .iter()
        .map(|partition| Box::pin(broker.watch(&[ReadTarget::of(partition)], 1)))
        .collect();
    let mut appends: Vec<_> =
        (0..4).map(|at| Box::pin(broker.append(vec![item(topic, at, batch(&[b"x"], 1))]))).collect();
    let number = broker.projection("registers").unwrap();
    let (_, reply) = broker
        .write(&Caller::front_end("registers"), shard.id, number, &ProjectionEntry::new(set("k", b"v")))
        .unwrap();
    let mut reply = Box::pin(reply);
    for at in 0..4 {
        assert!(poll(watches[at].as_mut(), &tasks[at]).is_pending());
        assert!(poll(appends[at].as_mut(), &tasks[4 + at]).is_pending());
    }
    assert!(poll(reply.as_mut(), &tasks[8]).is_pending());
    assert_eq!(shard.in_flight(), 0);
    broker.flush();
    assert_eq!(shard.in_flight(), 1, "one block holds them all");
    // On another thread, as that which sees the completion mostly is.
    std::thread::scope(|scope| {
        scope.spawn(|| machine.freely(|| thread.until(before + 1)));
    });
    assert_eq!(thread.times(), before + 1, "the thread is woken once");
    assert!(tasks.iter().all(|task| task.times() == 0), "and wakes the tasks itself");
    assert!(poll(dispatch.as_mut(), thread).is_pending());
    assert!(tasks.iter().all(|task| task.times() == 1));
}

#[test]
fn a_commit_wakes_an_io_thread_once_for_all_that_waits_there() {
    let machine = Machine { projections: vec![REGISTERS], ..Machine::new(13, 1, Seam::Told) };
    let broker = machine.open();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let topic = machine.freely(|| runtime.block_on(create(&broker, "t", 4)));
    wake::register_io_thread();
    commit_once(&machine, &broker, &topic, &Arc::default());
    machine.freely(|| broker.shutdown());
}

#[test]
fn what_is_pushed_to_many_sessions_at_once_wakes_their_thread_once() {
    wake::register_io_thread();
    let thread = Arc::<Woken>::default();
    let mut dispatch = pin!(wake::dispatch());
    assert!(poll(dispatch.as_mut(), &thread).is_pending());
    let sessions: Vec<_> = (0..5).map(|_| (Outbox::new(), Arc::<Woken>::default())).collect();
    sessions.iter().for_each(|(outbox, task)| outbox.attend(&Waker::from(task.clone())));
    let seats: Vec<_> = sessions.iter().map(|(outbox, _)| outbox.seat()).collect();
    std::thread::spawn(move || {
        let mut wakes = WakeBatch::default();
        for number in 0..3 {
            for seat in &seats {
                assert!(
                    seat.push(Push::Confirmed(Confirmation { number, stored: true }), &mut wakes).is_ok()
                );
            }
        }
        wakes.deliver();
    })
    .join()
    .unwrap();
    assert_eq!(thread.times(), 1);
    assert!(poll(dispatch.as_mut(), &thread).is_pending());
    for (outbox, task) in &sessions {
        let mut taken = std::collections::VecDeque::new();
        outbox.take(&mut taken);
        assert_eq!((task.times(), taken.len()), (1, 3));
    }
}
