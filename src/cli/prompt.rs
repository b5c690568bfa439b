//! The question before anything is written; asked of people only.

use std::io;

use super::{error::CliError, interrupt::Interrupt, main::Context};
use crate::execute::exit::ExitCode;

/// What a person said.
pub(super) enum Answer {
    /// `yes`.
    Yes,
    /// Anything else, or an interrupt: how the run ends.
    End(ExitCode),
}

/// Asks at the terminal; only `yes` is yes. Another answer is told what it `means`, for example
/// `not applied`; nothing where that is empty.
pub(super) async fn ask(
    context: &Context,
    question: &str,
    means: &str,
    interrupt: &Interrupt,
) -> Result<Answer, CliError> {
    context.output.ask(question);
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        line = read => line,
        () = interrupt.asked() => {
            context.output.message("\ninterrupted: nothing was written");
            return Ok(Answer::End(ExitCode::Interrupted));
        }
    };
    let line = line.map_err(|_| CliError::new(ExitCode::Internal, "the prompt broke"))?;
    let line =
        line.map_err(|error| CliError::failed(format!("cannot read the answer: {error}")))?;
    if line.trim_end_matches(['\r', '\n']) == "yes" {
        return Ok(Answer::Yes);
    }
    if !means.is_empty() {
        context.output.message(&format!("{means}: only `yes` is taken for an answer"));
    }
    Ok(Answer::End(ExitCode::Failed))
}
