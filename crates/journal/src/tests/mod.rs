//! The whole journal on a simulated disk.

mod corruption;
mod crash;
mod cut;
mod durability;
mod hostile;
mod reads;
mod rig;
mod space;
