//! DescribeTransactions: how transactions stand.

use crate::wire::Str;

schema! {
    DescribeTransactions: DescribeTransactionsRequest => DescribeTransactionsResponse, versions 0..=0, flexible 0;

    DescribeTransactionsRequest {
        transactional_ids: Vec<Str> [0..],
    }

    DescribeTransactionsResponse {
        throttle_time_ms: i32 [0..],
        transaction_states: Vec<DescribedTransaction> [0..],
    }

    DescribedTransaction {
        error_code: i16 [0..],
        transactional_id: Str [0..],
        transaction_state: Str [0..],
        transaction_timeout_ms: i32 [0..],
        transaction_start_time_ms: i64 [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        topics: Vec<TransactionTopic> [0..],
    }

    TransactionTopic {
        topic: Str [0..],
        partitions: Vec<i32> [0..],
    }
}
