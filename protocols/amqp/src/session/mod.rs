//! A connection as a machine: frames in; events for the handlers, and frames that need no handler, out. No I/O, no clock, no broker.
//!
//! A frame amounts to at most one event, which borrows from the frame: nothing is allocated for a message of one body frame. The
//! handlers answer with frames of their own ([`ConnectionMachine::reply`]), and with the steps that only they can take: who the client
//! is, whether it may open a virtual host, when a channel has been laid down.

mod channel;
mod event;
mod handshake;
mod heartbeat;
mod machine;

pub use channel::PublishedContent;
pub use event::{ChannelRequest, ClientEvent};
pub use handshake::{ConnectionOptions, HeaderFound, Tuning, protocol_header};
pub use heartbeat::{Heartbeat, HeartbeatDue};
pub use machine::ConnectionMachine;
