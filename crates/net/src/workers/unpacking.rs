//! Batches of queues, unpacked by the workers.

use sabir_broker::queue::reader::{PackedBatch, Unpack, Unpacking};

use super::{JobCost, JobSize, Workers};

/// What one takes, as most do.
const COST: JobCost = JobCost { bytes: 128 << 20, size: JobSize::Large };

impl Unpack for Workers {
    fn unpack(&self, batch: PackedBatch) -> Unpacking {
        let workers = self.clone();
        Box::pin(async move { workers.run(COST, move |_| batch.unpack()).await.flatten() })
    }
}
