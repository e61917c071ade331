//! Random methods, tables and properties for the tests.

use sabir_base::testing::Bits;

use super::*;

/// A seeded source of bits (splitmix64): the same seed gives the same samples. What they borrow is in its pools.
pub(crate) struct Source<'a> {
    state: u64,
    pools: &'a Pools,
}

/// What samples borrow.
#[derive(Default)]
pub(crate) struct Pools {
    texts: Vec<String>,
    tables: Vec<FieldTableBuf>,
}

impl Pools {
    /// Texts, and tables whose names are in order and differ, as the other implementation keeps them.
    pub fn new(seed: u64) -> Self {
        let mut g = Bits(seed);
        let texts = (0..30).map(|n| text(&mut g, n)).collect();
        let mut pools = Self { texts, tables: vec![FieldTableBuf::new()] };
        for _ in 0..8 {
            let table = table(&mut g, &pools);
            pools.tables.push(table);
        }
        pools
    }
}

fn text(g: &mut Bits, number: u64) -> String {
    let most = if number == 0 { 120 } else { 12 };
    (0..g.below(most)).map(|_| ['a', '-', '7', 'é', '漢'][g.below(5) as usize]).collect()
}

fn table(g: &mut Bits, pools: &Pools) -> FieldTableBuf {
    let mut table = FieldTableBuf::new();
    for n in 0..g.below(20) {
        let name = format!("{n:02}{}", pools.texts[g.below(10) as usize + 1]);
        table.push(ShortStr::cut(&name).into(), value(g, pools, n));
    }
    table
}

/// A value of any type. Signed 64-bit numbers are those of `l`.
fn value<'a>(g: &mut Bits, pools: &'a Pools, n: u64) -> FieldValue<'a> {
    let bits = g.next();
    let text = pools.texts[g.below(30) as usize].as_bytes();
    match n % 17 {
        0 => FieldValue::Bool(bits & 1 == 0),
        1 => FieldValue::I8(bits as i8),
        2 => FieldValue::U8(bits as u8),
        3 => FieldValue::I16(bits as i16),
        4 => FieldValue::U16(bits as u16),
        5 => FieldValue::I32(bits as i32),
        6 => FieldValue::U32(bits as u32),
        7 => FieldValue::I64(bits as i64),
        8 => FieldValue::F32((bits as i16).into()),
        9 => FieldValue::F64((bits as i32).into()),
        10 => FieldValue::Decimal { scale: bits as u8, value: (bits >> 8) as u32 },
        11 => FieldValue::LongStr(text),
        12 => FieldValue::Timestamp(bits),
        13 => FieldValue::Binary(text),
        14 => FieldValue::Table(pools.tables[g.below(pools.tables.len() as u64) as usize].as_table()),
        15 => FieldValue::Array(FieldArray::from_values(b"V").expect("one value")),
        _ => FieldValue::Void,
    }
}

impl<'a> Source<'a> {
    pub fn new(seed: u64, pools: &'a Pools) -> Self {
        Self { state: seed, pools }
    }

    pub fn bits(&mut self) -> u64 {
        let mut bits = Bits(self.state);
        let next = bits.next();
        self.state = bits.0;
        next
    }

    fn text(&mut self) -> &'a str {
        &self.pools.texts[self.bits() as usize % self.pools.texts.len()]
    }
}

/// A type that random values can be made of.
pub(crate) trait Sample<'a> {
    fn sample(g: &mut Source<'a>) -> Self;
}

macro_rules! numbers {
    ($($number:ident),*) => {$(
        impl<'a> Sample<'a> for $number {
            fn sample(g: &mut Source<'a>) -> Self {
                match g.bits() & 3 {
                    0 => 0,
                    1 => $number::MAX,
                    _ => g.bits() as $number,
                }
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64);

impl<'a> Sample<'a> for bool {
    fn sample(g: &mut Source<'a>) -> Self {
        g.bits() & 1 == 0
    }
}

impl<'a> Sample<'a> for &'a [u8] {
    fn sample(g: &mut Source<'a>) -> Self {
        g.text().as_bytes()
    }
}

impl<'a> Sample<'a> for ShortStr<'a> {
    fn sample(g: &mut Source<'a>) -> Self {
        ShortStr::cut(g.text())
    }
}

impl<'a> Sample<'a> for ShortBytes<'a> {
    fn sample(g: &mut Source<'a>) -> Self {
        ShortStr::cut(g.text()).into()
    }
}

impl<'a> Sample<'a> for FieldTable<'a> {
    fn sample(g: &mut Source<'a>) -> Self {
        g.pools.tables[g.bits() as usize % g.pools.tables.len()].as_table()
    }
}

impl<'a, T: Sample<'a>> Sample<'a> for Option<T> {
    fn sample(g: &mut Source<'a>) -> Self {
        if g.bits() & 1 == 0 { None } else { Some(T::sample(g)) }
    }
}

/// Properties, any of which may be there.
pub(crate) fn properties<'a>(g: &mut Source<'a>) -> BasicProperties<'a> {
    BasicProperties {
        content_type: Sample::sample(g),
        content_encoding: Sample::sample(g),
        headers: Sample::sample(g),
        delivery_mode: Sample::sample(g),
        priority: Sample::sample(g),
        correlation_id: Sample::sample(g),
        reply_to: Sample::sample(g),
        expiration: Sample::sample(g),
        message_id: Sample::sample(g),
        timestamp: Sample::sample(g),
        kind: Sample::sample(g),
        user_id: Sample::sample(g),
        app_id: Sample::sample(g),
        cluster_id: Sample::sample(g),
    }
}
