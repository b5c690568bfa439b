//! TERMINAL: arguments in, words out, an exit code at the end. Everything that touches the
//! terminal, the environment or the clock stands here; each in one file.

mod apply;
mod args;
mod audit;
mod carried;
mod completions;
mod doctor;
mod env;
mod error;
mod explain;
mod fault;
mod files;
mod init;
mod interrupt;
mod logging;
mod main;
mod migrate;
mod migrate_apply;
mod migrate_args;
mod migrate_finish;
mod migrate_render;
mod migrate_rollback;
mod migrate_uninstall;
mod output;
mod plan;
mod pod_identity_seed;
mod progress;
mod prompt;
mod sandbox;
mod schema;
mod seed;
mod served;
mod shelf;
mod show;
mod slips;
mod validate;
mod verify;
mod watch;
mod world;

pub use main::main;
