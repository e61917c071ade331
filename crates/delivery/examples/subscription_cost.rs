//! What a subscription costs: bytes of memory by kind of backlog, and nanoseconds of an operation.
//!
//! `cargo run --release -p sabir-delivery --example subscription_cost`

use std::time::Instant;

use sabir_delivery::dispatch::{
    Access, Credit, Deliveries, DemandMember, Demands, Dispatched, Dispatcher, FilterNo, GroupOrder,
    MemberNo, MessageFacts, Messages,
};
use sabir_delivery::subscription::{
    HeldBy, MessageOwner, Operation, OperationList, OperationsWriter, RangesBuffer, Settlement, Subscription,
    SubscriptionNo, SubscriptionPage, Terms,
};

const TERMS: Terms = Terms { owner: MessageOwner::Session(1), timeout_ms: 0, token: 0 };
const FENCE: HeldBy = HeldBy::Owner(MessageOwner::Session(1));

fn acquired(ranges: &RangesBuffer, session: u64) -> Operation<'_> {
    Operation::Acquired {
        ranges: ranges.ranges(),
        terms: Terms { owner: MessageOwner::Session(session), ..TERMS },
    }
}

fn settled(ranges: &RangesBuffer) -> Operation<'_> {
    Operation::Settled { ranges: ranges.ranges(), held_by: HeldBy::Any, why: Settlement::Acknowledged }
}

fn range(from: u64, len: u64) -> RangesBuffer {
    RangesBuffer::of(std::iter::once(from..from + len))
}

fn published(count: u32) -> Subscription {
    let mut subscription = Subscription::default();
    subscription.apply(&Operation::Published { count, transaction: None }, 0, &mut ());
    subscription
}

fn show(what: &str, subscription: &mut Subscription) {
    let (mut pages, mut page_bytes, mut dirty) = (0, 0, Vec::<SubscriptionPage>::new());
    subscription.take_dirty(|page| dirty.push(page));
    let mut out = Vec::new();
    for page in dirty {
        out.clear();
        pages += usize::from(subscription.encode_page(page, &mut out));
        page_bytes += out.len();
    }
    subscription.shrink();
    println!("{what:58} {:>12} B in memory, {page_bytes:>10} B in {pages} pages", subscription.bytes());
}

fn memory() {
    show("idle", &mut Subscription::default());
    let mut in_order = published(10_000_000);
    for from in (0..10_000_000).step_by(100) {
        let messages = range(from, 100);
        in_order.apply(&acquired(&messages, 1), from as i64 / 1_000, &mut ());
        in_order.apply(&settled(&messages), from as i64 / 1_000, &mut ());
    }
    show("10,000,000 published, taken and settled in order", &mut in_order);
    show("10,000,000 ready", &mut published(10_000_000));

    let mut holes = published(2_000_000);
    for from in (0..2_000_000).step_by(100) {
        holes.apply(&acquired(&range(from, 100), from / 100 % 8), from as i64 / 1_000, &mut ());
    }
    for offset in (0..2_000_000).step_by(2) {
        holes.apply(&settled(&range(offset, 1)), 2_000, &mut ());
    }
    show("1,000,000 unsettled, every other settled, runs of 100", &mut holes);

    let mut robin = published(1_000_000);
    for offset in 0..1_000_000 {
        robin.apply(&acquired(&range(offset, 1), offset % 8), offset as i64 / 100, &mut ());
    }
    show("1,000,000 in flight, one by one to 8 owners in turn", &mut robin);

    let mut returned = published(1_000_000);
    returned.apply(&acquired(&range(0, 1_000_000), 1), 0, &mut ());
    returned.apply(&Operation::Released { owner: TERMS.owner, counted: true }, 0, &mut ());
    show("1,000,000 returned at once", &mut returned);
}

fn timed(what: &str, count: u64, mut run: impl FnMut()) {
    let start = Instant::now();
    run();
    println!("{what:58} {:>8.1} ns", start.elapsed().as_nanos() as f64 / count as f64);
}

fn speed() {
    const N: u64 = 2_000_000;
    let mut subscription = Subscription::default();
    timed("publish, one message", N, || {
        for _ in 0..N {
            subscription.apply(&Operation::Published { count: 1, transaction: None }, 0, &mut ());
        }
    });
    let mut ranges = RangesBuffer::default();
    timed("acquire and settle, one message, in order", N, || {
        for offset in 0..N {
            ranges.clear();
            ranges.push(offset..offset + 1);
            subscription.apply(&acquired(&ranges, 1), offset as i64 / 100, &mut ());
            subscription.apply(&settled(&ranges), offset as i64 / 100, &mut ());
        }
    });
    let mut window = published(N as u32);
    timed("acquire, one message, 1,000 in flight before", N, || {
        for offset in 0..N {
            ranges.clear();
            ranges.push(offset..offset + 1);
            window.apply(&acquired(&ranges, 1), offset as i64 / 100, &mut ());
            if offset >= 1_000 && offset % 100 == 0 {
                let done = range(offset - 1_000, 100);
                window.apply(&settled(&done), offset as i64 / 100, &mut ());
            }
        }
    });
    settles_out_of_order(N);
    entries(N);
    dealing(N);
}

fn settles_out_of_order(messages: u64) {
    let mut window = published(messages as u32);
    window.apply(&acquired(&range(0, messages), 1), 0, &mut ());
    timed("settle, one message, pairs swapped, one run", messages, || {
        for offset in 0..messages {
            window.apply(&settled(&range(offset ^ 1, 1)), 0, &mut ());
        }
    });
}

fn entries(messages: u64) {
    let mut subscription = published(messages as u32);
    let (mut ranges, mut body) = (RangesBuffer::default(), Vec::new());
    timed("acquire and settle 50 in two entries, written and read, each", messages, || {
        for from in (0..messages).step_by(50) {
            ranges.clear();
            ranges.push(from..from + 50);
            for operation in [
                acquired(&ranges, 1),
                Operation::Settled { ranges: ranges.ranges(), held_by: FENCE, why: Settlement::Acknowledged },
            ] {
                body.clear();
                OperationsWriter::new(&mut body, false).push(SubscriptionNo(1), &operation);
                let list = OperationList::decode(&body).expect("just written");
                for (_, operation) in list.iter() {
                    subscription.apply(&operation, from as i64 / 100, &mut ());
                }
            }
        }
    });
}

/// Counts what is dealt, and keeps it in ranges.
#[derive(Default)]
struct Dealt(RangesBuffer);

impl Deliveries for Dealt {
    fn deliver(&mut self, dispatched: Dispatched) {
        self.0.push(dispatched.offset..dispatched.offset + 1);
    }
}

struct Plain;

impl Messages for Plain {
    fn facts(&mut self, _offset: u64) -> Option<MessageFacts> {
        Some(MessageFacts::default())
    }

    fn passes(&mut self, _filter: FilterNo, _offset: u64) -> bool {
        true
    }
}

/// Two consumers of one session, so that what is dealt is one range.
fn dealing(messages: u64) {
    let mut subscription = published(messages as u32);
    let mut dispatcher = Dispatcher::new(Access::Shared, GroupOrder::Free);
    let mut demands = Demands::default();
    for number in [1, 2] {
        let demand = demands.add(Credit::messages(Credit::UNLIMITED));
        let (number, owner) = (MemberNo(number), TERMS.owner);
        let member = DemandMember { number, demand, owner, priority: 0, filter: None, waits: false };
        dispatcher.attach(member, false).expect("nobody has it to itself");
    }
    let mut dealt = Dealt::default();
    timed("deal to two in turn, acquire and settle, 50 a round, each", messages, || {
        for _ in (0..messages).step_by(50) {
            dealt.0.clear();
            dispatcher.dispatch(&subscription, &mut demands, 0, 50, &mut Plain, &mut dealt);
            for operation in [acquired(&dealt.0, 1), settled(&dealt.0)] {
                subscription.apply(&operation, 0, &mut dispatcher);
                dispatcher.applied(&operation);
            }
        }
    });
    assert_eq!(subscription.floor(), messages);
}

fn main() {
    memory();
    speed();
}
