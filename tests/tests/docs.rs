//! What README and guide show is what happens: every command in them is run, every manifest is validated.
//!
//! A page is one story. Its blocks are taken in order, in a directory, a network and a list of processes of their own:
//!
//! - ```` ```console ````: lines that begin with `$ ` are run, and what is shown under them must be what they print.
//!   Numbers (any word with a digit) may differ, and `…` stands for anything. The verdict or error that is shown says
//!   how the command must end; where none is shown, it must succeed. One that ends with ` &` goes on beside the others,
//!   once it has printed what is shown or, where nothing is, once something listens.
//! - ```` ```yaml NAME ```` (or any other language with a name): the file is written for the commands that follow.
//! - ```` ```yaml ```` is validated: an experiment or a topology as it is; within a small manifest a list of probes or of
//!   steps (it begins with `- `) or any other part of a `spec`.
//! - `<!-- not run: REASON -->` before a block leaves it out, `<!-- needs: PROGRAM, … -->` names what a page uses, which
//!   may be `root`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use toprope_tests::pages::{Block, blocks, read, root};
use toprope_tests::programs::{find, installed};
use toprope_tests::{Toprope, is_root, skip, within};

/// How long a command of a page may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);

macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        $(
            #[test]
            fn $test() {
                page($page);
            }
        )*

        const PAGES: &[&str] = &[$($page),*];
    };
}

pages! {
    readme: "README.md",
    first_experiment: "docs/guide/first-experiment.md",
    manifest: "docs/guide/manifest.md",
    verdicts: "docs/guide/verdicts.md",
    ci: "docs/guide/ci.md",
    safety: "docs/guide/safety.md",
    privileges: "docs/guide/privileges.md",
    servers: "examples/servers/README.md",
}

#[test]
fn every_page_of_the_guide_is_run() {
    let entries = std::fs::read_dir(root().join("docs/guide")).expect("the guide is there");
    let there: BTreeSet<String> =
        entries.flatten().map(|e| format!("docs/guide/{}", e.file_name().to_string_lossy())).collect();
    let run: BTreeSet<String> = PAGES.iter().filter(|p| p.starts_with("docs/")).map(|p| (*p).to_owned()).collect();
    assert_eq!(there, run);
}

#[test]
fn links_lead_somewhere() {
    for page in PAGES {
        let from = root().join(page);
        let text = read(page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { from.clone() } else { from.parent().expect("a file").join(file) };
            assert!(file.exists(), "{page}: there is no {target}");
            let headings = || {
                let text = std::fs::read_to_string(&file).unwrap();
                text.lines().filter_map(|l| l.strip_prefix('#')).map(anchor_of).collect::<Vec<_>>()
            };
            assert!(anchor.is_empty() || headings().iter().any(|h| h == anchor), "{page}: there is no {target}");
        }
    }
}

#[test]
fn the_readme_names_every_fault_and_every_probe() {
    let toprope = Toprope::new();
    let readme = read("README.md");
    for table in ["faults", "probes"] {
        let listed = toprope.run(&[table]).expect(0).stdout;
        let there: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
        let link = format!("docs/reference/{table}.md#");
        let named: BTreeSet<&str> = readme.split(&link).skip(1).filter_map(|rest| rest.split(')').next()).collect();
        assert_eq!(named, there, "{table}");
    }
}

#[test]
fn the_readme_shows_the_first_example_as_it_is() {
    let first = read("examples/first.yaml");
    assert!(blocks(&read("README.md")).iter().any(|block| block.language == "yaml" && block.text == first));
}

/// The anchor of a heading, as GitHub makes it.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Does what a page tells its reader to do.
fn page(name: &str) {
    let text = read(name);
    let needs =
        text.lines().filter_map(|l| l.strip_prefix("<!-- needs:")).flat_map(|l| l.trim_end_matches("-->").split(','));
    let mut needs: Vec<&str> = needs.map(str::trim).collect();
    let with_root = needs.contains(&"root");
    needs.retain(|need| *need != "root");
    needs.extend(["bash", "unshare", "ip"]);
    if !installed(&needs) || (with_root && !is_root()) {
        return;
    }
    let toprope = Toprope::new();
    if with_root {
        never_as_root(&toprope);
    }
    std::os::unix::fs::symlink(root().join("examples"), toprope.path("examples")).expect("the directory is ours");
    let Some(mut shell) = Shell::start(&toprope) else { return };
    for block in blocks(&text).iter().filter(|b| b.left_out.is_none()) {
        let at = format!("{name}:{}", block.line);
        if let Some(file) = block.name.as_ref().filter(|name| *name != "fragment") {
            let directory = toprope.path(file).parent().expect("a file is in a directory").to_owned();
            std::fs::create_dir_all(directory).expect("the directory is ours");
            toprope.write(file, &block.text);
        }
        match block.language.as_str() {
            "console" => commands(&block.text).iter().for_each(|command| shell.follow(&at, command)),
            "yaml" => validate(&toprope, &at, block),
            _ => {}
        }
    }
    shell.follow(name, &Shown { command: "toprope residue".into(), output: "clean: …".into() });
}

/// Puts programs in front of those that refuse to be root, as the tests may be: they start them as nobody, who may write
/// beside them.
fn never_as_root(toprope: &Toprope) {
    let open = std::fs::Permissions::from_mode(0o1777);
    std::fs::set_permissions(toprope.directory(), open).expect("the directory is ours");
    for (name, how) in [
        ("initdb", "setpriv --reuid nobody --regid nogroup --clear-groups -- PROGRAM"),
        ("postgres", "setpriv --reuid nobody --regid nogroup --clear-groups -- PROGRAM"),
        ("pgbouncer", "PROGRAM --user nobody"),
    ] {
        if let Some(program) = find(name) {
            let how = how.replace("PROGRAM", &program.display().to_string());
            let path = toprope.write(name, format!("#!/bin/sh\nexec {how} \"$@\"\n"));
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
        }
    }
}

/// Validates a manifest, or a part of one within a whole one.
fn validate(toprope: &Toprope, at: &str, block: &Block) {
    match &block.name {
        Some(file) if block.is_whole() => {
            // Where it lies, with the files that it names.
            let done = toprope.run(&["validate", file]);
            assert_eq!(done.code, Some(0), "{at}: {done}");
            return;
        }
        Some(file) if file != "fragment" => return, // A part that others include.
        _ => {}
    }
    let wholes = block.wholes();
    let tried: Vec<_> = wholes
        .iter()
        .map(|text| {
            toprope.write("fragment.yaml", text);
            toprope.run(&["validate", "fragment.yaml"])
        })
        .collect();
    let told: Vec<String> = tried.iter().map(ToString::to_string).collect();
    assert!(tried.iter().any(|done| done.code == Some(0)), "{at}: {}", told.join("\n"));
}

/// A command, and what a page shows under it.
#[derive(Debug)]
struct Shown {
    command: String,
    output: String,
}

fn commands(block: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut goes_on = false;
    for line in block.lines() {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (Some(command), _) if !goes_on => all.push(Shown { command: command.into(), output: String::new() }),
            (_, Some(last)) if goes_on => last.command.push_str(&format!("\n{line}")),
            (_, Some(last)) => last.output.push_str(&format!("{line}\n")),
            (_, None) => panic!("a console block begins with a command: {line}"),
        }
        goes_on = all.last().is_some_and(|last| last.output.is_empty() && last.command.ends_with('\\'));
    }
    all
}

impl Shown {
    /// How it must end by what is shown.
    fn exit(&self) -> i32 {
        let verdicts = [("✔ HELD", 0), ("✘ REFUTED", 1), ("? INCONCLUSIVE (stopped", 5), ("? INCONCLUSIVE", 3)];
        if let Some((_, code)) = verdicts.iter().find(|(word, _)| self.output.contains(word)) {
            return *code;
        }
        let error = self.output.lines().any(|line| line.starts_with("  × ") || line.starts_with("error: "));
        if error { 2 } else { 0 }
    }

    /// What is shown and was not printed, or not in this order.
    fn missing(&self, printed: &str) -> Option<String> {
        let printed = plain(printed);
        let mut rest = printed.as_str();
        let missing = |part: &&str| match rest.split_once(*part) {
            Some((_, behind)) => {
                rest = behind;
                false
            }
            None => true,
        };
        let shown = plain(&self.output);
        shown.split('…').map(str::trim).filter(|part| !part.is_empty()).find(missing).map(str::to_owned)
    }
}

/// A text without what differs from run to run: words with a digit are `#`, and blanks and line ends are one blank.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for word in text.split_whitespace() {
        let parts = word.split_inclusive(|c: char| !(c.is_alphanumeric() || "._-".contains(c)));
        for part in parts {
            let mut end = part.char_indices().rev();
            let mark = end.next().filter(|(_, c)| !(c.is_alphanumeric() || "._-".contains(*c)));
            let (body, mark) = mark.map_or((part, ""), |(at, _)| part.split_at(at));
            let body = if body.contains(|c: char| c.is_ascii_digit()) { "#" } else { body };
            plain.push_str(body);
            plain.push_str(mark);
        }
        plain.push(' ');
    }
    plain
}

/// A shell in a network, and with processes, of its own: what it started ends with it, and a fault of it can hit nothing
/// else of this host.
struct Shell {
    child: Child,
    directory: PathBuf,
    count: u32,
}

impl Shell {
    /// Starts it; `None`, and says so, where this kernel does not let us.
    fn start(toprope: &Toprope) -> Option<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let errors = File::create(toprope.path("shell")).expect("the directory is ours");
        command.args(["--", "bash", "--norc"]).current_dir(toprope.directory());
        command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", toprope.directory().display()));
        command.env("TOPROPE_HOME", toprope.home()).env("NO_COLOR", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        for variable in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "RUST_BACKTRACE", "CLICOLOR_FORCE", "CI"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors);
        let child = command.spawn().expect("unshare is installed");
        let mut shell = Self { child, directory: toprope.directory().to_owned(), count: 0 };
        // Orders to halt, and what root left on this machine, are outside of the page.
        shell.say("mount -t tmpfs none /run; [ ! -d /var/lib/toprope ] || mount -t tmpfs none /var/lib/toprope");
        shell.say("set -m; ip link set lo up && : >ready");
        let ready = shell.directory.join("ready");
        let up = || ready.exists() || !matches!(shell.child.try_wait(), Ok(None));
        within(PATIENCE, "the shell starts or ends", up);
        if ready.exists() {
            return Some(shell);
        }
        let why = std::fs::read_to_string(shell.directory.join("shell")).unwrap_or_default();
        assert!(!is_root(), "{why}");
        skip(&format!("a network of its own cannot be had: {}", why.trim()));
        None
    }

    fn say(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("it is piped");
        // A shell that is gone is told by what it should have done.
        let _ = writeln!(input, "{text}").and_then(|()| input.flush());
    }

    /// Runs a command, and holds what it prints and how it ends against what the page shows.
    fn follow(&mut self, at: &str, shown: &Shown) {
        self.count += 1;
        let (out, code) = (format!("out-{}", self.count), self.directory.join(format!("code-{}", self.count)));
        let listening = self.listening();
        let beside = shown.command.ends_with(" &");
        // Written under another name first, so that it is there only once it is whole.
        let ends = format!("code=$?; echo $code >code; mv code {}", code.display());
        self.say(&format!("(exit ${{code:-0}})\n{{ {}\n}} >{out} 2>&1 </dev/null; {ends}", shown.command));
        within(PATIENCE, &format!("{at}: `{}` ends", shown.command), || code.exists());
        let printed = || std::fs::read_to_string(self.directory.join(&out)).unwrap_or_default();
        if beside {
            let up = || match shown.output.as_str() {
                "" => self.listening() > listening,
                _ => shown.missing(&printed()).is_none(),
            };
            within(PATIENCE, &format!("{at}: `{}` is up", shown.command), up);
            return;
        }
        let printed = printed();
        let code = std::fs::read_to_string(&code).expect("it is there");
        assert_eq!(code.trim(), shown.exit().to_string(), "{at}: exit code of `{}`\n{printed}", shown.command);
        if let Some(missing) = shown.missing(&printed) {
            panic!("{at}: `{}` printed\n{printed}\nand not (by then)\n{missing}", shown.command);
        }
    }

    /// How many sockets listen in its network.
    fn listening(&self) -> usize {
        let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.child.id())).unwrap_or_default();
        sockets.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A")).count()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The kernel ends all that it started with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
