//! All integration tests in one binary: they link once and run in parallel.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail loudly and read files"
)]

mod render_plan;
mod support;
