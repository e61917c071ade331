//! ListTransactions: the transactions there are.

use crate::wire::Str;

schema! {
    ListTransactions: ListTransactionsRequest => ListTransactionsResponse, versions 0..=2, flexible 0;

    ListTransactionsRequest {
        state_filters: Vec<Str> [0..],
        producer_id_filters: Vec<i64> [0..],
        duration_filter: i64 [1..] = -1,
        transactional_id_pattern: Option<Str> [2.., null 2..],
    }

    ListTransactionsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        unknown_state_filters: Vec<Str> [0..],
        transaction_states: Vec<ListedTransaction> [0..],
    }

    ListedTransaction {
        transactional_id: Str [0..],
        producer_id: i64 [0..],
        transaction_state: Str [0..],
    }
}
