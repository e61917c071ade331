//! Answers on their way to the socket. What a client leaves unread is counted against the node's frame memory.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Buf;
use sabir_net::{FrameMemory, Grant};

use crate::input::{FREE, NoMemory};
use crate::wire::Encoded;

/// Bytes written at once, or one run of records more: a fast reader of much would be written to for as long as it reads. With less,
/// it would be woken for each little.
const AT_ONCE: usize = 1 << 20;

/// Answers in order, written vectored: large runs of records go out from where they lie.
#[derive(Debug, Default)]
pub(crate) struct Output {
    answers: VecDeque<Encoded>,
    len: usize,
    grant: Option<Grant>,
}

impl Output {
    /// Takes over the memory that was granted for an answer.
    pub fn take_grant(&mut self, granted: Grant) {
        match &mut self.grant {
            Some(grant) => grant.absorb(granted),
            none => *none = Some(granted),
        }
    }

    /// Settles down to wait until the client reads on, or to rest.
    ///
    /// # Errors
    /// No memory is left for what it has not read.
    pub fn settle(&mut self, memory: &FrameMemory) -> Result<(), NoMemory> {
        if self.len <= FREE {
            self.grant = None;
            return Ok(());
        }
        let counted = match &mut self.grant {
            Some(grant) => grant.resize(self.len),
            none => {
                *none = memory.try_take(self.len);
                none.is_some()
            }
        };
        if counted { Ok(()) } else { Err(NoMemory) }
    }

    pub fn push(&mut self, answer: Encoded) {
        self.len += answer.len();
        self.answers.push_back(answer);
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.answers.front().map_or(&[], Buf::chunk)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for answer in &self.answers {
            if filled == dst.len() {
                break;
            }
            filled += answer.chunks_vectored(&mut dst[filled..]);
        }
        let mut bytes = 0;
        let enough = dst[..filled].iter().position(|slice| {
            bytes += slice.len();
            bytes >= AT_ONCE
        });
        enough.map_or(filled, |last| last + 1)
    }

    fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while let Some(answer) = self.answers.front_mut() {
            let step = count.min(answer.len());
            answer.advance(step);
            count -= step;
            if !answer.is_empty() {
                return;
            }
            self.answers.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::Writer;

    fn answer(head: &[u8], body: usize) -> Encoded {
        let mut w = Writer::new();
        w.put(head);
        w.put_shared(&Bytes::from(vec![b'x'; body]));
        w.finish()
    }

    #[test]
    fn what_is_not_read_is_counted() {
        let memory = FrameMemory::new(10 * FREE);
        let mut output = Output::default();
        output.push(answer(b"", FREE));
        output.settle(&memory).expect("little is held");
        assert_eq!(memory.granted(), 0);
        output.push(answer(b"", FREE));
        output.settle(&memory).expect("there is room");
        assert_eq!(memory.granted(), 2 * FREE);
        output.take_grant(memory.try_take(5 * FREE).expect("there is room"));
        output.settle(&memory).expect("there is room");
        assert_eq!(memory.granted(), 2 * FREE);
        output.push(answer(b"", 9 * FREE));
        assert_eq!(output.settle(&memory), Err(NoMemory));
        output.advance(10 * FREE);
        output.settle(&memory).expect("little is held");
        assert_eq!(memory.granted(), 0);
    }

    #[test]
    fn no_more_is_written_at_once_than_others_can_wait_for() {
        let mut output = Output::default();
        (0..5).for_each(|_| output.push(answer(b"head", AT_ONCE / 2)));
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = output.chunks_vectored(&mut slices);
        let bytes: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
        assert_eq!(bytes, AT_ONCE + 8);
    }

    #[test]
    fn all_bytes_leave_in_order_whatever_the_steps() {
        let mut whole = b"one".to_vec();
        whole.extend([b'x'; 5000]);
        whole.extend(b"two");
        for step in [1, 2, 3, 4, 4999, 5003, 5006] {
            let mut output = Output::default();
            output.push(answer(b"one", 5000));
            output.push(answer(b"two", 0));
            let mut seen = Vec::new();
            while !output.is_empty() {
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = output.chunks_vectored(&mut slices);
                let all: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
                assert_eq!(all.len(), output.remaining());
                let count = step.min(all.len());
                seen.extend_from_slice(&all[..count]);
                output.advance(count);
            }
            assert_eq!(seen, whole, "{step}");
            assert!(output.answers.is_empty());
        }
    }
}
