//! The broker as a whole.

mod rig;
mod smoke;
