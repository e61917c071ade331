//! Batches of queues, unpacked by the workers.

use sabir_broker::queue::reader::{PackedBatch, Unpack, Unpacking};

use super::{JobCost, JobSize, Workers};

/// What one takes at most, as most do.
const MOST: usize = 128 << 20;

impl Unpack for Workers {
    fn unpack(&self, batch: PackedBatch) -> Unpacking {
        let workers = self.clone();
        let cost = JobCost { bytes: batch.limit().min(MOST), size: JobSize::Large };
        Box::pin(async move { workers.run(cost, move |_| batch.unpack()).await.flatten() })
    }
}
