//! Serves connections: each is a session on its socket, which asks the broker what its client asks for.

mod arguments;
mod asking;
mod attributes;
mod channel;
pub(crate) mod config;
mod confirms;
mod connection;
pub(crate) mod dead_letters;
pub(crate) mod delays;
mod deliver;
mod exclusive;
mod facts;
mod foreign;
mod frames;
pub(crate) mod frontend;
mod handlers;
mod login;
mod mandatory;
mod publish;
mod put_off;
pub(crate) mod records;
mod replies;
mod routes;
mod settling;
mod stored;
mod transaction;
mod unacked;
