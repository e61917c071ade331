//! What a protocol's end of a connection is to the driver.

use std::task::Context;

use sabir_base::outbox::Seat;
use tokio::time::Instant;

use super::Io;
use super::deadlines::Patience;
use super::ending::Ending;
use crate::connection::Limits;

/// A protocol's end of a connection.
pub trait Session {
    /// What others give it for its client, from any thread. [`Infallible`](std::convert::Infallible), where a client is sent nothing
    /// but answers.
    type Push: Send + 'static;

    /// Takes the place at which others reach it. Called once, before all else.
    fn opened(&mut self, _seat: Seat<Self::Push>) {}

    /// Takes what was pushed. Called before [`advance`](Self::advance) for all that has come, but not while the output is full.
    ///
    /// # Errors
    /// The connection ends.
    fn pushed(&mut self, push: Self::Push, io: &mut Io) -> Result<(), Ending>;

    /// Goes on with what is under way, takes what it can from the input, and puts what is to be sent into the output. Called in every
    /// turn of the connection; the connection has another turn when bytes come or go and when the waker of `cx` is woken. Says
    /// whether anything has moved.
    ///
    /// # Errors
    /// The connection ends.
    fn advance(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Result<bool, Ending>;

    /// How much it wants of what the socket has.
    fn appetite(&self, io: &Io) -> Appetite;

    /// What is under way.
    fn standing(&self) -> Standing;

    /// How long its client may keep the connection, doing what it does now.
    fn patience(&self, limits: &Limits) -> Patience;

    /// When it must have a turn at the latest. One that began then or later is that turn, whatever the session made of it.
    fn until(&self) -> Option<Instant> {
        None
    }

    /// The node drains, or is to end the connection while its client can be told: what waits for others is given up. It may have been answered
    /// meanwhile with what is nobody else's any more (a value that was taken), so that its client is to have that answer. Says whether such
    /// answers are still to come: then the session has turns, in which it begins nothing more, until its [standing](Self::standing) is no longer
    /// [`Working`](Standing::Working), for as long as the drain takes or five seconds, and [takes its leave](Self::close) behind that. It may be called
    /// again.
    fn give_up(&mut self) -> bool {
        false
    }

    /// The connection is to end: the session puts what is left to be said into the output, and says how long that is waited for. Not
    /// called where the client cannot be told, nor again while it takes its leave.
    fn close(&mut self, _why: &Ending, _io: &mut Io) -> Closing {
        Closing::Now
    }

    /// What the client calls itself, for the log.
    fn client(&self) -> &str;
}

/// What is under way on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: the client may be idle for too long.
    Idle,
    /// The client waits for what may come at any time: it is not idle, and its end is not waited for when the node drains or the client
    /// sends no more.
    Waiting,
    /// Something that the client waits for and that ends by itself: the connection does not end before.
    Working,
}

/// How much a session wants of what the socket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appetite {
    /// All of it, as far as there is memory.
    All,
    /// Only enough to have something to go on with.
    Little,
}

/// How a session takes its leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// At once; what is in the output is given up.
    Now,
    /// When the client has taken what is in the output.
    Flushed,
    /// When the session says so by an error, for which the client's answer is read; at the latest then.
    Until(Instant),
}
