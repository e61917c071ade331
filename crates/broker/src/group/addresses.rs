//! What groups take of the members' memory, by the address of the client that made each: one address takes half of it at the most, so that it
//! cannot shut out all others.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use sabir_delivery::group::Text;

/// Bytes by address; of those that have any.
#[derive(Debug, Default)]
pub(super) struct Addresses(Mutex<FxHashMap<Text, usize>>);

impl Addresses {
    /// What the groups take that clients of an address made.
    pub(super) fn bytes(&self, address: &Text) -> usize {
        self.0.lock().get(address).copied().unwrap_or(0)
    }

    /// A group of an address takes other bytes than before.
    pub(super) fn recount(&self, address: &Text, bytes: usize, before: usize) {
        if bytes == before {
            return;
        }
        let mut addresses = self.0.lock();
        let of_it = addresses.entry(address.clone()).or_default();
        *of_it = *of_it + bytes - before;
        if *of_it == 0 {
            addresses.remove(address);
        }
    }

    /// The address whose groups take most.
    pub(super) fn largest(&self) -> Option<Text> {
        let addresses = self.0.lock();
        addresses.iter().max_by_key(|(_, bytes)| **bytes).map(|(address, _)| address.clone())
    }
}
