//! `explain`: a code, a message or a log.

use std::io::{self, Read};

use crate::{
    config::Code,
    diagnose::{
        Diagnosis,
        explain::{Answer, Scan, Scanner, Values, answer, lookup, relate},
    },
};

/// What was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// Explanations, in the order of the text.
    pub answers: Vec<Found>,
    /// Lines and bytes of a log; none for a code or message on the command line.
    pub read: Option<(u64, u64)>,
}

/// An explanation and where it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The explanation.
    pub answer: Answer,
    /// Lines and the first of them; none for a code.
    pub lines: Option<(u64, u64)>,
    /// Values that stand beside it.
    pub values: Values,
}

/// Explains a code, or what a message holds. Nothing where it is not known.
pub fn text(text: &str) -> Explained {
    if let Some(entry) = lookup(text) {
        let values = Values::default();
        let found = Found { answer: answer(entry, &values), lines: None, values };
        return Explained { answers: vec![found], read: None };
    }
    if let Ok(code) = text.trim().parse::<Code>() {
        let answer = Answer {
            code: code.as_str().to_owned(),
            family: None,
            title: "a problem of the configuration file".to_owned(),
            cause: code.description().to_owned(),
            next: "widentity validate shows the line".to_owned(),
            link: None,
            context: Vec::new(),
        };
        let found = Found { answer, lines: None, values: Values::default() };
        return Explained { answers: vec![found], read: None };
    }
    let mut explained = of_scan(Scanner::new().map(|mut scanner| {
        scanner.feed(text.as_bytes());
        scanner.finish()
    }));
    explained.read = None;
    explained
}

/// Explains everything in a log of any length, in bounded memory.
pub fn log(mut input: impl Read) -> io::Result<Explained> {
    let Some(mut scanner) = Scanner::new() else { return Ok(of_scan(None)) };
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(of_scan(Some(scanner.finish()))),
            Ok(read) => scanner.feed(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn of_scan(scan: Option<Scan>) -> Explained {
    let Some(scan) = scan else { return Explained { answers: Vec::new(), read: None } };
    let answers = scan.found.into_iter().map(|found| Found {
        answer: found.answer(),
        lines: Some((found.lines, found.first_line)),
        values: found.values,
    });
    Explained { answers: answers.collect(), read: Some((scan.lines, scan.bytes)) }
}

/// Adds what chains show.
pub fn with_context(explained: &mut Explained, diagnoses: &[Diagnosis]) {
    for found in &mut explained.answers {
        relate(&mut found.answer, &found.values, diagnoses);
    }
}
