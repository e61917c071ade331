//! Applying a list of operations, together or not at all.

use super::{OperationList, Subscription, SubscriptionNo, Touched};

/// Where the subscriptions of a shard are found.
pub trait Subscriptions {
    /// One of them.
    fn get(&self, number: SubscriptionNo) -> Option<&Subscription>;

    /// One of them, to be changed.
    fn get_mut(&mut self, number: SubscriptionNo) -> Option<&mut Subscription>;
}

/// Nothing of a strict list took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("operation {operation} of the list does not concern all that it names")]
pub struct ListRefused {
    /// The operation's place in the list.
    pub operation: usize,
}

/// Applies a list at its block's time. Tells how many messages were concerned.
///
/// A strict list is judged by the state before it, so no two operations of one should name the same message. In any other list what an operation
/// does not concern is passed over, and so is a subscription that is gone.
///
/// # Errors
/// A strict list of which one operation does not concern all that it names.
pub fn apply_list(
    list: &OperationList<'_>,
    subscriptions: &mut impl Subscriptions,
    time_ms: i64,
    out: &mut impl Touched,
) -> Result<u64, ListRefused> {
    if list.strict {
        let admitted =
            |(number, operation)| subscriptions.get(number).is_some_and(|s| s.admits(&operation, time_ms));
        if let Some(operation) = list.iter().position(|each| !admitted(each)) {
            return Err(ListRefused { operation });
        }
    }
    let mut concerned = 0;
    for (number, operation) in list.iter() {
        let Some(subscription) = subscriptions.get_mut(number) else { continue };
        out.subscription(number);
        concerned += subscription.apply(&operation, time_ms, out);
    }
    Ok(concerned)
}
