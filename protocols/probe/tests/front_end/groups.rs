//! Groups of consumers at a partition: made, taken from and settled where entries are applied.

use proptest::prelude::*;
use sabir_broker::{Caller, NewTopic};
use sabir_model::TopicConfig;

use crate::killed::OtherProcess;
use crate::node::{Lines, Node, SHARDS};

fn asks(client: &mut Lines, all: &[(&str, &str)]) {
    for (request, answer) in all {
        assert_eq!(client.ask(request), *answer, "{request}");
    }
}

#[test]
fn a_groups_consumers_take_acknowledge_and_claim_and_a_kill_changes_nothing() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = OtherProcess::start(data.path(), shards);
        let mut client = Lines::connect(node.address);
        asks(
            &mut client,
            &[
                ("CREATE t 2", "OK"),
                ("PUBLISH t 1 a", "OK 0"),
                ("GROUP t 1 g NEXT c 1", "ERR there is no such group"),
                ("GROUP t 1 g MAKE", "OK"),
                ("GROUP t 1 g MAKE", "ERR there is a subscription of that name"),
                ("GROUP t 0 g NEXT c 1", "ERR there is no such group"),
                ("PUBLISH t 1 b", "OK 1"),
                ("PUBLISH t 1 c", "OK 2"),
                ("PUBLISH t 1 d", "OK 3"),
                ("GROUP t 1 g NEXT one 3", "OK 0 1 2"),
                ("GROUP t 1 g NEXT two 3", "OK 3"),
                ("GROUP t 1 g NEXT two 3", "NIL"),
                ("GROUP t 1 g ACK 1", "OK 1"),
                ("GROUP t 1 g ACK 1", "OK 0"),
                ("GROUP t 1 g CLAIM two 0 0", "OK 1"),
                ("GROUP t 1 g CLAIM two 2 60000", "OK 0"),
                ("GROUP t 1 g RETURN 3", "OK 1"),
                ("GROUP t 1 other MAKE", "OK"),
                ("GROUP t 1 other NEXT c 1", "OK 0"),
            ],
        );
        let shown = ["0 two 2", "2 one 1", "OK 1 2 0 next 3"];
        client.send(&["GROUP t 1 g SHOW"]);
        assert_eq!(client.lines(), shown);
        node.kill();
        let node = OtherProcess::start(data.path(), shards);
        let mut client = Lines::connect(node.address);
        client.send(&["GROUP t 1 g SHOW"]);
        assert_eq!(client.lines(), shown, "consumers have names: what they hold is theirs over a start");
        asks(
            &mut client,
            &[
                ("GROUP t 1 g NEXT one 9", "OK 3"),
                ("GROUP t 1 g LEAVE two", "OK"),
                ("GROUP t 1 g LEAVE two", "NIL"),
                ("GROUP t 1 g SEEK 1", "OK"),
                ("GROUP t 1 g NEXT one 9", "OK 1"),
                ("GROUP t 1 other DROP", "OK"),
                ("GROUP t 1 other DROP", "ERR there is no such group"),
                ("GROUP t 1 other MAKE", "OK"),
                ("GROUP t 1 other NEXT c 9", "OK 0 1 2 3"),
            ],
        );
        node.kill();
        for _ in 0..2 {
            let node = Node::start(data.path(), shards);
            let mut client = node.connect();
            client.send(&["GROUP t 1 g SHOW"]);
            assert_eq!(client.lines(), ["1 one 1", "2 one 1", "3 one 2", "OK 0 3 0 next 4"]);
            let (status, shown) = node.http("GET", "/sabir/v1/topics/t", "");
            assert!(status == 200 && shown.contains(r#""name":"g","owner":"probe""#), "{shown}");
            node.stop();
        }
    }
}

#[test]
fn an_operator_removes_a_group_and_it_goes_with_its_topic() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path(), 1);
    let mut client = node.connect();
    asks(&mut client, &[("CREATE t 1", "OK"), ("GROUP t 0 g MAKE", "OK"), ("PUBLISH t 0 a", "OK 0")]);
    assert_eq!(node.http("DELETE", "/sabir/v1/topics/t/subscriptions/g", "").0, 204);
    let gone = "ERR there is no such group";
    asks(&mut client, &[("GROUP t 0 g NEXT c 1", gone), ("GROUP t 0 g MAKE", "OK")]);
    assert_eq!(node.http("DELETE", "/sabir/v1/topics/t", "").0, 204);
    asks(&mut client, &[("CREATE t 1", "OK"), ("GROUP t 0 g SHOW", gone), ("QUEUE q", "OK")]);
    let answer = client.ask("GROUP q 0 g MAKE");
    assert!(answer.starts_with("ERR the topic is a queue"), "{answer}");
    node.stop();
}

#[test]
fn a_topic_that_its_maker_keeps_from_clients_has_no_groups_of_theirs() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path(), 1);
    let kept = NewTopic {
        name: "kept".into(),
        partitions: 1,
        config: TopicConfig::default(),
        internal: true,
        unlike: false,
    };
    let broker = node.running().broker();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let making = async { broker.create_topics(&Caller::front_end("probe"), vec![kept]).await.remove(0) };
    runtime.block_on(making).unwrap();
    let mut client = node.connect();
    for words in ["MAKE", "NEXT c 1", "SHOW", "DROP"] {
        let answer = client.ask(&format!("GROUP kept 0 g {words}"));
        assert_eq!(answer, "ERR topic \"kept\": no client uses an internal topic", "{words}");
    }
    node.stop();
}

#[test]
fn a_group_has_so_many_consumers_and_no_more() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path(), 1);
    let mut client = node.connect();
    asks(&mut client, &[("CREATE t 1", "OK"), ("GROUP t 0 g MAKE", "OK"), ("PUBLISH t 0 a", "OK 0")]);
    asks(&mut client, &[("GROUP t 0 g NEXT c0 1", "OK 0")]);
    let others: Vec<_> = (1..1000).map(|consumer| format!("GROUP t 0 g NEXT c{consumer} 1")).collect();
    client.send(&others.iter().map(String::as_str).collect::<Vec<_>>());
    others.iter().for_each(|request| assert_eq!(client.line(), "NIL", "{request}"));
    let full = "ERR the group has too many consumers";
    asks(
        &mut client,
        &[
            ("GROUP t 0 g NEXT more 1", full),
            ("GROUP t 0 g CLAIM more 0 0", full),
            ("GROUP t 0 g CLAIM c1 0 0", "OK 1"),
            ("GROUP t 0 g LEAVE c2", "OK"),
            ("GROUP t 0 g CLAIM more 0 0", "OK 1"),
        ],
    );
    node.stop();
}

const GROUPS: [&str; 2] = ["g", "h"];
const CONSUMERS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Op {
    Publish(usize),
    Make(usize),
    Drop(usize),
    Next(usize, usize, usize),
    Ack(usize, usize),
    Return(usize, usize),
    Claim(usize, usize, usize),
    Seek(usize, usize),
    Leave(usize, usize),
    Kill,
}

fn op() -> impl Strategy<Value = Op> {
    let (group, consumer, offset) = (0..GROUPS.len(), 0..CONSUMERS.len(), 0..12usize);
    prop_oneof![
        4 => (1..4usize).prop_map(Op::Publish),
        3 => group.clone().prop_map(Op::Make),
        1 => group.clone().prop_map(Op::Drop),
        8 => (group.clone(), consumer.clone(), 1..4usize).prop_map(|(g, c, n)| Op::Next(g, c, n)),
        6 => (group.clone(), offset.clone()).prop_map(|(g, o)| Op::Ack(g, o)),
        4 => (group.clone(), offset.clone()).prop_map(|(g, o)| Op::Return(g, o)),
        3 => (group.clone(), consumer.clone(), offset.clone()).prop_map(|(g, c, o)| Op::Claim(g, c, o)),
        2 => (group.clone(), offset).prop_map(|(g, o)| Op::Seek(g, o)),
        1 => (group, consumer).prop_map(|(g, c)| Op::Leave(g, c)),
        1 => Just(Op::Kill),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Ready,
    Held(usize),
    Done,
}

/// A group as one would keep it: where each message stands, how often it was given out, and who is known.
#[derive(Default)]
struct Model {
    messages: Vec<(State, u32)>,
    known: [bool; CONSUMERS.len()],
}

impl Model {
    fn give(&mut self, at: usize, consumer: usize) {
        let (state, tries) = &mut self.messages[at];
        (*state, *tries) = (State::Held(consumer), *tries + 1);
    }

    fn next(&mut self, consumer: usize, most: usize) -> String {
        self.known[consumer] = true;
        let ready = |(_, (state, _)): &(usize, &(State, u32))| *state == State::Ready;
        let given: Vec<usize> =
            self.messages.iter().enumerate().filter(ready).map(|(at, _)| at).take(most).collect();
        given.iter().for_each(|at| self.give(*at, consumer));
        let offsets: Vec<_> = given.iter().map(ToString::to_string).collect();
        if offsets.is_empty() { "NIL".into() } else { format!("OK {}", offsets.join(" ")) }
    }

    /// Where a message stands, if a consumer has it.
    fn held(&mut self, at: usize) -> Option<&mut (State, u32)> {
        self.messages.get_mut(at).filter(|(state, _)| matches!(state, State::Held(_)))
    }

    fn end(&mut self, at: usize, state: State) -> String {
        let held = self.held(at).map(|held| held.0 = state);
        format!("OK {}", usize::from(held.is_some()))
    }

    fn claim(&mut self, consumer: usize, at: usize) -> String {
        self.known[consumer] = true;
        let is_held = self.held(at).is_some();
        if is_held {
            self.give(at, consumer);
        }
        format!("OK {}", usize::from(is_held))
    }

    /// What is ready again begins anew; so does all of a group that holds nothing.
    fn seek(&mut self, to: usize) -> String {
        let idle = !self.messages.iter().any(|(state, _)| matches!(state, State::Held(_)));
        for (at, (state, tries)) in self.messages.iter_mut().enumerate() {
            let before = *state;
            match before {
                State::Held(_) => continue,
                _ if at < to => *state = State::Done,
                _ => *state = State::Ready,
            }
            if idle || before != *state {
                *tries = 0;
            }
        }
        "OK".into()
    }

    fn leave(&mut self, consumer: usize) -> String {
        for (state, _) in &mut self.messages {
            if *state == State::Held(consumer) {
                *state = State::Done;
            }
        }
        if std::mem::take(&mut self.known[consumer]) { "OK".into() } else { "NIL".into() }
    }

    fn shown(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (at, (state, tries)) in self.messages.iter().enumerate() {
            if let State::Held(consumer) = state {
                lines.push(format!("{at} {} {tries}", CONSUMERS[*consumer]));
            }
        }
        let ready = self.messages.iter().filter(|(state, _)| *state == State::Ready).count();
        let next = self.messages.iter().position(|(state, _)| *state == State::Ready);
        let next = next.unwrap_or(self.messages.len());
        lines.push(format!("OK {ready} {} 0 next {next}", lines.len()));
        lines
    }
}

struct World {
    data: tempfile::TempDir,
    shards: u32,
    node: Option<OtherProcess>,
    client: Lines,
    published: usize,
    groups: [Option<Model>; GROUPS.len()],
}

impl World {
    fn new(shards: u32) -> Self {
        let data = tempfile::tempdir().unwrap();
        let node = OtherProcess::start(data.path(), shards);
        let mut client = Lines::connect(node.address);
        assert_eq!(client.ask("CREATE t 1"), "OK");
        Self { data, shards, node: Some(node), client, published: 0, groups: Default::default() }
    }

    fn do_one(&mut self, op: &Op) {
        let (group, words, expected) = match *op {
            Op::Publish(count) => {
                for _ in 0..count {
                    assert_eq!(self.client.ask("PUBLISH t 0 m"), format!("OK {}", self.published));
                    self.published += 1;
                    self.groups.iter_mut().flatten().for_each(|model| model.messages.push((State::Ready, 0)));
                }
                return;
            }
            Op::Kill => {
                self.node.take().unwrap().kill();
                let node = OtherProcess::start(self.data.path(), self.shards);
                self.client = Lines::connect(node.address);
                self.node = Some(node);
                return;
            }
            Op::Make(group) => {
                let answer = self.client.ask(&format!("GROUP t 0 {} MAKE", GROUPS[group]));
                match self.groups[group] {
                    Some(_) => assert!(answer.starts_with("ERR"), "{answer}"),
                    None => {
                        assert_eq!(answer, "OK");
                        let messages = vec![(State::Ready, 0); self.published];
                        self.groups[group] = Some(Model { messages, ..Model::default() });
                    }
                }
                return;
            }
            Op::Drop(group) => {
                let answer = self.client.ask(&format!("GROUP t 0 {} DROP", GROUPS[group]));
                assert_eq!(answer == "OK", self.groups[group].take().is_some(), "{answer}");
                return;
            }
            Op::Next(group, consumer, most) => (
                group,
                format!("NEXT {} {most}", CONSUMERS[consumer]),
                self.with(group, |model| model.next(consumer, most)),
            ),
            Op::Ack(group, at) => {
                (group, format!("ACK {at}"), self.with(group, |model| model.end(at, State::Done)))
            }
            Op::Return(group, at) => {
                (group, format!("RETURN {at}"), self.with(group, |model| model.end(at, State::Ready)))
            }
            Op::Claim(group, consumer, at) => (
                group,
                format!("CLAIM {} {at} 0", CONSUMERS[consumer]),
                self.with(group, |model| model.claim(consumer, at)),
            ),
            Op::Seek(group, to) => (group, format!("SEEK {to}"), self.with(group, |model| model.seek(to))),
            Op::Leave(group, consumer) => (
                group,
                format!("LEAVE {}", CONSUMERS[consumer]),
                self.with(group, |model| model.leave(consumer)),
            ),
        };
        let answer = self.client.ask(&format!("GROUP t 0 {} {words}", GROUPS[group]));
        assert_eq!(answer, expected, "{op:?}");
    }

    fn with(&mut self, group: usize, act: impl FnOnce(&mut Model) -> String) -> String {
        self.groups[group].as_mut().map_or_else(|| "ERR there is no such group".into(), act)
    }

    fn check(&mut self) {
        for (group, name) in GROUPS.iter().enumerate() {
            let Some(model) = &self.groups[group] else { continue };
            let expected = model.shown();
            self.client.send(&[&format!("GROUP t 0 {name} SHOW")]);
            let found: Vec<_> = expected.iter().map(|_| self.client.line()).collect();
            assert_eq!(found, expected, "{name}");
        }
    }
}

fn run(shards: u32, ops: &[Op]) {
    let mut world = World::new(shards);
    for op in ops {
        world.do_one(op);
        world.check();
    }
    world.do_one(&Op::Kill);
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 60, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_group_is_what_a_model_of_it_is_over_kills(ops in prop::collection::vec(op(), 1..60)) {
        run(1, &ops);
    }
}

#[test]
fn so_much_is_shown_of_a_group_that_holds_more() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path(), 1);
    let mut client = node.connect();
    assert_eq!(client.ask("CREATE t 1"), "OK");
    for at in 0..1500 {
        client.send(&[&format!("PUBLISH t 0 {at}")]);
    }
    (0..1500).for_each(|_| assert!(client.line().starts_with("OK ")));
    assert_eq!(client.ask("GROUP t 0 g MAKE"), "OK");
    for most in [1000, 400] {
        assert!(client.ask(&format!("GROUP t 0 g NEXT c {most}")).starts_with("OK "));
    }
    client.send(&["GROUP t 0 g SHOW"]);
    for at in 0..1000 {
        assert_eq!(client.line(), format!("{at} c 1"));
    }
    assert_eq!(client.line(), "OK 100 1400 0 next 1400");
    let long = "n".repeat(190);
    assert_eq!(client.ask("GROUP t 0 other MAKE"), "OK");
    assert!(client.ask(&format!("GROUP t 0 other NEXT {long} 1000")).starts_with("OK "));
    client.send(&["GROUP t 0 other SHOW"]);
    let shown = std::iter::repeat_with(|| client.line()).take_while(|line| !line.starts_with("OK ")).count();
    assert!((300..400).contains(&shown), "{shown}");
    node.stop();
}
