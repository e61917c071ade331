//! A selector as steps on a small stack.

use std::cmp::Ordering;

use super::like::Like;
use super::number;
use super::value::{Comparison, Properties, PropertyValue, Truth, compare, compare_text};
use super::{Dialect, MAX_HELD};

/// A step. A value that is not there, and a truth that is not known, are `None` on the stack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Op {
    /// Pushes a property.
    Load(u16),
    /// Pushes a constant.
    Constant(u16),
    /// What is no truth value is false.
    ToTruth,
    Not,
    /// Goes on elsewhere if the top is false, and leaves it.
    SkipIfFalse(u16),
    SkipIfTrue(u16),
    And,
    Or,
    Negate,
    Arithmetic(Operator),
    Compare(Relation),
    /// The value, the lower and the upper bound are on the stack.
    Between {
        negated: bool,
    },
    In {
        list: u16,
        negated: bool,
    },
    Like {
        pattern: u16,
        negated: bool,
    },
    /// The text is a constant.
    Search {
        how: Search,
        text: u16,
        negated: bool,
    },
    IsNull {
        negated: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Plus,
    Minus,
    Times,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Constant {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Box<str>),
}

#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) dialect: Dialect,
    pub(crate) ops: Box<[Op]>,
    pub(crate) names: Box<[Box<str>]>,
    pub(crate) constants: Box<[Constant]>,
    /// Sorted.
    pub(crate) lists: Box<[Box<[Box<str>]>]>,
    pub(crate) patterns: Box<[Like]>,
}

type Held<'a> = Option<PropertyValue<'a>>;

/// Holds as much as the parser found to be needed.
struct Stack<'a> {
    values: [Held<'a>; MAX_HELD],
    top: usize,
}

/// The message is not wanted, whatever else the selector says.
struct NotWanted;

impl Program {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    pub(crate) fn run(&self, properties: &dyn Properties) -> Truth {
        let mut stack = Stack { values: [None; MAX_HELD], top: 0 };
        let mut at = 0;
        while let Some(op) = self.ops.get(at) {
            match self.step(*op, properties, &mut stack) {
                Ok(None) => at += 1,
                Ok(Some(target)) => at = target,
                Err(NotWanted) => return Truth::Unknown,
            }
        }
        truth(stack.pop())
    }

    /// Does a step; where to go on, if not with the next one. Targets are always ahead, so programs end.
    fn step<'a>(
        &'a self,
        op: Op,
        properties: &'a dyn Properties,
        stack: &mut Stack<'a>,
    ) -> Result<Option<usize>, NotWanted> {
        match op {
            Op::SkipIfFalse(target) => {
                return Ok((truth(stack.peek()) == Truth::False).then_some(target.into()));
            }
            Op::SkipIfTrue(target) => {
                return Ok((truth(stack.peek()) == Truth::True).then_some(target.into()));
            }
            Op::Load(name) => stack.push(properties.get(&self.names[usize::from(name)])),
            Op::Constant(constant) => stack.push(Some(self.constants[usize::from(constant)].value())),
            Op::And | Op::Or | Op::Arithmetic(_) | Op::Compare(_) => {
                let (right, left) = (stack.pop(), stack.pop());
                stack.push(self.binary(op, left, right)?);
            }
            Op::Between { negated } => {
                let (high, low, value) = (stack.pop(), stack.pop(), stack.pop());
                stack.push(held(self.between(value, low, high, negated)?));
            }
            _ => {
                let value = stack.pop();
                stack.push(self.unary(op, value)?);
            }
        }
        Ok(None)
    }

    fn unary<'a>(&'a self, op: Op, value: Held<'a>) -> Result<Held<'a>, NotWanted> {
        Ok(match op {
            Op::Not => held(truth(value).not()),
            Op::ToTruth => value.map(|value| PropertyValue::Bool(value == PropertyValue::Bool(true))),
            Op::Negate => self.number(value)?.map(negated_number),
            Op::IsNull { negated } => Some(PropertyValue::Bool(value.is_none() != negated)),
            Op::In { list, negated } => held(is_in(value, &self.lists[usize::from(list)], negated)),
            Op::Like { pattern, negated } => {
                held(is_like(value, &self.patterns[usize::from(pattern)], negated))
            }
            Op::Search { how, text, negated } => {
                held(searched(value, how, self.constants[usize::from(text)].text(), negated))
            }
            _ => value,
        })
    }

    fn binary<'a>(&self, op: Op, left: Held<'a>, right: Held<'a>) -> Result<Held<'a>, NotWanted> {
        Ok(match op {
            Op::And => held(truth(left).and(truth(right))),
            Op::Or => held(truth(left).or(truth(right))),
            Op::Arithmetic(operator) => match (self.number(left)?, self.number(right)?) {
                (Some(left), Some(right)) => calculate(operator, left, right),
                _ => None,
            },
            Op::Compare(relation) => held(self.relation(relation, left, right)?),
            _ => None,
        })
    }

    /// The number that a value is to be in a calculation.
    fn number<'a>(&self, value: Held<'a>) -> Result<Held<'a>, NotWanted> {
        let Some(value) = value else { return Ok(None) };
        match (value, self.dialect) {
            (PropertyValue::Integer(_) | PropertyValue::Float(_), _) => Ok(Some(value)),
            (_, Dialect::Jms) => Ok(None),
            (_, Dialect::TextProperties) => number::of_value(value).map(Some).ok_or(NotWanted),
        }
    }

    fn relation(&self, relation: Relation, left: Held<'_>, right: Held<'_>) -> Result<Truth, NotWanted> {
        let (Some(left), Some(right)) = (left, right) else { return Ok(Truth::Unknown) };
        let equality = matches!(relation, Relation::Equal | Relation::NotEqual);
        let comparison = match self.dialect {
            Dialect::Jms => compare(left, right),
            Dialect::TextProperties => compare_text(left, right, !equality),
        };
        Ok(Truth::from(match comparison {
            Comparison::Ordered(ordering) => relation.holds(ordering),
            Comparison::Equal(equal) => equality && (relation == Relation::Equal) == equal,
            Comparison::Unlike => self.dialect == Dialect::TextProperties && relation == Relation::NotEqual,
            Comparison::NotANumber => return Err(NotWanted),
        }))
    }

    fn between(
        &self,
        value: Held<'_>,
        low: Held<'_>,
        high: Held<'_>,
        negated: bool,
    ) -> Result<Truth, NotWanted> {
        if negated {
            let below = self.relation(Relation::Less, value, low)?;
            return Ok(below.or(self.relation(Relation::Greater, value, high)?));
        }
        let above = self.relation(Relation::GreaterOrEqual, value, low)?;
        Ok(above.and(self.relation(Relation::LessOrEqual, value, high)?))
    }
}

impl<'a> Stack<'a> {
    fn push(&mut self, value: Held<'a>) {
        self.values[self.top] = value;
        self.top += 1;
    }

    fn pop(&mut self) -> Held<'a> {
        self.top -= 1;
        self.values[self.top]
    }

    fn peek(&self) -> Held<'a> {
        self.values[self.top - 1]
    }
}

impl Relation {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

impl Constant {
    fn value(&self) -> PropertyValue<'_> {
        match self {
            Self::Bool(value) => PropertyValue::Bool(*value),
            Self::Integer(value) => PropertyValue::Integer(*value),
            Self::Float(value) => PropertyValue::Float(*value),
            Self::Text(value) => PropertyValue::Text(value),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }
}

fn truth(value: Held<'_>) -> Truth {
    value.map_or(Truth::Unknown, |value| Truth::from(value == PropertyValue::Bool(true)))
}

fn held<'a>(truth: Truth) -> Held<'a> {
    match truth {
        Truth::True => Some(PropertyValue::Bool(true)),
        Truth::False => Some(PropertyValue::Bool(false)),
        Truth::Unknown => None,
    }
}

fn negated_number(value: PropertyValue<'_>) -> PropertyValue<'_> {
    match value {
        PropertyValue::Integer(value) => PropertyValue::Integer(value.wrapping_neg()),
        PropertyValue::Float(value) => PropertyValue::Float(-value),
        other => other,
    }
}

/// As Java reckons: whole numbers wrap and divide whole. A division of a whole number by zero has no result.
fn calculate<'a>(operator: Operator, left: PropertyValue<'_>, right: PropertyValue<'_>) -> Held<'a> {
    use PropertyValue::{Float, Integer};
    match (left, right) {
        (Integer(left), Integer(right)) => whole(operator, left, right).map(Integer),
        (left, right) => Some(Float(fraction(operator, float(left)?, float(right)?))),
    }
}

fn whole(operator: Operator, left: i64, right: i64) -> Option<i64> {
    match operator {
        Operator::Plus => Some(left.wrapping_add(right)),
        Operator::Minus => Some(left.wrapping_sub(right)),
        Operator::Times => Some(left.wrapping_mul(right)),
        Operator::Over => (right != 0).then(|| left.wrapping_div(right)),
    }
}

fn fraction(operator: Operator, left: f64, right: f64) -> f64 {
    match operator {
        Operator::Plus => left + right,
        Operator::Minus => left - right,
        Operator::Times => left * right,
        Operator::Over => left / right,
    }
}

fn float(value: PropertyValue<'_>) -> Option<f64> {
    match value {
        PropertyValue::Integer(value) => Some(value as f64),
        PropertyValue::Float(value) => Some(value),
        PropertyValue::Bool(_) | PropertyValue::Text(_) => None,
    }
}

/// Of what is not text, nothing is known.
fn is_in(value: Held<'_>, list: &[Box<str>], negated: bool) -> Truth {
    match value {
        Some(PropertyValue::Text(text)) => {
            Truth::from(list.binary_search_by(|other| (**other).cmp(text)).is_ok() != negated)
        }
        _ => Truth::Unknown,
    }
}

/// What is not text is neither like a pattern nor unlike it.
fn is_like(value: Held<'_>, pattern: &Like, negated: bool) -> Truth {
    match value {
        None => Truth::Unknown,
        Some(PropertyValue::Text(text)) => Truth::from(pattern.matches(text) != negated),
        Some(_) => Truth::False,
    }
}

/// What is not there, is not text, or is searched for nothing, is false, negated or not.
fn searched(value: Held<'_>, how: Search, wanted: &str, negated: bool) -> Truth {
    let Some(PropertyValue::Text(text)) = value else { return Truth::False };
    let found = match how {
        Search::Contains => text.contains(wanted),
        Search::StartsWith => text.starts_with(wanted),
        Search::EndsWith => text.ends_with(wanted),
    };
    Truth::from(!wanted.is_empty() && found != negated)
}
