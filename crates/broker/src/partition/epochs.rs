//! Where each leader epoch of a partition begins.

use sabir_model::{DecodeError, LeaderEpoch, Offset};

use crate::codec::{Reader, put_i64, put_len};

/// Leader epochs with the offset of their first record, both rising.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Epochs {
    starts: Vec<(LeaderEpoch, Offset)>,
}

impl Epochs {
    /// A record of `epoch` stands at `offset`, the next one.
    pub(crate) fn reached(&mut self, epoch: LeaderEpoch, offset: Offset) {
        if self.starts.last().is_none_or(|&(last, _)| last < epoch) {
            self.starts.push((epoch, offset));
        }
    }

    /// Forgets epochs that ended at or below `log_start`.
    pub(crate) fn start_at(&mut self, log_start: Offset) {
        let ended = self.starts.iter().skip(1).take_while(|&&(_, start)| start <= log_start).count();
        self.starts.drain(..ended);
        if let Some((_, start)) = self.starts.first_mut() {
            *start = (*start).max(log_start);
        }
    }

    /// The epoch that the record at `offset` was appended in.
    pub(crate) fn at(&self, offset: Offset) -> LeaderEpoch {
        let behind = self.starts.partition_point(|&(_, start)| start <= offset);
        let known = self.starts.get(behind.saturating_sub(1));
        known.map_or(LeaderEpoch::UNKNOWN, |&(epoch, _)| epoch)
    }

    /// The largest epoch not above `asked` and the offset behind its last record, where the leader is in epoch `current`
    /// and its next offset is `next`.
    pub(crate) fn end(
        &self,
        asked: LeaderEpoch,
        current: LeaderEpoch,
        next: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        if asked > current || asked.0 < 0 {
            return None;
        }
        if asked == current {
            return Some((asked, next));
        }
        let behind = self.starts.partition_point(|&(epoch, _)| epoch <= asked);
        let end = self.starts.get(behind).map_or(next, |&(_, start)| start);
        let epoch = behind.checked_sub(1).map_or(asked, |floor| self.starts[floor].0);
        Some((epoch, end))
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_len(out, self.starts.len());
        for (epoch, start) in &self.starts {
            put_i64(out, epoch.0.into());
            put_i64(out, start.0);
        }
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let starts = input.list(2, |input| Ok((LeaderEpoch(input.i32()?), input.offset()?)))?;
        Ok(Self { starts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs() -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, at) in [(1, 0), (1, 5), (3, 10), (4, 20)] {
            epochs.reached(LeaderEpoch(epoch), Offset(at));
        }
        epochs
    }

    #[test]
    fn finds_the_epoch_of_an_offset() {
        let found = [0, 9, 10, 19, 20, 99].map(|offset| epochs().at(Offset(offset)).0);
        assert_eq!(found, [1, 1, 3, 3, 4, 4]);
        assert_eq!(Epochs::default().at(Offset(0)), LeaderEpoch::UNKNOWN);
    }

    #[test]
    fn finds_the_end_of_an_epoch() {
        let end = |asked: i32| {
            epochs().end(LeaderEpoch(asked), LeaderEpoch(6), Offset(30)).map(|(e, o)| (e.0, o.0))
        };
        let ends = [0, 1, 2, 3, 4, 5, 6].map(end);
        let expected = [(0, 0), (1, 10), (1, 10), (3, 20), (4, 30), (4, 30), (6, 30)].map(Some);
        assert_eq!(ends, expected);
        assert_eq!((end(7), end(-1)), (None, None));
    }

    #[test]
    fn forgets_what_ended_below_the_log_start() {
        let mut epochs = epochs();
        epochs.start_at(Offset(12));
        assert_eq!(epochs.starts, [(LeaderEpoch(3), Offset(12)), (LeaderEpoch(4), Offset(20))]);
        epochs.start_at(Offset(25));
        assert_eq!(epochs.starts, [(LeaderEpoch(4), Offset(25))]);
    }
}
