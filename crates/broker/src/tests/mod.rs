//! The broker as a whole.

mod clock;
mod faults;
mod front_ends;
mod groups;
mod identity;
mod lag;
mod large;
mod late;
mod logged;
mod model;
mod panics;
mod producers;
mod publish;
mod reads;
mod references;
pub(crate) mod registers;
pub(crate) mod rig;
mod seam;
mod sim;
mod smoke;
mod stress;
mod topics;
mod wakes;
