//! READ: `workloads.toml` and what it includes, to [`DesiredState`](crate::model::desired).
//!
//! [`load`] takes a path and gives a [`Config`] in which every value is parsed and every reference
//! followed, or every problem at once as [`Diagnostics`]: text -> [`raw`] (places, types, unknown
//! keys) -> checked. [`compile`] gives the desired state: names, merged grants, and what
//! [`Selection`] chose. Reads files and nothing else; asks neither Azure nor the environment.

mod checked;
mod code;
mod compile;
mod diagnostic;
mod files;
mod glob;
mod load;
mod parse;
pub mod raw;
pub mod sample;
pub mod schema;
mod selection;
mod source;
mod table;
mod text;
mod validate;

pub use checked::{Cloud, Config, Grant, Identity, Workload};
pub use code::{Code, Severity, UnknownCode};
pub use compile::compile;
pub use diagnostic::{Diagnostic, Diagnostics, Label, PlaceRecord, Record};
pub use files::{Disk, Entry, ReadFailure, ReadFiles};
pub use glob::matches as glob_matches;
pub use load::load;
pub use selection::{Selection, SelectionError};
pub use source::{FileId, Located, Position, SourceFile, Sources, Span};
