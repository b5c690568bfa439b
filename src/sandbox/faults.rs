//! Scripted faults and the request log.

/// Faults to play and the request log of a running sandbox.
#[derive(Debug, Default)]
pub struct Faults {}
