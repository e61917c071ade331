//! The journal: the one thing that is made durable on the write path, and the page store beside it.
#![deny(missing_docs)]

pub mod disk;
pub mod pages;
