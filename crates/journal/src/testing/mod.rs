//! A second replicator and the conformance suite both pass; for tests only.

mod late;
mod suite;

pub use late::{LateOptions, LateReplicator};
pub use suite::{Start, replicator_suite};

#[cfg(test)]
mod tests {
    use super::{LateOptions, LateReplicator, replicator_suite};
    use crate::Solo;

    #[test]
    fn solo_conforms() {
        replicator_suite(&|journal| Solo::start(journal).unwrap());
    }

    #[test]
    fn a_late_replicator_conforms() {
        for seed in 0..4 {
            let options = LateOptions { seed, auto: true, ..LateOptions::default() };
            replicator_suite(&move |journal| LateReplicator::start(journal, options).unwrap());
        }
    }
}
