//! The file that `init --sandbox` writes: the repository's own example.

/// A complete commented configuration: eight workloads in two clusters. Its ids are invented, so
/// it runs in the sandbox and nowhere else.
pub const WORKLOADS: &str = include_str!("../../workloads.toml");
