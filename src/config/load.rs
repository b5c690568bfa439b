//! Reads the root file and what it includes, and hands both on to validation.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    Config,
    code::Code,
    diagnostic::{Diagnostic, Diagnostics},
    files::{ReadFailure, ReadFiles, expand},
    parse::{self, Role},
    raw::File,
    source::{FileId, Located, Sources, Span},
    validate,
};

/// The largest file that is read, in bytes. Twenty thousand workloads fit; whatever is larger was
/// not meant to be a configuration.
const LARGEST: u64 = 4 << 20;

/// Reads and validates a configuration. Errors are every problem of every file; warnings alone
/// are kept in [`Config::warnings`].
pub fn load(path: &Path, files: &dyn ReadFiles) -> Result<Config, Diagnostics> {
    let mut loader =
        Loader { files, sources: Sources::default(), problems: Vec::new(), broken: false };
    let read = loader.root(path);
    let Loader { sources, mut problems, broken, .. } = loader;
    let config = match read {
        // Names from a file that is not TOML would be reported as unknown everywhere else.
        Some(read) if !broken => validate::validate(&read, &sources, &mut problems),
        _ => None,
    };
    let found = Diagnostics::new(sources, problems);
    match config {
        Some(mut config) if found.errors() == 0 => {
            config.found = found;
            Ok(config)
        }
        _ => Err(found),
    }
}

/// The files of a configuration, parsed.
#[derive(Debug)]
pub(super) struct Read {
    /// The root file.
    pub root: File,
    /// The text of the root file, as a place.
    pub id: FileId,
    /// The files it includes, in order.
    pub included: Vec<File>,
    /// The directory that relative paths in the root file start at.
    pub directory: PathBuf,
    /// The path that identities are tagged with.
    pub source: String,
}

struct Loader<'a> {
    files: &'a dyn ReadFiles,
    sources: Sources,
    problems: Vec<Diagnostic>,
    /// Whether a file could not be read or parsed.
    broken: bool,
}

impl Loader<'_> {
    fn root(&mut self, path: &Path) -> Option<Read> {
        let id = self.text(path, None)?;
        let root = self.parse(id, Role::Root)?;
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut seen = BTreeMap::from([(self.files.canonical(path), None)]);
        let mut included = Vec::new();
        for pattern in &root.include {
            for found in self.expand(pattern, &directory) {
                if self.is_new(&found, pattern.span, &mut seen)
                    && let Some(id) = self.text(&found, Some(pattern.span))
                {
                    included.extend(self.parse(id, Role::Included));
                }
            }
        }
        let source = repository_path(path, self.files);
        Some(Read { root, id, included, directory, source })
    }

    fn parse(&mut self, id: FileId, role: Role) -> Option<File> {
        let text = &self.sources.file(id).text;
        let file = parse::parse(text, id, role, &mut self.problems);
        self.broken |= file.is_none();
        file
    }

    fn expand(&mut self, pattern: &Located<String>, directory: &Path) -> Vec<PathBuf> {
        let text = &pattern.value;
        match expand(text, directory, self.files) {
            Ok(found) => {
                if found.is_empty() {
                    let problem = Diagnostic::at(
                        Code::IncludeEmpty,
                        pattern.span,
                        format!("no file matches `{text}`"),
                    );
                    self.problems
                        .push(problem.help("patterns start at the directory of this file"));
                }
                found
            }
            Err(error) => {
                self.broken = true;
                self.problems.push(Diagnostic::at(
                    Code::FileUnreadable,
                    pattern.span,
                    format!("the directories of `{text}` cannot be listed: {error}"),
                ));
                Vec::new()
            }
        }
    }

    /// Whether a file was not read before; if it was, that is reported.
    fn is_new(
        &mut self,
        path: &Path,
        by: Span,
        seen: &mut BTreeMap<PathBuf, Option<Span>>,
    ) -> bool {
        let shown = path.display();
        let problem = match seen.get(&self.files.canonical(path)) {
            None => {
                seen.insert(self.files.canonical(path), Some(by));
                return true;
            }
            Some(None) => {
                let problem =
                    Diagnostic::at(Code::IncludeLoop, by, format!("`{shown}` includes itself"));
                problem.help("keep included files in a directory of their own: teams/*.toml")
            }
            Some(Some(before)) => {
                let problem = Diagnostic::at(
                    Code::IncludeDuplicate,
                    by,
                    format!("`{shown}` is included twice"),
                );
                if *before == by { problem } else { problem.also(*before, "first here") }
            }
        };
        self.problems.push(problem);
        false
    }

    /// Reads a file; `by` is the entry of `include` that asked for it.
    fn text(&mut self, path: &Path, by: Option<Span>) -> Option<FileId> {
        let shown = path.display().to_string();
        match self.files.read(path, LARGEST) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => {
                    // A byte order mark is no part of the text, and would move every column.
                    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                    return Some(self.sources.add(shown, text));
                }
                Err(error) => self.refuse(not_utf8(&shown, &error), by),
            },
            Err(failure) => self.refuse(unreadable(&shown, &failure, by.is_some()), by),
        }
        None
    }

    fn refuse(&mut self, mut problem: Diagnostic, by: Option<Span>) {
        if let Some(span) = by {
            problem = problem.also(span, "included here");
        }
        self.broken = true;
        self.problems.push(problem);
    }
}

fn unreadable(shown: &str, failure: &ReadFailure, included: bool) -> Diagnostic {
    match failure {
        ReadFailure::NotFound => {
            let problem =
                Diagnostic::unplaced(Code::FileNotFound, format!("there is no file `{shown}`"));
            if included {
                problem.help("paths start at the directory of the file that includes")
            } else {
                problem.help("name the file with `-c FILE`, or write one with `widentity init`")
            }
        }
        ReadFailure::Directory => {
            let problem =
                Diagnostic::unplaced(Code::FileUnreadable, format!("`{shown}` is a directory"));
            if included {
                problem.help(format!("include its files: `{shown}/*.toml`"))
            } else {
                problem.help(format!("name the file in it, for example `{shown}/workloads.toml`"))
            }
        }
        ReadFailure::TooLarge { limit } => Diagnostic::unplaced(
            Code::FileTooLarge,
            format!("`{shown}` is larger than {} MiB", limit >> 20),
        )
        .help("is this the right file? A configuration of this size is split with `include`"),
        ReadFailure::Io(error) => {
            Diagnostic::unplaced(Code::FileUnreadable, format!("`{shown}` cannot be read: {error}"))
        }
    }
}

fn not_utf8(shown: &str, error: &std::string::FromUtf8Error) -> Diagnostic {
    let bytes = error.as_bytes();
    let at = error.utf8_error().valid_up_to();
    let before = &bytes[..at];
    let line = before.split(|byte| *byte == b'\n').count();
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    // What stands before the first bad byte is valid.
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    let problem = Diagnostic::unplaced(
        Code::FileNotUtf8,
        format!(
            "`{shown}` is not UTF-8: byte {at} (line {line}, column {column}) is 0x{:02x}",
            bytes.get(at).copied().unwrap_or_default()
        ),
    );
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return problem.help("it begins like UTF-16; save it as UTF-8");
    }
    problem.help("save the file as UTF-8")
}

/// The path that names the file to everybody: from the root of its Git work tree if it is in one,
/// else as given, else its name. Never an absolute path, which would differ from one machine to
/// the next and make every identity look changed.
fn repository_path(path: &Path, files: &dyn ReadFiles) -> String {
    use std::path::Component;
    let plain = |path: &Path| {
        let parts: Vec<_> = path
            .components()
            .filter(|part| *part != Component::CurDir)
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        parts.join("/")
    };
    if let Some(inside) = files.in_repository(path) {
        return plain(&inside);
    }
    let outside = |part: Component<'_>| {
        matches!(part, Component::ParentDir | Component::RootDir | Component::Prefix(_))
    };
    if path.components().any(outside) {
        let name = path.file_name().unwrap_or(path.as_os_str());
        return name.to_string_lossy().into_owned();
    }
    plain(path)
}
