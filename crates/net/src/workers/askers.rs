//! The connections that ask for jobs: by address, how long the workers have worked for it, and by connection, whether its small jobs prove to be what they seem.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::JobSize;

/// How many small jobs have to be cheap until a connection whose job was dear is believed again.
const BELIEVED_AFTER: u8 = 8;

/// How long workers have worked for an address, in nanoseconds, by the size of the jobs. An address that comes, or comes back, is taken
/// to have had as much as the one that had the last turn: it goes before those that had more, and catches nothing up.
#[derive(Debug, Default)]
pub(super) struct AddressUse {
    had: [AtomicU64; JobSize::COUNT],
    at: Option<(Arc<Addresses>, IpAddr)>,
}

impl AddressUse {
    pub(super) fn of(&self, size: JobSize) -> u64 {
        self.had[size as usize].load(Relaxed)
    }

    pub(super) fn raise_to(&self, size: JobSize, least: u64) {
        self.had[size as usize].fetch_max(least, Relaxed);
    }

    pub(super) fn add(&self, size: JobSize, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.had[size as usize].fetch_add(took, Relaxed);
    }
}

impl Drop for AddressUse {
    fn drop(&mut self) {
        if let Some((addresses, ip)) = &self.at {
            addresses.forget_unused(*ip);
        }
    }
}

/// Addresses with connections, or with jobs of these.
#[derive(Debug, Default)]
pub(super) struct Addresses(Mutex<HashMap<IpAddr, Weak<AddressUse>>>);

impl Addresses {
    fn find(self: &Arc<Self>, ip: IpAddr) -> Arc<AddressUse> {
        let mut addresses = self.0.lock();
        let known = addresses.entry(ip).or_default();
        known.upgrade().unwrap_or_else(|| {
            let new = Arc::new(AddressUse { had: Default::default(), at: Some((self.clone(), ip)) });
            *known = Arc::downgrade(&new);
            new
        })
    }

    fn forget_unused(&self, ip: IpAddr) {
        let mut addresses = self.0.lock();
        if addresses.get(&ip).is_some_and(|address| address.strong_count() == 0) {
            addresses.remove(&ip);
        }
    }
}

/// A connection, or the node itself.
#[derive(Debug)]
pub(super) struct Asker {
    address: Arc<AddressUse>,
    /// How many small jobs must be cheap until the next goes with the small ones.
    unproved: AtomicU8,
}

impl Asker {
    /// The node.
    pub(super) fn node() -> Self {
        Self { address: Arc::default(), unproved: AtomicU8::new(0) }
    }

    /// A connection that nothing is known of.
    pub(super) fn connection(addresses: &Arc<Addresses>, ip: IpAddr) -> Self {
        Self { address: addresses.find(ip.to_canonical()), unproved: AtomicU8::new(1) }
    }

    pub(super) fn address(&self) -> &Arc<AddressUse> {
        &self.address
    }

    /// With which jobs one goes that seems small: that of a connection which is not known yet does not go before those of connections that are, and that
    /// of one whose jobs were dear not before those that seem to take as long as these did.
    pub(super) fn size_of_small(&self) -> JobSize {
        match self.unproved.load(Relaxed) {
            0 => JobSize::Small,
            1 => JobSize::Modest,
            _ => JobSize::Medium,
        }
    }

    /// A job that seemed small has shown what it takes.
    pub(super) fn proved(&self, is_dear: bool) {
        if is_dear {
            self.unproved.store(BELIEVED_AFTER, Relaxed);
        } else {
            let _ = self.unproved.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_new_or_was_dear_proves_itself_before_it_goes_first() {
        let asker = Asker::connection(&Arc::default(), IpAddr::from([127, 0, 0, 1]));
        assert_eq!(asker.size_of_small(), JobSize::Modest);
        asker.proved(false);
        assert_eq!(asker.size_of_small(), JobSize::Small);
        asker.proved(false);
        asker.proved(true);
        for _ in 1..BELIEVED_AFTER {
            assert_eq!(asker.size_of_small(), JobSize::Medium);
            asker.proved(false);
        }
        assert_eq!(asker.size_of_small(), JobSize::Modest);
        asker.proved(false);
        assert_eq!(asker.size_of_small(), JobSize::Small);
        assert_eq!(Asker::node().size_of_small(), JobSize::Small);
    }

    #[test]
    fn connections_of_an_address_share_its_use_and_none_is_kept_of_one_without() {
        let addresses = Arc::<Addresses>::default();
        let connect = |ip: &str| Asker::connection(&addresses, ip.parse().unwrap());
        let (one, same, other) = (connect("127.0.0.1"), connect("::ffff:127.0.0.1"), connect("127.0.0.2"));
        one.address().add(JobSize::Small, Duration::from_nanos(7));
        assert_eq!(same.address().of(JobSize::Small), 7);
        assert_eq!(other.address().of(JobSize::Small), 0);
        drop(one);
        assert_eq!(addresses.0.lock().len(), 2);
        drop((same, other));
        assert!(addresses.0.lock().is_empty());
    }
}
