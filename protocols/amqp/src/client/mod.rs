//! The client that the command line uses: messages to a queue and from it, and load.

mod bench;
mod link;
mod options;
mod tool;

pub(crate) use tool::CONNECTOR;
