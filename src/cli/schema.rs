//! `schema`: the JSON Schemas of what is read and written.

use super::{args::SchemaKind, main::Context};
use crate::{config, execute::exit::ExitCode, render};

pub(super) fn run(context: &Context, kind: SchemaKind) -> ExitCode {
    let text = match kind {
        SchemaKind::Workloads => render::json::to_text(&config::schema::workloads()),
        SchemaKind::Plan => render::schema::plan(),
        SchemaKind::Report => render::schema::report(),
        SchemaKind::Migrate => render::schema::migrate(),
    };
    context.output.verbatim(&text);
    ExitCode::Done
}
