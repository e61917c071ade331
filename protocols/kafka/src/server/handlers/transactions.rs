//! Transactions, which this broker does not have: there are none to be listed, and none to be begun.

use super::{Call, Reply, decode, first_error, once};
use crate::server::requests::{BadRequest, Request};
use crate::wire::messages::describe_transactions::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, DescribedTransaction,
};
use crate::wire::messages::list_transactions::{ListTransactionsRequest, ListTransactionsResponse};
use crate::wire::{ErrorCode, Str};

/// What a producer is told that looks for its transactions' coordinator. It is the one error that every client takes for final there,
/// librdkafka too, and with which Kafka's own shows its user the text.
pub(super) const NO_COORDINATOR: ErrorCode = ErrorCode::ClusterAuthorizationFailed;
/// What a producer is told that sends records of a transaction.
pub(super) const NO_TRANSACTIONS: ErrorCode = ErrorCode::UnsupportedVersion;
pub(super) const WHY_NOT: &str = "transactions are not served by this broker";

/// What Kafka calls the states of transactions.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

pub(super) fn list_transactions(request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: ListTransactionsRequest = decode(request)?;
    let unknown = |state: &&Str| !STATES.contains(&state.as_str());
    let unknown_state_filters = once(&body.state_filters, Clone::clone).filter(unknown).cloned().collect();
    let response = ListTransactionsResponse { unknown_state_filters, ..Default::default() };
    Ok(call.reply(&response, ErrorCode::None))
}

pub(super) fn describe_transactions(request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: DescribeTransactionsRequest = decode(request)?;
    let not_found = |id: &Str| {
        let error = match id.is_empty() {
            true => ErrorCode::InvalidRequest,
            false => ErrorCode::TransactionalIdNotFound,
        };
        DescribedTransaction { error_code: error.code(), transactional_id: id.clone(), ..Default::default() }
    };
    let transaction_states: Vec<_> = once(&body.transactional_ids, Clone::clone).map(not_found).collect();
    let error = first_error(transaction_states.iter().map(|state| state.error_code));
    let response = DescribeTransactionsResponse { transaction_states, ..Default::default() };
    Ok(call.reply(&response, error))
}
