//! SHOW: turns plans, reports and findings into text, JSON and Markdown. Pure: every function
//! takes data and gives a string; nothing is written here.
//!
//! Text from the world (names, messages of servers, values of annotations) passes [`escape`]
//! before it reaches a line.

pub mod audit;
mod change;
pub mod difference;
pub mod doctor;
pub mod escape;
pub mod explain;
pub mod findings;
pub mod head;
pub mod json;
pub mod manifests;
pub mod markdown;
pub mod migrate;
pub mod removal;
pub mod report;
pub mod report_json;
pub mod schema;
pub mod style;
pub mod text;
pub mod uninstall;
mod unseen;
pub mod watch;

pub use style::Palette;
