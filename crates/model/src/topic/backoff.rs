//! How long a message waits that came back, before it is delivered again.

use std::sync::Arc;

use sabir_base::varint::{put_u64, take_u32};

use crate::stored::{DecodeError, take_count, take_u8};

const STEPS: u8 = 0;
const EXPONENTIAL: u8 = 1;
const LINEAR: u8 = 2;

/// How long a message waits before it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Backoff {
    /// So many milliseconds before the first retry, the second and so on; the last one repeats. None: at once.
    Steps(Arc<[u32]>),
    /// The first delay, and a factor for each further retry, up to the longest.
    Exponential {
        /// Milliseconds before the first retry.
        first_ms: u32,
        /// The factor in percent; 200 doubles.
        percent: u32,
        /// The longest delay in milliseconds.
        longest_ms: u32,
    },
    /// The first delay, and as much more for each further retry, up to the longest.
    Linear {
        /// Milliseconds before the first retry.
        first_ms: u32,
        /// The longest delay in milliseconds.
        longest_ms: u32,
    },
}

impl Backoff {
    /// The most steps that a configuration may have.
    pub const MOST_STEPS: usize = 64;

    /// The delay before a retry, of which the first is 1.
    pub fn delay_ms(&self, retry: u32) -> u32 {
        match self {
            Self::Steps(steps) => {
                let place = (retry.max(1) as usize).min(steps.len());
                place.checked_sub(1).map_or(0, |place| steps[place])
            }
            Self::Exponential { first_ms, percent, longest_ms } => {
                grown(*first_ms, *percent, retry.saturating_sub(1), *longest_ms)
            }
            Self::Linear { first_ms, longest_ms } => first_ms.saturating_mul(retry.max(1)).min(*longest_ms),
        }
    }

    /// Appends the stored form: 0 · list of milliseconds, 1 · the first delay · the factor in percent · the longest delay, or
    /// 2 · the first delay · the longest delay.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Steps(steps) => {
                out.push(STEPS);
                put_u64(out, steps.len() as u64);
                steps.iter().for_each(|step| put_u64(out, (*step).into()));
            }
            Self::Exponential { first_ms, percent, longest_ms } => {
                out.push(EXPONENTIAL);
                [first_ms, percent, longest_ms].into_iter().for_each(|number| put_u64(out, (*number).into()));
            }
            Self::Linear { first_ms, longest_ms } => {
                out.push(LINEAR);
                [first_ms, longest_ms].into_iter().for_each(|number| put_u64(out, (*number).into()));
            }
        }
    }

    /// Takes one off the front of `input`.
    ///
    /// # Errors
    /// A kind of a newer version, a cut input, a number out of range.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match take_u8(input)? {
            STEPS => {
                let count = take_count(input, 1)?;
                let steps: Result<Arc<[u32]>, _> = (0..count).map(|_| take_u32(input)).collect();
                Ok(Self::Steps(steps?))
            }
            EXPONENTIAL => Ok(Self::Exponential {
                first_ms: take_u32(input)?,
                percent: take_u32(input)?,
                longest_ms: take_u32(input)?,
            }),
            LINEAR => Ok(Self::Linear { first_ms: take_u32(input)?, longest_ms: take_u32(input)? }),
            newer => Err(DecodeError::Version(newer)),
        }
    }
}

fn grown(first_ms: u32, percent: u32, times: u32, longest_ms: u32) -> u32 {
    let mut delay = u64::from(first_ms);
    for _ in 0..times {
        let next = delay * u64::from(percent) / 100;
        if next >= longest_ms.into() || next == delay {
            delay = next;
            break;
        }
        delay = next;
    }
    delay.min(longest_ms.into()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_taken_one_by_one_and_the_last_repeats() {
        let steps = Backoff::Steps([1_000, 5_000, 10_000].into());
        assert_eq!(
            [0, 1, 2, 3, 4, u32::MAX].map(|n| steps.delay_ms(n)),
            [1_000, 1_000, 5_000, 10_000, 10_000, 10_000]
        );
        assert_eq!(Backoff::Steps([].into()).delay_ms(3), 0);
    }

    #[test]
    fn exponential_delays_grow_to_the_longest() {
        let doubling = |first_ms, percent| Backoff::Exponential { first_ms, percent, longest_ms: 60_000 };
        assert_eq!(
            [1, 2, 3, 7, u32::MAX].map(|n| doubling(1_000, 200).delay_ms(n)),
            [1_000, 2_000, 4_000, 60_000, 60_000]
        );
        assert_eq!([1, u32::MAX].map(|n| doubling(1_000, 100).delay_ms(n)), [1_000, 1_000]);
        assert_eq!([1, u32::MAX].map(|n| doubling(0, 500).delay_ms(n)), [0, 0]);
        assert_eq!(doubling(90_000, 200).delay_ms(1), 60_000);
        assert_eq!(doubling(1_000, 50).delay_ms(u32::MAX), 0);
    }

    #[test]
    fn linear_delays_grow_by_the_first_one_to_the_longest() {
        let linear = |first_ms| Backoff::Linear { first_ms, longest_ms: 60_000 };
        assert_eq!(
            [0, 1, 2, 7, 61, u32::MAX].map(|n| linear(1_000).delay_ms(n)),
            [1_000, 1_000, 2_000, 7_000, 60_000, 60_000]
        );
        assert_eq!(linear(90_000).delay_ms(1), 60_000);
    }

    #[test]
    fn it_keeps_its_stored_form() {
        let steps = Backoff::Steps([300, 5].into());
        let doubling = Backoff::Exponential { first_ms: 1, percent: 200, longest_ms: 300 };
        let linear = Backoff::Linear { first_ms: 1, longest_ms: 300 };
        for (backoff, golden) in [
            (steps, &[0, 2, 0xac, 2, 5][..]),
            (doubling, &[1, 1, 0xc8, 1, 0xac, 2]),
            (linear, &[2, 1, 0xac, 2]),
        ] {
            let mut bytes = Vec::new();
            backoff.encode(&mut bytes);
            assert_eq!(bytes, golden);
            assert_eq!(Backoff::decode(&mut &golden[..]), Ok(backoff));
            for len in 0..golden.len() {
                assert_eq!(Backoff::decode(&mut &golden[..len]), Err(DecodeError::Truncated), "{len}");
            }
        }
        assert_eq!(Backoff::decode(&mut &[3, 0][..]), Err(DecodeError::Version(3)));
    }
}
