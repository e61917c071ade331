//! The values that selectors reckon with.

use std::cmp::Ordering;

use super::number;

/// The value of a property.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PropertyValue<'a> {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(&'a str),
}

/// A message's properties.
pub trait Properties {
    /// The value of the property of this name; names differ by case. For JMS the names of the header fields (`JMSPriority`,
    /// `JMSDeliveryMode`, whose values are `PERSISTENT` and `NON_PERSISTENT`, and so on) are names of properties, too.
    fn get(&self, name: &str) -> Option<PropertyValue<'_>>;
}

/// What a condition says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It is met.
    True,
    /// It is not met.
    False,
    /// A property that it speaks of is not there.
    Unknown,
}

impl Truth {
    pub(crate) fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::True, Self::True) => Self::True,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// They have an order.
    Ordered(Ordering),
    /// They are equal or not, and have no order.
    Equal(bool),
    /// They are of unlike types, or not numbers.
    Unlike,
    /// A text should be a number, and is none.
    NotANumber,
}

/// Compares values of like types: text with text, truth with truth, numbers with numbers.
pub(crate) fn compare(one: PropertyValue<'_>, other: PropertyValue<'_>) -> Comparison {
    use PropertyValue::{Bool, Float, Integer, Text};
    match (one, other) {
        (Bool(one), Bool(other)) => Comparison::Equal(one == other),
        (Text(one), Text(other)) => Comparison::Equal(one == other),
        (Integer(one), Integer(other)) => Comparison::Ordered(one.cmp(&other)),
        (Float(one), Float(other)) => ordered(one.partial_cmp(&other)),
        // Java's promotion: the whole number becomes the nearest float.
        (Integer(one), Float(other)) => ordered((one as f64).partial_cmp(&other)),
        (Float(one), Integer(other)) => ordered(one.partial_cmp(&(other as f64))),
        _ => Comparison::Unlike,
    }
}

fn ordered(ordering: Option<Ordering>) -> Comparison {
    ordering.map_or(Comparison::Unlike, Comparison::Ordered)
}

/// Compares values where text stands for numbers and truth, too. `order` says whether the order of two texts is asked for, which is
/// that of their numbers.
pub(crate) fn compare_text(one: PropertyValue<'_>, other: PropertyValue<'_>, order: bool) -> Comparison {
    use PropertyValue::{Bool, Text};
    match (one, other) {
        (Text(one), Bool(other)) | (Bool(other), Text(one)) => {
            Comparison::Equal(one.eq_ignore_ascii_case("true") == other)
        }
        (Text(_), Text(_)) if !order => compare(one, other),
        (Text(_), _) | (_, Text(_)) => match (number::of_value(one), number::of_value(other)) {
            (Some(one), Some(other)) => compare(one, other),
            _ => Comparison::NotANumber,
        },
        _ => compare(one, other),
    }
}
