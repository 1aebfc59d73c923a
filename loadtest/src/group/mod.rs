//! A large conversation for measurements: [`stage`] makes it and connects its readers, [`writer`] writes to it by the clock.

pub mod stage;
pub mod writer;
