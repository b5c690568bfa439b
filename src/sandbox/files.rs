//! The world on disk: a snapshot, a log of later writes, a lock and the owner's ready file.
//!
//! `sandbox.json` is the snapshot, `sandbox.log` beside it one JSON line for each batch that was
//! committed since. Both are folded together at the start and at a clean stop. Everything is
//! readable by its owner only, because the world holds keys.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    doc::Doc,
    ready::Ready,
    store::{Sink, Store, Write},
};

/// The world's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading or writing one of them.
    #[error("{verb} `{}`", path.display())]
    Io {
        /// `reading`, `writing`, …
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another run owns the world.
    #[error("the sandbox `{}` is in use by another run", path.display())]
    Locked {
        /// The snapshot.
        path: PathBuf,
        /// How to reach the run that owns it, if it is up.
        ready: Option<Box<Ready>>,
    },
    /// A file that is not what a sandbox wrote. It is left as it is.
    #[error("the sandbox file `{}` is damaged at line {line}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Snapshot {
    version: u32,
    revision: u64,
    docs: BTreeMap<String, Doc>,
}

#[derive(Serialize)]
struct SnapshotRef<'a> {
    version: u32,
    revision: u64,
    docs: BTreeMap<&'a str, &'a Doc>,
}

#[derive(Deserialize)]
struct Line {
    revision: u64,
    writes: Vec<Write>,
}

#[derive(Serialize)]
struct LineRef<'a> {
    revision: u64,
    writes: &'a [Write],
}

/// The format of snapshot and log.
const VERSION: u32 = 1;

/// A world that this run owns until it is dropped.
#[derive(Debug)]
pub struct Files {
    snapshot: PathBuf,
    log: PathBuf,
    ready: PathBuf,
    /// The revision that the snapshot holds: a run that only reads rewrites nothing.
    folded: Cell<u64>,
    _lock: File,
}

/// What was read from disk.
pub struct Opened {
    /// The files, locked.
    pub files: Files,
    /// The world, which appends to the log.
    pub store: Store,
    /// A last line of the log that was cut short was dropped.
    pub torn: bool,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("files", &self.files)
            .field("torn", &self.torn)
            .finish_non_exhaustive()
    }
}

impl Files {
    /// Opens the world at `snapshot` (usually `.widentity/sandbox.json`), or begins one.
    pub fn open(snapshot: &Path) -> Result<Opened, FileError> {
        let beside = |extension: &str| snapshot.with_extension(extension);
        let files = Self {
            snapshot: snapshot.to_owned(),
            log: beside("log"),
            ready: beside("ready.json"),
            folded: Cell::new(0),
            _lock: lock(snapshot, &beside("lock"), &beside("ready.json"))?,
        };
        // Left by a run that was killed: whoever is refused the lock must not follow it.
        files.remove_ready();
        let (mut docs, mut revision) = files.read_snapshot()?;
        let kept = revision;
        let torn = files.replay(&mut docs, &mut revision)?;
        if revision != kept || !snapshot.exists() {
            files.write_snapshot(docs.iter().map(|(key, doc)| (key.as_str(), doc)), revision)?;
        }
        files.folded.set(revision);
        let log = private(&files.log, |options| options.append(true).create(true))
            .map_err(at("opening", &files.log))?;
        log.set_len(0).map_err(at("emptying", &files.log))?;
        let store = Store::new(docs, revision, Some(Box::new(Log { file: log })));
        Ok(Opened { files, store, torn })
    }

    /// Folds the world into the snapshot and empties the log. Call it when nothing writes any
    /// more.
    pub fn fold(&self, store: &Store) -> Result<(), FileError> {
        let world = store.lock();
        if world.revision() != self.folded.get() {
            self.write_snapshot(world.range("", ""), world.revision())?;
            self.folded.set(world.revision());
        }
        let log = private(&self.log, |options| options.write(true).create(true))
            .map_err(at("opening", &self.log))?;
        log.set_len(0).map_err(at("emptying", &self.log))
    }

    /// Tells other runs how to reach this one.
    pub fn write_ready(&self, ready: &Ready) -> Result<(), FileError> {
        write_private(&self.ready, ready.to_json().as_bytes())
    }

    /// Takes back what [`Files::write_ready`] told.
    pub fn remove_ready(&self) {
        drop(std::fs::remove_file(&self.ready));
    }

    /// The directory of the world, for files that belong to it.
    pub fn directory(&self) -> &Path {
        self.snapshot.parent().unwrap_or(Path::new("."))
    }

    fn read_snapshot(&self) -> Result<(BTreeMap<String, Doc>, u64), FileError> {
        let path = &self.snapshot;
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((BTreeMap::new(), 0));
            }
            Err(source) => return Err(at("reading", path)(source)),
        };
        let damaged =
            |line: usize, reason: String| FileError::Damaged { path: path.clone(), line, reason };
        let snapshot: Snapshot = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(error.line(), error.to_string()))?;
        if snapshot.version != VERSION {
            let reason = format!("version {} is not known here", snapshot.version);
            return Err(damaged(1, reason));
        }
        Ok((snapshot.docs, snapshot.revision))
    }

    /// Applies the log. Returns whether a torn last line was dropped.
    fn replay(
        &self,
        docs: &mut BTreeMap<String, Doc>,
        revision: &mut u64,
    ) -> Result<bool, FileError> {
        let mut log = match File::open(&self.log) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(at("reading", &self.log)(source)),
        };
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            log.read_until(b'\n', &mut text).map_err(at("reading", &self.log))?;
            // A whole line ends in a line feed, so the last piece is empty or torn.
            if text.last() != Some(&b'\n') {
                break;
            }
            let line: Line = serde_json::from_slice(&text).map_err(|error| FileError::Damaged {
                path: self.log.clone(),
                line: number,
                reason: error.to_string(),
            })?;
            // A run that ended between folding and emptying left lines that are in the snapshot.
            if line.revision <= *revision {
                continue;
            }
            *revision = line.revision;
            for write in line.writes {
                match write.value {
                    Some(doc) => drop(docs.insert(write.key, doc)),
                    None => drop(docs.remove(&write.key)),
                }
            }
        }
        Ok(!text.is_empty())
    }

    fn write_snapshot<'a>(
        &self,
        docs: impl Iterator<Item = (&'a str, &'a Doc)>,
        revision: u64,
    ) -> Result<(), FileError> {
        let snapshot = SnapshotRef { version: VERSION, revision, docs: docs.collect() };
        replace_private(&self.snapshot, |file| Ok(serde_json::to_writer(file, &snapshot)?))
    }
}

fn at(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { verb, path, source }
}

fn lock(snapshot: &Path, path: &Path, ready: &Path) -> Result<File, FileError> {
    if let Some(directory) = snapshot.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(at("making", directory))?;
    }
    let file =
        private(path, |options| options.write(true).create(true)).map_err(at("opening", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let ready = std::fs::read(ready).ok().and_then(|bytes| Ready::from_json(&bytes));
            Err(FileError::Locked { path: snapshot.to_owned(), ready: ready.map(Box::new) })
        }
        Err(TryLockError::Error(source)) => Err(at("locking", path)(source)),
    }
}

/// Opens a file that only its owner may read.
fn private(path: &Path, how: impl Fn(&mut OpenOptions) -> &mut OpenOptions) -> io::Result<File> {
    let mut options = OpenOptions::new();
    how(&mut options);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes a file that only its owner may read, whole or not at all.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace_private(path, |file| file.write_all(bytes))
}

fn replace_private(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), FileError> {
    let draft = path.with_extension("new");
    // A draft of an earlier run may have other permissions.
    drop(std::fs::remove_file(&draft));
    let write = || {
        let file = private(&draft, |options| options.write(true).create_new(true))?;
        let mut file = BufWriter::new(file);
        fill(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().map_err(at("writing", path))
}

struct Log {
    file: File,
}

impl Sink for Log {
    fn append(&mut self, revision: u64, writes: &[Write]) -> io::Result<()> {
        let mut line = serde_json::to_vec(&LineRef { revision, writes })?;
        line.push(b'\n');
        // One write call: a line is whole or it is the last and torn.
        self.file.write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join(".widentity/sandbox.json")
    }

    #[test]
    fn writes_survive_a_run_that_was_killed() {
        let directory = tempfile::tempdir().unwrap();
        let opened = Files::open(&path(&directory)).unwrap();
        opened.store.commit(vec![Write::put("a", json!(1)), Write::put("b", json!(2))]).unwrap();
        opened.store.commit(vec![Write::remove("a")]).unwrap();
        drop(opened);
        let log = path(&directory).with_extension("log");
        let mut bytes = std::fs::read(&log).unwrap();
        bytes.extend(b"{\"revision\":3,\"wri");
        std::fs::write(&log, bytes).unwrap();
        let again = Files::open(&path(&directory)).unwrap();
        assert!(again.torn);
        assert_eq!(again.store.get("a"), None);
        assert_eq!(*again.store.get("b").unwrap(), json!(2));
        assert_eq!(again.store.lock().revision(), 2);
        assert!(std::fs::read(&log).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_world_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = path(&directory);
        drop(Files::open(&file).unwrap());
        std::fs::write(&file, "{\"version\": 1,\n").unwrap();
        let error = Files::open(&file).unwrap_err();
        assert!(matches!(error, FileError::Damaged { .. }), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), b"{\"version\": 1,\n");
        std::fs::write(&file, "{\"version\": 1, \"revision\": 0, \"docs\": {}}").unwrap();
        std::fs::write(file.with_extension("log"), "junk\n{}\n").unwrap();
        let error = Files::open(&file).unwrap_err();
        assert!(matches!(error, FileError::Damaged { line: 1, .. }), "{error}");
    }

    #[test]
    fn a_second_run_learns_who_owns_the_world() {
        let directory = tempfile::tempdir().unwrap();
        let opened = Files::open(&path(&directory)).unwrap();
        let ready = Ready { resource_manager: "https://localhost:1".into(), ..Ready::default() };
        opened.files.write_ready(&ready).unwrap();
        let FileError::Locked { ready: Some(found), .. } =
            Files::open(&path(&directory)).unwrap_err()
        else {
            panic!("the world was not locked");
        };
        assert_eq!(*found, ready);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_the_world() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let opened = Files::open(&path(&directory)).unwrap();
        opened.store.commit(vec![Write::put("a", json!(1))]).unwrap();
        for extension in ["json", "log", "lock"] {
            let file = path(&directory).with_extension(extension);
            let mode = std::fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{extension}");
        }
    }
}
