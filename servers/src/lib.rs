//! Real servers for tests, for `cargo xtask up --cluster` and for the nemesis: PostgreSQL, Redis and nginx, each in a folder and on a
//! port of its own, and a proxy that spoils the line to them.
//!
//! A server ends with its value, and also with the process that started it, however that ends. In reading order:
//!
//! 1. [`Postgres`], [`Redis`], [`RedisCluster`], [`Sentinel`], [`Nginx`]: the servers, and [`Nchan`], which is measured beside a node;
//! 2. [`shared_postgres`], [`shared_redis`], [`Database`]: one of each per test process, and an empty database per test;
//! 3. [`Proxy`]: cuts, stalls and slows what passes through it;
//! 4. [`Program`]: any other program, ended like a server; [`free_port`]: ports that nothing else takes.
//!
//! All of it is synchronous, and none of it knows anything of Martlet.

mod cluster;
mod folders;
mod log;
mod nchan;
mod nginx;
mod ports;
mod postgres;
mod process;
mod program;
mod proxy;
mod redis;
mod sentinel;
mod shared;
mod wait;

pub use cluster::RedisCluster;
pub use log::last_lines;
pub use nchan::{Nchan, NchanArgs};
pub use nginx::Nginx;
pub use ports::free_port;
pub use postgres::{Postgres, Shutdown};
pub use program::Program;
pub use proxy::Proxy;
pub use redis::Redis;
pub use sentinel::Sentinel;
pub use shared::{Database, shared_postgres, shared_redis};
