//! Answers on their way to the socket.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Buf;

use crate::wire::Encoded;

/// Answers in order, written vectored: large runs of records go out from where they lie.
#[derive(Debug, Default)]
pub(crate) struct Output {
    answers: VecDeque<Encoded>,
    len: usize,
}

impl Output {
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
        filled
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
