//! The workspace on disk, and the programs that tasks run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::{Failure, OnFile};

/// Where the workspace is.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace that this was built from.
    pub(crate) fn here() -> Self {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { root: own.parent().expect("xtask is a directory of the workspace").to_owned() }
    }

    /// A file or directory of the workspace.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Where cargo builds.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.path("target"), |dir| self.root.join(dir))
    }

    /// Cargo, to be run in the workspace. It is the one that runs this, where one does.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }

    /// A program, to be run in the workspace.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.current_dir(&self.root);
        command
    }

    /// Every file under version control or about to be, relative to the root, sorted.
    pub(crate) fn files(&self) -> Result<Vec<String>, Failure> {
        let text = output(self.program("git").args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]))?;
        let mut files: Vec<String> = text.split('\0').filter(|f| !f.is_empty()).map(str::to_owned).collect();
        files.retain(|f| self.path(f).is_file());
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// The text of a file.
    pub(crate) fn read(&self, relative: &str) -> Result<String, Failure> {
        read(&self.path(relative))
    }

    /// The version of the workspace's packages.
    pub(crate) fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// Builds `toprope` with a profile; returns where it is.
    pub(crate) fn build_toprope(&self, profile: &str) -> Result<PathBuf, Failure> {
        let directory = if profile == "dev" { "debug" } else { profile };
        let arguments = ["build", "--locked", "--package", "toprope-cli", "--bin", "toprope", "--profile", profile];
        run(self.cargo().args(arguments))?;
        Ok(self.target().join(directory).join("toprope"))
    }
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).on("read", path)
}

/// Writes a file and the directories above it.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Failure> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).on("create", parent)?;
    }
    std::fs::write(path, content).on("write", path)
}

/// Runs a program that speaks for itself.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(|error| Failure::Start { command: words(command), error })?;
    if status.success() { Ok(()) } else { Err(Failure::Failed { command: words(command), why: status.to_string() }) }
}

/// Runs a program that is asked something: what it printed. It gets no terminal, not even to measure its width.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().map_err(|error| Failure::Start { command: words(command), error })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let why = format!("{}\n{}", output.status, text(&output.stderr).trim());
    Err(Failure::Failed { command: words(command), why: why.trim().to_owned() })
}

fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
