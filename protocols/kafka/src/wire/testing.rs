//! Random messages for the tests.

use bytes::Bytes;
use sabir_base::testing::Bits;

use super::primitives::{Cx, Nullable, Wire};
use super::{RecordData, Str, Uuid};

/// A seeded source of bits: the same seed gives the same messages.
pub struct Source(Bits);

impl Source {
    pub fn new(seed: u64) -> Self {
        Self(Bits(seed))
    }

    pub fn bits(&mut self) -> u64 {
        self.0.next()
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }
}

/// A type that random values can be made of, holding only what the version has.
pub trait Sample: Sized {
    fn sample(g: &mut Source, cx: Cx) -> Self;
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl Sample for $ty {
            fn sample(g: &mut Source, _: Cx) -> Self {
                let bits = g.bits();
                // Small ones, edges and anything.
                match bits & 7 {
                    0 => <$ty>::MAX,
                    1 => -1,
                    2..=4 => (bits >> 8) as $ty & 0x7f,
                    _ => (bits >> 8) as $ty,
                }
            }
        }
    )*};
}

integers!(i8, i16, i32, i64);

impl Sample for bool {
    fn sample(g: &mut Source, _: Cx) -> Self {
        g.bits() & 1 == 0
    }
}

impl Sample for Uuid {
    fn sample(g: &mut Source, _: Cx) -> Self {
        std::array::from_fn(|_| g.bits() as u8)
    }
}

impl Sample for Str {
    fn sample(g: &mut Source, _: Cx) -> Self {
        let text: String =
            (0..g.below(20)).map(|_| ['a', '-', '7', 'é', '漢'][g.below(5) as usize]).collect();
        Self::from(text)
    }
}

impl Sample for Bytes {
    fn sample(g: &mut Source, _: Cx) -> Self {
        let len = if g.below(8) == 0 { 5000 } else { g.below(200) };
        (0..len).map(|_| g.bits() as u8).collect()
    }
}

impl Sample for RecordData {
    fn sample(g: &mut Source, cx: Cx) -> Self {
        Self::from((0..g.below(4)).map(|_| Bytes::sample(g, cx)).collect::<Vec<_>>())
    }
}

impl<T: Sample + Wire> Sample for Vec<T> {
    fn sample(g: &mut Source, cx: Cx) -> Self {
        let element = Cx { nullable: false, ..cx };
        (0..g.below(4)).map(|_| T::sample(g, element)).collect()
    }
}

impl<T: Sample + Nullable> Sample for Option<T> {
    fn sample(g: &mut Source, cx: Cx) -> Self {
        if cx.nullable && g.below(4) == 0 { None } else { Some(T::sample(g, cx)) }
    }
}
