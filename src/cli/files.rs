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

/// Writes a file whole or not at all: a reader never sees half of it. A link stays one, and what it
/// leads to is written.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::failed(format!("cannot write {}: {error}", path.display()))
    };
    let named = path.file_name().ok_or_else(|| {
        CliError::failed(format!("cannot write {}: it names no file", path.display()))
    })?;
    // What is not a plain file (a pipe) cannot be replaced, only written to. `/dev/stdout` may lead
    // to one that this process is writing.
    let device = ["/dev", "/proc"].iter().any(|root| path.starts_with(root));
    if device || fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let opened = fs::OpenOptions::new().append(true).open(path);
        return opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed);
    }
    let target = fs::canonicalize(path);
    let (path, named) = match &target {
        Ok(target) => (target.as_path(), target.file_name().unwrap_or(named)),
        Err(_) => (path, named),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_link_stays_a_link_and_its_file_is_written() {
        let desk = tempfile::tempdir().unwrap();
        let (real, link) = (desk.path().join("real"), desk.path().join("link"));
        fs::write(&real, "before").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        write(&link, "after").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&real).unwrap(), "after");
        assert_eq!(fs::read_dir(desk.path()).unwrap().count(), 2);
    }
}
