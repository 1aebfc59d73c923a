//! A large conversation for measurements: [`stage`] makes it and connects its readers, [`writer`] writes to it by the clock, [`log`] says what
//! its readers must get.

pub mod log;
pub mod stage;
pub mod writer;
