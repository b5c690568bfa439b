//! Where the text comes from: a trait, so that tests need no disk, and the disk.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use super::glob;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// Whether it is a directory; a link to one is not.
    pub directory: bool,
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFailure {
    /// It does not exist.
    #[error("no such file")]
    NotFound,
    /// It is a directory.
    #[error("it is a directory")]
    Directory,
    /// It is longer than was allowed.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The system refused.
    #[error("{0}")]
    Io(io::Error),
}

/// Reads the files of a configuration.
pub trait ReadFiles {
    /// The bytes of a file, at most `limit` of them.
    fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, ReadFailure>;

    /// The names in a directory, in any order.
    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>>;

    /// One path for each file, however it is named; the path itself where that is not known.
    fn canonical(&self, path: &Path) -> PathBuf;

    /// The path from the root of the Git work tree that the file is in, if it is in one.
    fn in_repository(&self, path: &Path) -> Option<PathBuf>;
}

/// The file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl ReadFiles for Disk {
    fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, ReadFailure> {
        let failure = |error: io::Error| {
            if error.kind() == io::ErrorKind::NotFound {
                ReadFailure::NotFound
            } else if error.kind() == io::ErrorKind::IsADirectory {
                ReadFailure::Directory
            } else {
                ReadFailure::Io(error)
            }
        };
        let file = File::open(path).map_err(failure)?;
        if file.metadata().map_err(failure)?.is_dir() {
            return Err(ReadFailure::Directory);
        }
        let mut bytes = Vec::new();
        // The length that the metadata says is not asked: pipes have none, and files grow.
        file.take(limit + 1).read_to_end(&mut bytes).map_err(failure)?;
        if bytes.len() as u64 > limit {
            return Err(ReadFailure::TooLarge { limit });
        }
        Ok(bytes)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let mut entries = Vec::new();
        for entry in fs::read_dir(here)? {
            let entry = entry?;
            // A name that is not UTF-8 cannot be written in the file either.
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(Entry { name, directory: entry.file_type()?.is_dir() });
            }
        }
        Ok(entries)
    }

    fn canonical(&self, path: &Path) -> PathBuf {
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    }

    fn in_repository(&self, path: &Path) -> Option<PathBuf> {
        let path = path.canonicalize().ok()?;
        // `.git` is a directory, or in work trees and submodules a file.
        let root = path.ancestors().skip(1).find(|above| above.join(".git").exists())?;
        path.strip_prefix(root).ok().map(Path::to_owned)
    }
}

/// The files that a pattern names, sorted. The pattern is relative to `base` unless it is
/// absolute; `*` and `?` stay within a name and take no leading dot, `**` is any number of
/// directories. A pattern without any of these names one file, whether it exists or not.
pub(super) fn expand(
    pattern: &str,
    base: &Path,
    files: &dyn ReadFiles,
) -> io::Result<Vec<PathBuf>> {
    if !glob::is_pattern(pattern) {
        return Ok(vec![tidy(&base.join(pattern))]);
    }
    let (base, rest) = match pattern.strip_prefix('/') {
        Some(rest) => (Path::new("/"), rest),
        None => (base, pattern),
    };
    let segments: Vec<&str> = rest.split('/').filter(|segment| !segment.is_empty()).collect();
    let mut found = Vec::new();
    walk(base, &segments, files, &mut found)?;
    let mut found: Vec<PathBuf> = found.iter().map(|path| tidy(path)).collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Without `.` in it, so that messages read as people write paths.
fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

fn walk(
    at: &Path,
    segments: &[&str],
    files: &dyn ReadFiles,
    found: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let Some((segment, rest)) = segments.split_first() else { return Ok(()) };
    if *segment == ".." || *segment == "." {
        return walk(&at.join(segment), rest, files, found);
    }
    let entries = match files.list(at) {
        Ok(entries) => entries,
        // A directory that is not there has no files in it.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if *segment == "**" {
        walk(at, rest, files, found)?;
        for entry in entries.iter().filter(|entry| entry.directory && !entry.name.starts_with('.'))
        {
            walk(&at.join(&entry.name), segments, files, found)?;
        }
        return Ok(());
    }
    for entry in &entries {
        let hidden = entry.name.starts_with('.') && !segment.starts_with('.');
        if hidden || !glob::matches(segment, &entry.name) {
            continue;
        }
        if !rest.is_empty() {
            walk(&at.join(&entry.name), rest, files, found)?;
        } else if !entry.directory {
            found.push(at.join(&entry.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_in_their_directory_and_come_sorted() {
        let root = tempfile::tempdir().unwrap();
        for file in ["teams/b.toml", "teams/a.toml", "teams/.c.toml", "teams/x/d.toml", "e.txt"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let names = |pattern: &str| -> Vec<String> {
            let found = expand(pattern, root.path(), &Disk).unwrap();
            let short = |path: &PathBuf| path.strip_prefix(root.path()).unwrap().to_owned();
            found.iter().map(|path| short(path).display().to_string()).collect()
        };
        assert_eq!(names("teams/*.toml"), ["teams/a.toml", "teams/b.toml"]);
        assert_eq!(names("**/*.toml"), ["teams/a.toml", "teams/b.toml", "teams/x/d.toml"]);
        assert_eq!(names("./teams/?.toml"), ["teams/a.toml", "teams/b.toml"]);
        assert_eq!(names("nowhere/*.toml"), Vec::<String>::new());
        assert_eq!(names("nowhere.toml"), ["nowhere.toml"]);
    }

    #[test]
    fn a_directory_and_a_long_file_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(Disk.read(root.path(), 10), Err(ReadFailure::Directory)));
        let file = root.path().join("f");
        fs::write(&file, "12345678901").unwrap();
        assert!(matches!(Disk.read(&file, 10), Err(ReadFailure::TooLarge { limit: 10 })));
        assert_eq!(Disk.read(&file, 11).unwrap().len(), 11);
        assert!(matches!(Disk.read(&root.path().join("g"), 1), Err(ReadFailure::NotFound)));
    }
}
