//! What a simulated file holds: a sparse map of sectors, cheap to clone.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::SECTOR;

/// Content by sector; one that is absent is zero.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    sectors: BTreeMap<u64, Arc<[u8; SECTOR]>>,
}

impl Image {
    pub(super) fn read(&self, pos: u64, buf: &mut [u8]) {
        for_each_sector(pos, buf.len(), |sector, at, range| {
            let target = &mut buf[range.clone()];
            match self.sectors.get(&sector) {
                Some(content) => target.copy_from_slice(&content[at..at + range.len()]),
                None => target.fill(0),
            }
        });
    }

    pub(super) fn write(&mut self, pos: u64, data: &[u8]) {
        for_each_sector(pos, data.len(), |sector, at, range| {
            let content = self.sectors.entry(sector).or_insert_with(|| Arc::new([0; SECTOR]));
            let content = Arc::make_mut(content);
            content[at..at + range.len()].copy_from_slice(&data[range]);
            // Zeroed files stay as small as new ones.
            if content.iter().all(|&b| b == 0) {
                self.sectors.remove(&sector);
            }
        });
    }
}

/// Calls with each sector's number, the place in it, and the part of the buffer that belongs there.
fn for_each_sector(pos: u64, len: usize, mut each: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let here = pos + done as u64;
        let at = (here % SECTOR as u64) as usize;
        let n = (SECTOR - at).min(len - done);
        each(here / SECTOR as u64, at, done..done + n);
        done += n;
    }
}
