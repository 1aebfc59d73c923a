//! The protocol from the outside: what chains, suite 1, links and the seal accept, and above all what they refuse.
//!
//! One binary, so that it links once. In reading order: [`world`] makes accounts and devices from a seed, [`spec`] is the document's
//! bytes written a second time, then one module per construction; [`vectors`] keeps the files in `protocol/vectors`.

mod devices;
mod documents;
mod link;
mod members;
mod prekeys;
mod robustness;
mod seal;
mod spec;
mod strict;
mod suite1;
mod vectors;
mod world;
