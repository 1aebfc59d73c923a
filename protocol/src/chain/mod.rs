//! Signature chains: devices vouch for devices ([`devices`]), members for members ([`members`]).
//!
//! Links travel as the exact bytes that were signed and are never encoded anew. Both the node and the clients check them here: the
//! node so that broken ones never get in, clients because they don't believe the node.

pub mod devices;
pub mod members;
