//! A program while it is parsed.

use std::collections::HashMap;

use super::like::Like;
use super::program::{Constant, Op, Program};
use super::{Dialect, MAX_HELD, MAX_TERMS, SelectorError};

/// A program while it is parsed. It counts what the program will hold at once, so that the stack is always large enough.
pub(crate) struct Builder {
    ops: Vec<Op>,
    names: Vec<Box<str>>,
    by_name: HashMap<Box<str>, u16>,
    constants: Vec<Constant>,
    lists: Vec<Box<[Box<str>]>>,
    patterns: Vec<Like>,
    terms: usize,
    held: usize,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            ops: Vec::new(),
            names: Vec::new(),
            by_name: HashMap::new(),
            constants: Vec::new(),
            lists: Vec::new(),
            patterns: Vec::new(),
            terms: 0,
            held: 0,
        }
    }

    pub(crate) fn finish(self, dialect: Dialect) -> Program {
        Program {
            dialect,
            ops: self.ops.into(),
            names: self.names.into(),
            constants: self.constants.into(),
            lists: self.lists.into(),
            patterns: self.patterns.into(),
        }
    }

    /// Counts a term, of which there may be so many that all numbers in a program have 16 bits.
    pub(crate) fn count(&mut self) -> Result<(), SelectorError> {
        self.terms += 1;
        if self.terms > MAX_TERMS { Err(SelectorError::TooManyTerms) } else { Ok(()) }
    }

    pub(crate) fn load(&mut self, name: &str, at: usize) -> Result<(), SelectorError> {
        let next = self.names.len() as u16;
        let number = *self.by_name.entry(name.into()).or_insert(next);
        if number == next {
            self.names.push(name.into());
        }
        self.push(Op::Load(number), at)
    }

    pub(crate) fn constant(&mut self, constant: Constant, at: usize) -> Result<(), SelectorError> {
        let number = self.add_constant(constant);
        self.push(Op::Constant(number), at)
    }

    pub(crate) fn add_constant(&mut self, constant: Constant) -> u16 {
        self.constants.push(constant);
        (self.constants.len() - 1) as u16
    }

    pub(crate) fn add_list(&mut self, mut list: Vec<Box<str>>) -> u16 {
        list.sort();
        list.dedup();
        self.lists.push(list.into());
        (self.lists.len() - 1) as u16
    }

    pub(crate) fn add_pattern(&mut self, pattern: Like) -> u16 {
        self.patterns.push(pattern);
        (self.patterns.len() - 1) as u16
    }

    /// A step that holds one value more.
    fn push(&mut self, op: Op, at: usize) -> Result<(), SelectorError> {
        self.count()?;
        self.held += 1;
        if self.held > MAX_HELD {
            return Err(SelectorError::TooDeep { at });
        }
        self.ops.push(op);
        Ok(())
    }

    /// A step that takes `taken` values and leaves one.
    pub(crate) fn reduce(&mut self, op: Op, taken: usize) -> Result<(), SelectorError> {
        self.count()?;
        self.held -= taken - 1;
        self.ops.push(op);
        Ok(())
    }

    /// A place for a step that skips what comes next.
    pub(crate) fn skip(&mut self) -> Result<usize, SelectorError> {
        self.count()?;
        self.ops.push(Op::ToTruth);
        Ok(self.ops.len() - 1)
    }

    /// Has the step of [`Builder::skip`] go on with the step that comes next now.
    pub(crate) fn land(&mut self, skip: usize, op: fn(u16) -> Op) {
        self.ops[skip] = op(self.ops.len() as u16);
    }

    /// Whether the steps from `from` on do no more than load a property.
    pub(crate) fn is_property(&self, from: usize) -> bool {
        matches!(self.ops[from..], [Op::Load(_)])
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }
}
