//! The program as a person runs it, in a directory of its own and with an empty environment.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A file of one workload that is granted nothing, in one cluster.
pub(crate) const NO_GRANTS: &str = r#"
version = 1
project = "small"

[azure]
tenant = "5d1f0c2e-7a44-4c1b-9e37-2f8a6b90c451"
subscription = "a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813"
resource_group = "rg-identities"
location = "westeurope"

[clusters.prod]
id = "/subscriptions/a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks"

[[workloads]]
namespace = "payments"
service_account = "api"
grants = []
"#;

/// A directory with a home in it.
pub(crate) struct Desk {
    directory: TempDir,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("home")).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The program with these arguments, split at spaces.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_widentity"));
        command
            .args(line.split_whitespace())
            .current_dir(self.directory.path())
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", "/nonexistent")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Ran {
        self.finish(&mut self.command(line))
    }

    pub(crate) fn finish(&self, command: &mut Command) -> Ran {
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("output is UTF-8");
            text.replace(&self.directory.path().display().to_string(), "[desk]")
        };
        let ran = Ran {
            code: output.status.code().expect("it was not killed"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        assert!(!ran.stderr.contains("internal error:"), "{ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
        ran
    }
}

impl Ran {
    /// Asserts the exit code and gives the rest back.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that standard error says something.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Self {
        assert!(self.stderr.contains(words), "`{words}` is not in:\n{}", self.stderr);
        self
    }

    /// Asserts that standard output shows something.
    #[track_caller]
    pub(crate) fn shows(self, words: &str) -> Self {
        assert!(self.stdout.contains(words), "`{words}` is not in:\n{}", self.stdout);
        self
    }
}

/// Whether a directory holds nothing but what was put there.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
