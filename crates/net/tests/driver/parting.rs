//! What a session has to come for its client as the node ends the connection.

use std::sync::Mutex;
use std::task::Waker;

use super::*;

/// What a session waits for, and who is asked to give it.
#[derive(Default)]
struct Awaited {
    given_up: AtomicUsize,
    answer: Mutex<(Option<&'static str>, Option<Waker>)>,
}

impl Awaited {
    fn answer(&self, answer: &'static str) {
        let mut slot = self.answer.lock().unwrap();
        slot.0 = Some(answer);
        slot.1.take().into_iter().for_each(Waker::wake);
    }
}

/// Waits for an answer from its beginning on.
struct Waits {
    awaited: Arc<Awaited>,
    is_answered: bool,
    gives_up: bool,
    silence: Option<Duration>,
}

impl Session for Waits {
    type Push = Infallible;

    fn pushed(&mut self, push: Infallible, _: &mut Io) -> Result<(), Ending> {
        match push {}
    }

    fn advance(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let mut slot = self.awaited.answer.lock().unwrap();
        let Some(answer) = slot.0.take() else {
            slot.1 = Some(cx.waker().clone());
            return Ok(false);
        };
        io.output.push(Bytes::from_static(answer.as_bytes()));
        self.is_answered = true;
        Ok(true)
    }

    fn appetite(&self, _: &Io) -> Appetite {
        Appetite::Little
    }

    fn standing(&self) -> Standing {
        match self.is_answered {
            true => Standing::Idle,
            false if self.gives_up => Standing::Working,
            false => Standing::Waiting,
        }
    }

    fn patience(&self, _: &Limits) -> Patience {
        Patience { hello: None, idle: None, silence: self.silence }
    }

    fn give_up(&mut self) -> bool {
        if !std::mem::replace(&mut self.gives_up, true) {
            self.awaited.given_up.fetch_add(1, SeqCst);
        }
        !self.is_answered
    }

    fn close(&mut self, _: &Ending, io: &mut Io) -> Closing {
        io.output.push(Bytes::from_static(b"bye"));
        Closing::Flushed
    }

    fn client(&self) -> &str {
        "waits"
    }
}

/// A connection whose session waits, and is to end if its client is silent for so long.
fn waiting(silence: Option<Duration>) -> (Net, TcpStream, Arc<Awaited>) {
    let awaited = Arc::<Awaited>::default();
    let given = awaited.clone();
    let session = move || Waits { awaited: given.clone(), is_answered: false, gives_up: false, silence };
    let (net, address) = serve(NetOptions::default(), session);
    let stream = connect(address);
    until("it is served", || awaited.answer.lock().unwrap().1.is_some());
    (net, stream, awaited)
}

/// After how long its client is silent for too long, and what else closes it.
type CloseCase = (Option<Duration>, fn(&Net));

fn close_all(net: &Net, why: DropReason) {
    for open in net.registry().list() {
        net.registry().get(open.id).unwrap().close(why);
    }
}

#[test]
fn what_came_as_a_connection_is_to_end_is_told_before_its_last_words() {
    let cases: [CloseCase; 3] = [
        (None, |net| close_all(net, DropReason::Operator)),
        (None, |net| close_all(net, DropReason::TakenOver)),
        (Some(Duration::from_millis(100)), |_| {}),
    ];
    for (silence, close) in cases {
        let (net, stream, awaited) = waiting(silence);
        close(&net);
        until("it gives up", || awaited.given_up.load(SeqCst) == 1);
        // Another reason does not cut that short.
        close_all(&net, DropReason::Operator);
        awaited.answer("value ");
        assert_eq!(rest(&stream), "value bye");
    }
}

#[test]
fn so_it_is_as_the_node_drains_and_who_still_writes_reads_it() {
    let (net, mut stream, awaited) = waiting(None);
    // It is not read, and would reset what is closed.
    stream.write_all(&[b'x'; 100_000]).unwrap();
    let draining = std::thread::spawn(move || net.drain(PATIENCE));
    until("it gives up", || awaited.given_up.load(SeqCst) == 1);
    awaited.answer("value ");
    assert_eq!(rest(&stream), "value bye");
    drop(stream);
    assert_eq!(draining.join().unwrap().left, 0);
}

#[test]
fn who_is_not_answered_is_told_that_it_ends_in_time() {
    let (net, stream, _awaited) = waiting(None);
    close_all(&net, DropReason::Operator);
    assert_eq!(rest(&stream), "bye");
}
