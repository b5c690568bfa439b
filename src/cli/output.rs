//! The only writer: standard output is data, standard error is progress and messages.

use std::{borrow::Cow, io};

use clap::ValueEnum;

use super::{carried::Carried, env::Environment};
use crate::render::Palette;

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Standard output and standard error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    /// How standard output looks.
    pub(super) out: Palette,
    /// How standard error looks.
    pub(super) err: Palette,
    /// Whether notes are dropped; warnings and errors never are.
    quiet: bool,
    /// What every printed command of ours carries; nothing before the arguments are understood.
    carried: Option<&'static Carried>,
}

#[expect(clippy::unused_self, reason = "nothing is written before the streams are decided")]
impl Output {
    /// Decides both streams apart.
    pub(super) fn new(color: Color, quiet: bool, env: &Environment) -> Self {
        let palette = |terminal| Palette { coloured: coloured(color, terminal, env) };
        Self {
            out: palette(env.stdout_is_terminal),
            err: palette(env.stderr_is_terminal),
            quiet,
            carried: None,
        }
    }

    /// The same streams; commands that are printed carry these options. It is kept until the
    /// process ends, so that it is said once a run.
    pub(super) fn carrying(self, carried: Carried) -> Self {
        Self { carried: Some(Box::leak(Box::new(carried))), ..self }
    }

    /// Writes data to standard output.
    pub(super) fn data(self, text: &str) {
        let text = self.carried.map_or(Cow::Borrowed(text), |carried| carried.data(text));
        write(&mut io::stdout().lock(), &text);
    }

    /// Writes to standard output what must stay as it is to the byte: a script, a schema.
    pub(super) fn verbatim(self, text: &str) {
        write(&mut io::stdout().lock(), text);
    }

    /// A line of progress on standard error; dropped by `--quiet`.
    pub(super) fn note(self, line: &str) {
        if !self.quiet {
            self.message(line);
        }
    }

    /// A line on standard error that is never dropped.
    pub(super) fn message(self, line: &str) {
        let text = self.carried.map_or(Cow::Borrowed(line), |carried| carried.message(line));
        let mut text = text.into_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        write(&mut io::stderr().lock(), &text);
    }

    /// A question on standard error, without a line end.
    pub(super) fn ask(self, question: &str) {
        write(&mut io::stderr().lock(), question);
    }

    /// Whether notes are written.
    pub(super) fn is_quiet(self) -> bool {
        self.quiet
    }
}

/// A reader that went away (`widentity plan | head`) must not stop a run or make a panic: what
/// cannot be written is dropped.
fn write(stream: &mut impl io::Write, text: &str) {
    let written = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    drop(written);
}

/// The option first, then `NO_COLOR`, then `CLICOLOR_FORCE`, then the terminal.
///
/// See no-color.org and bixense.com/clicolors.
fn coloured(color: Color, terminal: bool, env: &Environment) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if env.get("NO_COLOR").is_some() => false,
        Color::Auto if env.get("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        Color::Auto => terminal && env.get("TERM") != Some("dumb"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_wins_then_no_color_then_force_then_the_terminal() {
        let none = Environment::of([]);
        let no = Environment::of([("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]);
        let force = Environment::of([("CLICOLOR_FORCE", "1"), ("TERM", "dumb")]);
        let dumb = Environment::of([("TERM", "dumb")]);
        assert!(coloured(Color::Always, false, &no));
        assert!(!coloured(Color::Never, true, &force));
        assert!(!coloured(Color::Auto, true, &no));
        assert!(coloured(Color::Auto, false, &force));
        assert!(!coloured(Color::Auto, true, &dumb));
        assert!(coloured(Color::Auto, true, &none));
        assert!(!coloured(Color::Auto, false, &none));
        assert!(coloured(Color::Auto, true, &Environment::of([("NO_COLOR", "")])));
    }
}
