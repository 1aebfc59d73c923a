//! The files in `protocol/vectors`.
