//! docs/PROTOCOL.md lists every problem code and close code as the library has them.
