//! The servers as tests use them: started, stopped, killed, started again, and nothing left of them.

mod left_behind;
mod nginx;
mod postgres;
mod proxy;
mod redis;
mod world;
