//! The `widentity` program: see the library for everything.

use std::process::ExitCode;

fn main() -> ExitCode {
    widentity::cli::main()
}
