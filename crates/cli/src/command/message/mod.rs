//! `sabir message`.

mod ending;
mod filter;
mod ignored;
mod lines;
mod publish;
mod read;
mod show;

use sabir_server::client::{ClientError, Failure};

use super::block_on;
use crate::args::ClientArgs;
use crate::args::message::MessageCommand;
use crate::failure::CliError;

pub fn run(command: MessageCommand, client: &ClientArgs) -> Result<(), CliError> {
    block_on(async {
        match command {
            MessageCommand::Publish(args) => publish::run(args, client).await,
            MessageCommand::Read(args) => read::run(args.into(), client).await,
            MessageCommand::Tail(args) => read::run(args.into(), client).await,
        }
    })
}

fn no_partition(topic: &str, partition: i32) -> ClientError {
    ClientError::new(Failure::NotFound, format!("{topic} has no partition {partition}"))
}
