//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Chaos engineering: state a hypothesis about a running system, inject a real fault, observe, always undo, judge.
#[derive(Debug, Parser)]
#[command(name = "toprope", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 held, 1 refuted, 2 invalid input, 3 inconclusive, 4 not everything could be undone, \
5 stopped before a verdict.\nBegin with `toprope init`, or see it all with `toprope demo`."
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a first experiment from what is listening on this machine
    Init(InitArgs),
    /// Check manifests, without looking at this host
    Validate(ValidateArgs),
    /// Say what a run would do here and now, and change nothing
    Plan(PlanArgs),
    /// Run an experiment to its verdict
    Run(RunArgs),
    /// Inject one fault without a file: the same checks, the same record
    Inject(InjectArgs),
    /// Run every experiment of a directory as a suite
    Test(TestArgs),
    /// Run any command, such as a test suite, under faults
    Exec(ExecArgs),
    /// List runs
    Runs(RunsArgs),
    /// Render the report of a run
    Report(ReportArgs),
    /// Render a run's report again from its log alone, byte for byte
    Replay(ReplayArgs),
    /// Stop every run on this host, or on one service, and forbid new ones
    Halt(HaltArgs),
    /// Stop one run
    Stop(StopArgs),
    /// Undo what was left in force on this host
    Undo(UndoArgs),
    /// List what chaos left on this host, Toprope's and others'; exit 0 means that nothing of Toprope's is left
    Residue(ResidueArgs),
    /// Install a systemd unit that undoes at boot what a crash of the machine left
    InstallGuard(InstallGuardArgs),
    /// Start injectors with root's rights for users, as far as the host's policy allows
    Launcher(LaunchServiceArgs),
    /// List the faults, or explain one
    Faults(KindArgs),
    /// List the probes, or explain one
    Probes(KindArgs),
    /// Start a broken and a repaired shop, and show five hypotheses refuted and held
    Demo(DemoArgs),
    /// Print the JSON schema of manifests, for an editor
    Schema(SchemaArgs),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Run a service of the demo shop
    #[command(hide = true)]
    Shop(ShopArgs),
}

/// What a manifest is made of.
#[derive(Debug, clap::Args, Clone, Default)]
pub struct ManifestArgs {
    /// The manifest; `-` is standard input
    pub file: PathBuf,
    /// Set a value that the manifest uses as `${NAME}`
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

/// How a run shows itself and what it writes.
#[derive(Debug, clap::Args, Clone, Default)]
pub struct OutputArgs {
    /// Print every event as a line of JSON
    #[arg(long)]
    pub json: bool,
    /// Print plain lines, also on a terminal
    #[arg(long)]
    pub plain: bool,
    /// Write the report as a page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the report as Markdown
    #[arg(long, value_name = "FILE")]
    pub md: Option<PathBuf>,
    /// Write the result as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The file to write; standard output if it is `-`
    #[arg(default_value = "experiment.yaml")]
    pub file: PathBuf,
    /// The port of the service to begin with, instead of the first that answers
    #[arg(long)]
    pub port: Option<u16>,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, clap::Args)]
pub struct ValidateArgs {
    /// The manifests; `-` is standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Set a value that the manifests use as `${NAME}`
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

/// Who starts the injectors.
#[derive(Debug, clap::Args, Clone, Default)]
pub struct LauncherArgs {
    /// Have injectors started by the host's launcher, with root's rights as far as its policy allows
    #[arg(long = "launcher", value_name = "SOCKET", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = crate::command::launcher::SOCKET)]
    pub socket: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct LaunchServiceArgs {
    /// The socket to listen on; every user may speak to it
    #[arg(long, value_name = "SOCKET", default_value = crate::command::launcher::SOCKET)]
    pub listen: PathBuf,
    /// The policy: root's, and writable by nobody else
    #[arg(long, value_name = "FILE", default_value = toprope_engine::injector::POLICY)]
    pub policy: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
    /// The seed, instead of the manifest's
    #[arg(long)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub launcher: LauncherArgs,
}

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The manifest; `-` is standard input
    #[arg(required_unless_present = "again")]
    pub file: Option<PathBuf>,
    /// Set a value that the manifest uses as `${NAME}`
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Run a recorded run anew, with the same manifest and seed
    #[arg(long, value_name = "RUN", conflicts_with = "file")]
    pub again: Option<String>,
    /// The seed, instead of the manifest's
    #[arg(long)]
    pub seed: Option<u64>,
    /// Find the largest value of a fault's parameter at which the hypothesis still holds
    #[arg(long, value_name = "PARAMETER=LOW..HIGH")]
    pub search: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub launcher: LauncherArgs,
}

#[derive(Debug, clap::Args)]
pub struct InjectArgs {
    /// The fault's kind; `toprope faults` lists them
    pub fault: String,
    /// Its parameters; a nested one as `target.process=nginx` or `target='{process: nginx}'`
    #[arg(value_name = "KEY=VALUE")]
    pub params: Vec<String>,
    /// How long it stays in force
    #[arg(long = "for", value_name = "DURATION")]
    pub for_: Option<String>,
    /// A URL that must answer well all along, or a whole probe as in a manifest: `{tcp: {connect: …}}`. Without one
    /// nothing is shown: the fault is injected and undone, and the verdict is inconclusive (exit code 3)
    #[arg(long, value_name = "URL|PROBE")]
    pub probe: Vec<String>,
    /// The hypothesis
    #[arg(long)]
    pub hypothesis: Option<String>,
    /// The seed
    #[arg(long)]
    pub seed: Option<u64>,
    /// Print the manifest to keep, and inject nothing
    #[arg(long)]
    pub print: bool,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub launcher: LauncherArgs,
}

#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// The directory, or files
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Set a value that the manifests use as `${NAME}`
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Stop at the first experiment that does not hold
    #[arg(long)]
    pub fail_fast: bool,
    #[command(flatten)]
    pub launcher: LauncherArgs,
}

#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// A fault as one word each: `network-latency to=127.0.0.1:5432 delay=200ms`
    #[arg(long = "fault", value_name = "FAULT KEY=VALUE…")]
    pub faults: Vec<String>,
    /// An address on this host's loopback that the command must reach, without a fault
    #[arg(long, value_name = "HOST:PORT")]
    pub reach: Vec<String>,
    /// The longest that the command may take
    #[arg(long, default_value = "10m")]
    pub timeout: String,
    /// The seed
    #[arg(long)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub output: OutputArgs,
    /// The command
    #[arg(last = true, required = true)]
    pub command: Vec<std::ffi::OsString>,
}

#[derive(Debug, clap::Args)]
pub struct RunsArgs {
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
    /// Show so many, the newest first
    #[arg(long, short = 'n', default_value_t = 20)]
    pub number: usize,
}

/// Which form a report takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// One self-contained page
    Html,
    /// Markdown
    Md,
    /// JSON
    Json,
    /// JUnit XML
    Junit,
}

#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// The run: its id, the beginning or end of it, or `last`
    #[arg(default_value = "last")]
    pub run: String,
    /// The form
    #[arg(long, value_enum, default_value = "md")]
    pub form: Form,
    /// Where to write it; standard output if it is not given
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only check that the log is as it was written
    #[arg(long)]
    pub verify: bool,
    /// With `--verify`: whose signature it must have, as a public key of Ed25519 in PEM
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub key: Option<PathBuf>,
    /// Sign the log with a private key of Ed25519 in PEM, in a file beside it
    #[arg(long, value_name = "KEY", conflicts_with_all = ["verify", "form", "output"])]
    pub sign: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// The run (its id, the beginning or end of it, or `last`), or the path of a log
    #[arg(default_value = "last")]
    pub run: String,
    /// The form
    #[arg(long, value_enum, default_value = "html")]
    pub form: Form,
    /// Where to write it; standard output if it is not given
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct UndoArgs {
    /// The run; everything if it is not given
    pub run: Option<String>,
    /// Also end what a living injector holds
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, clap::Args)]
pub struct HaltArgs {
    /// Only runs whose faults are on this service
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Allow runs again
    #[arg(long, conflicts_with = "list")]
    pub lift: bool,
    /// Say what is halted, and change nothing
    #[arg(long)]
    pub list: bool,
    /// Why, for the runs' logs
    #[arg(long, default_value = "")]
    pub why: String,
}

#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// The run: its id, the beginning or end of it, or `last`
    #[arg(default_value = "last")]
    pub run: String,
    /// Why, for the run's log
    #[arg(long, default_value = "")]
    pub why: String,
}

#[derive(Debug, clap::Args)]
pub struct ResidueArgs {
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
    /// Look only for what Toprope itself left
    #[arg(long)]
    pub own: bool,
    /// End with 1 where something is left that is not Toprope's, and with 3 where something could not be looked at
    #[arg(long, conflicts_with = "own")]
    pub strict: bool,
}

#[derive(Debug, clap::Args)]
pub struct InstallGuardArgs {
    /// Also install a unit of the launcher, which lets users inject what a policy allows; at first that is nothing
    #[arg(long)]
    pub launcher: bool,
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub print: bool,
}

#[derive(Debug, clap::Args)]
pub struct KindArgs {
    /// The kind to explain
    pub kind: Option<String>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Where to write the reports; a directory of the state if it is not given
    #[arg(long, value_name = "DIR")]
    pub reports: Option<PathBuf>,
    /// Run only the experiments whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// It runs in a network of its own already
    #[arg(long, hide = true)]
    pub inside: bool,
}

#[derive(Debug, clap::Args)]
pub struct SchemaArgs {
    /// The kind of manifest
    #[arg(default_value = "Experiment")]
    pub kind: String,
}

#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct ShopArgs {
    /// Passed on as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<std::ffi::OsString>,
}
