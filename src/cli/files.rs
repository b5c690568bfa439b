//! Files that options name.

use std::{fs, io::Write as _, path::Path};

use super::error::CliError;

/// The largest file that an option may name, in bytes: the plan of 100,000 objects fits.
const LARGEST: u64 = 256 << 20;

/// Reads a file as text; the path is in the error.
pub(super) fn read(path: &Path) -> Result<String, CliError> {
    let failed = |why: String| CliError::failed(format!("cannot read {}: {why}", path.display()));
    let length = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > LARGEST {
        return Err(failed(format!("it is larger than {} MB", LARGEST >> 20)));
    }
    let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".to_owned()))
}

/// Writes a file whole or not at all: a reader never sees half of it.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::failed(format!("cannot write {}: {error}", path.display()))
    };
    let named = path.file_name().ok_or_else(|| {
        CliError::failed(format!("cannot write {}: it names no file", path.display()))
    })?;
    // What is not a plain file (`/dev/stdout`, a pipe) cannot be replaced, only written to.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return fs::write(path, text).map_err(failed);
    }
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(named);
    hidden.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(hidden);
    let written = fs::File::create(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        if let Ok(before) = fs::metadata(path) {
            file.set_permissions(before.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    written.map_err(|error| {
        drop(fs::remove_file(&beside));
        failed(error)
    })
}
