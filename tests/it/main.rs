//! All integration tests, in one binary.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "tests say what they expect by failing"
)]

mod properties;
mod support;
