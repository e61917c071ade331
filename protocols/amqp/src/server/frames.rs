//! Frames that were taken off the input.

use bytes::Bytes;
use sabir_net::{Ending, Grant, Io, NoMemory};

use crate::wire::{ConnectionException, Whole, whole_frames};

/// What is so small is not counted while it waits.
const SMALL: usize = 4096;

/// Whole frames that came together, as far as they are not handled.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Bytes,
    grant: Option<Grant>,
    /// Whether they hold nothing but their own bytes.
    detached: bool,
}

/// Whether there are frames to handle.
pub(super) enum Filled {
    /// There are.
    Yes,
    /// A frame has not come whole.
    No,
}

impl Frames {
    /// Takes all whole frames off the input, if none are left.
    pub(super) fn fill(
        &mut self,
        io: &mut Io,
        frame_max: u32,
    ) -> Result<Result<Filled, ConnectionException>, Ending> {
        if !self.bytes.is_empty() {
            return Ok(Ok(Filled::Yes));
        }
        match whole_frames(&io.input.bytes, frame_max) {
            Err(exception) => Ok(Err(exception)),
            Ok(Whole::Frames(len)) => {
                *self = Self { bytes: io.take_passing_frame(len), ..Self::default() };
                Ok(Ok(Filled::Yes))
            }
            Ok(Whole::Need(need)) => {
                io.need(need)?;
                Ok(Ok(Filled::No))
            }
        }
    }

    /// What is left.
    pub(super) fn left(&self) -> Bytes {
        self.bytes.clone()
    }

    /// The first `handled` bytes have been.
    pub(super) fn handled(&mut self, handled: usize) {
        if handled == self.bytes.len() {
            *self = Self::default();
        } else {
            bytes::Buf::advance(&mut self.bytes, handled);
        }
    }

    /// What is left has to wait: it is copied, so that it takes no more memory than it has bytes, and counted.
    pub(super) fn wait(&mut self, io: &mut Io) -> Result<(), NoMemory> {
        if !self.bytes.is_empty() && !self.detached {
            self.bytes = Bytes::copy_from_slice(&self.bytes);
            self.detached = true;
            if self.bytes.len() > SMALL {
                self.grant = io.input.grant_for(self.bytes.len(), &io.limits.frame_memory)?;
            }
        }
        Ok(())
    }
}
