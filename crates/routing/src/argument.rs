//! The typed values that bindings ask for and messages carry.

/// A value of a message's header, as its protocol has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ArgumentRef<'a> {
    /// Nothing: as an argument, whatever value there is.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number of any width.
    Integer(i64),
    /// A number of either width.
    Float(f64),
    /// `value` with the decimal point moved left by `scale`.
    Decimal {
        /// Digits after the point.
        scale: u8,
        /// All digits.
        value: i32,
    },
    /// Text, or bytes.
    Text(&'a [u8]),
    /// A moment, in the protocol's own unit.
    Timestamp(i64),
    /// What has parts (a table, a list), as its protocol encodes it.
    Composite(&'a [u8]),
}

/// An [`ArgumentRef`] of its own.
#[derive(Debug, Clone, PartialEq)]
pub enum ArgumentValue {
    /// Nothing: whatever value there is.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number of any width.
    Integer(i64),
    /// A number of either width.
    Float(f64),
    /// `value` with the decimal point moved left by `scale`.
    Decimal {
        /// Digits after the point.
        scale: u8,
        /// All digits.
        value: i32,
    },
    /// Text, or bytes.
    Text(Box<[u8]>),
    /// A moment, in the protocol's own unit.
    Timestamp(i64),
    /// What has parts (a table, a list), as its protocol encodes it.
    Composite(Box<[u8]>),
}

impl ArgumentValue {
    /// The value, borrowed.
    pub fn as_ref(&self) -> ArgumentRef<'_> {
        match self {
            Self::Null => ArgumentRef::Null,
            Self::Bool(value) => ArgumentRef::Bool(*value),
            Self::Integer(value) => ArgumentRef::Integer(*value),
            Self::Float(value) => ArgumentRef::Float(*value),
            Self::Decimal { scale, value } => ArgumentRef::Decimal { scale: *scale, value: *value },
            Self::Text(value) => ArgumentRef::Text(value),
            Self::Timestamp(value) => ArgumentRef::Timestamp(*value),
            Self::Composite(value) => ArgumentRef::Composite(value),
        }
    }
}

impl ArgumentRef<'_> {
    /// The value, whatever its type, as bytes that differ where values do.
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(0),
            Self::Bool(value) => out.extend([1, value.into()]),
            Self::Integer(value) | Self::Timestamp(value) => out.extend(value.to_be_bytes()),
            Self::Float(value) => out.extend(value.to_bits().to_be_bytes()),
            Self::Decimal { scale, value } => {
                out.push(scale);
                out.extend(value.to_be_bytes());
            }
            Self::Text(value) | Self::Composite(value) => out.extend(value),
        }
    }
}

/// An argument of a binding.
#[derive(Debug, Clone)]
pub struct Argument {
    /// Its name.
    pub name: Box<[u8]>,
    /// What its protocol calls its type. Two bindings whose arguments differ in it are two; a message is matched by the value alone.
    pub tag: u8,
    /// Its value.
    pub value: ArgumentValue,
}

impl PartialEq for Argument {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.tag == other.tag && same(&self.value, &other.value)
    }
}

impl Eq for Argument {}

/// Whether two values are one, bit by bit, so that one that is not a number is itself.
fn same(one: &ArgumentValue, other: &ArgumentValue) -> bool {
    match (one, other) {
        (ArgumentValue::Float(one), ArgumentValue::Float(other)) => one.to_bits() == other.to_bits(),
        _ => one == other,
    }
}

/// The arguments of a binding, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arguments(Box<[Argument]>);

impl Arguments {
    /// Takes them in any order.
    pub fn new(mut arguments: Vec<Argument>) -> Self {
        arguments.sort_by(|one, other| one.name.cmp(&other.name));
        Self(arguments.into())
    }

    /// The first argument of a name.
    pub fn get(&self, name: &[u8]) -> Option<&ArgumentValue> {
        self.iter().find(|argument| *argument.name == *name).map(|argument| &argument.value)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Argument> {
        self.0.iter()
    }

    /// Bytes that they take, about.
    pub fn bytes(&self) -> usize {
        self.iter().map(Argument::bytes).sum()
    }

    /// Bytes that differ where arguments do.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        for argument in self.iter() {
            out.extend((argument.name.len() as u32).to_be_bytes());
            out.extend(&argument.name);
            out.push(argument.tag);
            argument.value.as_ref().put(out);
        }
    }
}

/// What an allocation of so many bytes takes of the heap, about.
fn in_heap(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 16).max(32) }
}

impl Argument {
    fn bytes(&self) -> usize {
        let value = match &self.value {
            ArgumentValue::Text(value) | ArgumentValue::Composite(value) => value.len(),
            _ => 0,
        };
        size_of::<Self>() + in_heap(self.name.len()) + in_heap(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(name: &str, tag: u8, value: ArgumentValue) -> Argument {
        Argument { name: name.as_bytes().into(), tag, value }
    }

    #[test]
    fn arguments_are_the_same_in_any_order_and_not_with_other_types() {
        let one = |tag| argument("a", tag, ArgumentValue::Integer(1));
        let two = || argument("b", b'd', ArgumentValue::Float(f64::NAN));
        assert_eq!(Arguments::new(vec![one(b'I'), two()]), Arguments::new(vec![two(), one(b'I')]));
        assert_ne!(Arguments::new(vec![one(b'I')]), Arguments::new(vec![one(b'l')]));
    }
}
