//! LEB128 varints, unsigned and zigzag, as Protocol Buffers and Kafka's records use them.

/// Why a varint could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VarintError {
    /// The input ended inside the varint.
    Truncated,
    /// More bits than the type holds.
    Overflow,
}

impl std::fmt::Display for VarintError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the input ends inside a varint",
            Self::Overflow => "a varint has more bits than its type",
        })
    }
}

impl std::error::Error for VarintError {}

/// Appends `value` to `out`: 1 to 10 bytes.
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` in zigzag form.
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Takes an unsigned varint off the front of `input`. Nearly all have one byte or two.
#[inline]
pub fn take_u64(input: &mut &[u8]) -> Result<u64, VarintError> {
    match *input {
        [only @ 0..0x80, rest @ ..] => {
            *input = rest;
            Ok(u64::from(*only))
        }
        [first, last @ 0..0x80, rest @ ..] => {
            *input = rest;
            Ok(u64::from(first & 0x7f) | u64::from(*last) << 7)
        }
        _ => take_longer(input),
    }
}

fn take_longer(input: &mut &[u8]) -> Result<u64, VarintError> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return Err(VarintError::Overflow);
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            *input = &input[i + 1..];
            return Ok(value);
        }
    }
    Err(if input.len() >= 10 { VarintError::Overflow } else { VarintError::Truncated })
}

/// Takes a zigzag varint off the front of `input`.
#[inline]
pub fn take_i64(input: &mut &[u8]) -> Result<i64, VarintError> {
    let raw = take_u64(input)?;
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// Takes an unsigned varint that must fit 32 bits.
#[inline]
pub fn take_u32(input: &mut &[u8]) -> Result<u32, VarintError> {
    u32::try_from(take_u64(input)?).map_err(|_| VarintError::Overflow)
}

/// Takes a zigzag varint that must fit 32 bits.
#[inline]
pub fn take_i32(input: &mut &[u8]) -> Result<i32, VarintError> {
    i32::try_from(take_i64(input)?).map_err(|_| VarintError::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_edges() {
        for value in [0, 1, -1, 63, -64, 64, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_i64(&mut out, value);
            put_u64(&mut out, value as u64);
            let mut input = out.as_slice();
            assert_eq!(take_i64(&mut input), Ok(value));
            assert_eq!(take_u64(&mut input), Ok(value as u64));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn refuses_what_is_cut_or_too_long() {
        assert_eq!(take_u64(&mut [0x80u8].as_slice()), Err(VarintError::Truncated));
        assert_eq!(take_u64(&mut [].as_slice()), Err(VarintError::Truncated));
        assert_eq!(take_u64(&mut [0xffu8; 11].as_slice()), Err(VarintError::Overflow));
        let mut out = Vec::new();
        put_u64(&mut out, 1 << 32);
        assert_eq!(take_u32(&mut out.as_slice()), Err(VarintError::Overflow));
    }
}
