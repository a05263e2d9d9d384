//! What is shipped: one static binary, and a Debian package of it. Both are tried before they count as made.

mod check;
mod licences;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, OnFile};
use crate::workspace::{self, Workspace, output, run};

/// Where each shell looks for completions that a package brings.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/toprope"),
    ("zsh", "usr/share/zsh/vendor-completions/_toprope"),
    ("fish", "usr/share/fish/vendor_completions.d/toprope.fish"),
];

/// How to build what is shipped.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The profile of Cargo.toml to build with; `ci` is there in half the time, for trying this task itself
    #[arg(long, default_value = "release")]
    profile: String,
}

/// As Debian's tools want it: a name and an address.
const MAINTAINER: &str = "The Toprope authors <toprope@users.noreply.github.com>";

/// Makes everything in `target/dist`.
pub(crate) fn dist(workspace: &Workspace, args: &Args) -> Result<(), Failure> {
    let out = workspace.target().join("dist");
    std::fs::create_dir_all(&out).on("create", &out)?;
    let binary = out.join("toprope");
    let built = build_static(workspace, &args.profile)?;
    std::fs::copy(&built, &binary).on("copy", &built)?;
    check::is_static(&binary)?;
    let package = package(workspace, &binary, &out)?;
    check::package(workspace, &package)?;
    for made in [&binary, &package] {
        let size = std::fs::metadata(made).on("read", made)?.len();
        println!("{} ({:.1} MB)", made.display(), size as f64 / 1e6);
    }
    Ok(())
}

/// Builds with the C library linked in. `--target` is given although it is this machine's own: without it the flag
/// would also go to the compiler's plugins, which cannot be static.
fn build_static(workspace: &Workspace, profile: &str) -> Result<PathBuf, Failure> {
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--package", "toprope-cli", "--bin", "toprope"]);
    cargo.args(["--profile", profile, "--target", &target()]);
    cargo.env("RUSTFLAGS", format!("{flags} -C target-feature=+crt-static"));
    run(&mut cargo)?;
    let directory = if profile == "dev" { "debug" } else { profile };
    Ok(workspace.target().join(target()).join(directory).join("toprope"))
}

/// This machine's own: cross-building is not what this is for.
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Debian's name for this architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Makes the package from a tree of files.
fn package(workspace: &Workspace, binary: &Path, out: &Path) -> Result<PathBuf, Failure> {
    let tree = tempfile::tempdir().on("create", "a temporary directory")?;
    let root = tree.path();
    fill(workspace, binary, root)?;
    let size = directory_size(root)?.div_ceil(1024);
    // What `dpkg --verify` compares with.
    let sums =
        output(Command::new("sh").args(["-c", "find usr -type f | sort | xargs -d '\\n' md5sum"]).current_dir(root))?;
    workspace::write(&root.join("DEBIAN/md5sums"), sums)?;
    workspace::write(&root.join("DEBIAN/control"), control(workspace.version(), size))?;

    let package = out.join(format!("toprope_{}_{}.deb", workspace.version(), architecture()));
    // Every file gets the time of the commit, so that the same commit makes the same package.
    let committed = output(workspace.program("git").args(["log", "-1", "--format=%ct"]))?;
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.args(["--build", "--root-owner-group", "-Zxz"]).arg(root).arg(&package);
    output(dpkg.env("SOURCE_DATE_EPOCH", committed.trim()))?;
    Ok(package)
}

/// Lays out what the package installs.
fn fill(workspace: &Workspace, binary: &Path, root: &Path) -> Result<(), Failure> {
    let installed = root.join("usr/bin/toprope");
    workspace::write(&installed, std::fs::read(binary).on("read", binary)?)?;
    for (shell, path) in COMPLETIONS {
        workspace::write(&root.join(path), output(Command::new(binary).args(["completions", shell]))?)?;
    }
    workspace::write(&root.join("usr/share/man/man1/toprope.1"), output(Command::new(binary).arg("man"))?)?;

    // The guide and reference, the schemas for editors, and the examples that the guide speaks of.
    let shipped = ["README.md", "docs/guide/", "docs/reference/", "schema/", "examples/"];
    for path in workspace.files()? {
        let wanted = shipped.iter().any(|start| path.starts_with(start)) && !path.starts_with("examples/shop/src/");
        if wanted && !path.ends_with(".rs") && !path.ends_with("Cargo.toml") {
            let text = std::fs::read(workspace.path(&path)).on("read", &path)?;
            workspace::write(&root.join("usr/share/doc/toprope").join(&path), text)?;
        }
    }
    let doc = root.join("usr/share/doc/toprope");
    let licences = licences::texts(workspace, &target())?;
    let texts = [
        ("copyright", copyright()),
        ("third-party-licences", licences),
        // Debian's own form, of which its tools read the version and the date; what changed is in the other one.
        ("changelog", changelog(workspace)?),
        ("CHANGELOG.md", workspace.read("CHANGELOG.md")?),
    ];
    for (name, text) in texts {
        workspace::write(&doc.join(name), text)?;
    }
    // Debian wants manual and changelog compressed; `n` leaves the time out, so that the package is the same again.
    let mut gzip = Command::new("gzip");
    gzip.arg("-9n").arg(root.join("usr/share/man/man1/toprope.1"));
    run(gzip.args(["changelog", "third-party-licences", "CHANGELOG.md"].map(|name| doc.join(name))))?;
    permissions(root, &installed)
}

fn changelog(workspace: &Workspace) -> Result<String, Failure> {
    let date = output(workspace.program("git").args(["log", "-1", "--format=%cD"]))?;
    let version = workspace.version();
    Ok(format!(
        "toprope ({version}) unstable; urgency=medium\n\n  * What changed is in CHANGELOG.md.gz.\n\n -- {MAINTAINER}  {}\n",
        date.trim()
    ))
}

/// Directories and the binary 755, files 644, whatever the umask was.
fn permissions(root: &Path, installed: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    for path in walk(root)? {
        let mode = if path.is_dir() || path == installed { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).on("change the mode of", &path)?;
    }
    Ok(())
}

/// A directory and everything below it.
fn walk(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = vec![directory.to_owned()];
    for entry in std::fs::read_dir(directory).on("read", directory)? {
        let path = entry.on("read", directory)?.path();
        if path.is_dir() { found.extend(walk(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

fn directory_size(root: &Path) -> Result<u64, Failure> {
    walk(root)?.iter().map(|path| Ok(std::fs::metadata(path).on("read", path)?.len())).sum()
}

fn control(version: &str, kibibytes: u64) -> String {
    format!(
        "Package: toprope\n\
         Version: {version}\n\
         Architecture: {}\n\
         Maintainer: {MAINTAINER}\n\
         Installed-Size: {kibibytes}\n\
         Section: admin\n\
         Priority: optional\n\
         Recommends: ca-certificates\n\
         Homepage: {}\n\
         Description: chaos engineering: fall on purpose, get caught every time\n \
         States a hypothesis about a running system, injects a real fault outside the\n \
         application, observes, always undoes, judges and reports. One static binary.\n",
        architecture(),
        env!("CARGO_PKG_REPOSITORY"),
    )
}

fn copyright() -> String {
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: toprope\n\
         Source: {}\n\n\
         Files: *\n\
         Copyright: The Toprope authors\n\
         License: Apache-2.0\n\
         Comment: The binary holds crates and a C library of others, under licences of their\n \
         own: see third-party-licences.gz beside this file.\n\n\
         License: Apache-2.0\n \
         On Debian systems the whole text is in /usr/share/common-licenses/Apache-2.0.\n",
        env!("CARGO_PKG_REPOSITORY"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_file_has_no_blank_line_and_indents_its_description() {
        let text = control("1.2.3", 10);
        assert!(text.lines().all(|line| !line.trim().is_empty()), "{text}");
        let description = text.lines().skip_while(|line| !line.starts_with("Description:")).skip(1);
        assert!(description.clone().count() > 0);
        description.for_each(|line| assert!(line.starts_with(' '), "{line}"));
        assert!(text.contains("Version: 1.2.3\n") && text.ends_with('\n'));
    }
}
