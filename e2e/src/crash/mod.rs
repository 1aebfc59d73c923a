//! Devices that go on through crashes of their node, and the one who crashes it.
//!
//! A [`Participant`] is what a careful client is: it keeps what it sends until it is answered, sends the same bytes again after a
//! lost answer, keeps what it was given together with its cursor, and acknowledges later than it must. [`kill_many`] ends the node
//! with SIGKILL at drawn moments. What happened goes to a [`crate::history::History`] that all share.

mod inbox;
mod killer;
mod outbox;
mod participant;

pub use killer::{KillPlan, kill_many};
pub use participant::{Participant, Phase, Shared};
