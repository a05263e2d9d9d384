//! A PostgreSQL.

use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use toprope_os::process::Signal;

use super::{Server, client, directory, free_port};
use crate::client::Client;
use crate::programs::program;

/// The user that PostgreSQL runs as where the test is root, which it refuses to be.
const USER: &str = "nobody";

/// A PostgreSQL with pgbench's tables, that writes to disk when it likes.
#[derive(Debug)]
pub struct Postgres {
    /// Its postmaster.
    pub server: Server,
    /// Its port on 127.0.0.1.
    pub port: u16,
    directory: TempDir,
}

impl Default for Postgres {
    fn default() -> Self {
        Self::start()
    }
}

impl Postgres {
    /// The programs that it takes.
    pub const NEEDS: &[&str] = &["initdb", "postgres", "psql", "pgbench"];

    /// Makes a cluster, starts it and waits until it answers.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn start() -> Self {
        let (directory, port) = (directory("toprope-postgres-"), free_port());
        let data = directory.path().join("data");
        initdb(data.as_os_str());
        let number = port.to_string();
        let mut args: Vec<&OsStr> = vec!["-D".as_ref(), data.as_os_str()];
        args.extend(["-k".as_ref(), directory.path().as_os_str(), "-p".as_ref(), number.as_ref()]);
        for setting in ["fsync=off", "listen_addresses=127.0.0.1", "max_connections=40", "autovacuum=off"] {
            args.extend(["-c".as_ref(), OsStr::new(setting)]);
        }
        let output = directory.path().join("output");
        let mut server = Server::start("postgres", &args, Some(USER), Signal::QUIT, &output);
        server.until_listening(port);
        let postgres = Self { server, port, directory };
        crate::eventually("PostgreSQL answers", || postgres.answers());
        let (text, made) = postgres.client("30", "pgbench", &["--initialize", "--quiet"]);
        assert!(made, "{text}");
        postgres
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The words by which its clients find it, over TCP.
    pub fn connection(&self) -> [String; 4] {
        ["-h", "127.0.0.1", "-p", &self.port.to_string()].map(str::to_owned)
    }

    fn client(&self, seconds: &str, name: &str, words: &[&str]) -> (String, bool) {
        let connection = self.connection();
        let mut args: Vec<&str> = connection.iter().map(String::as_str).collect();
        args.extend(["-U", "postgres"]);
        args.extend(words);
        args.push("postgres");
        let path = program(name).display().to_string();
        client("timeout", &[&[seconds, path.as_str()], args.as_slice()].concat())
    }

    /// What psql says to a statement, and whether it succeeded.
    pub fn psql(&self, statement: &str) -> (String, bool) {
        self.psql_within("10", statement)
    }

    /// The same, within so many seconds.
    pub fn psql_within(&self, seconds: &str, statement: &str) -> (String, bool) {
        self.client(seconds, "psql", &["-X", "-A", "-t", "-c", statement])
    }

    /// Whether a new client gets an answer.
    pub fn answers(&self) -> bool {
        self.psql("select 1") == ("1\n".to_owned(), true)
    }

    /// Starts a psql that keeps one connection and asks 20 times a second.
    ///
    /// # Panics
    /// It gets no answer.
    #[track_caller]
    pub fn session(&self) -> Client {
        let mut command = Command::new(program("psql"));
        let script = self.directory.path().join("watch.sql");
        std::fs::write(&script, "select 'answer ' || 6 * 7 \\watch 0.05\n").expect("the directory can be written");
        command.args(self.connection()).args(["-U", "postgres", "-X", "-A", "-t", "-f"]).arg(script).arg("postgres");
        Client::start(command, "answer 42")
    }

    /// Starts pgbench: so many clients that each keep one connection, for so many seconds at most; together they ask
    /// 20 times a second, and only read.
    ///
    /// # Panics
    /// It is not installed.
    pub fn pgbench(&self, clients: u32, seconds: u32) -> Pgbench {
        let (clients, seconds) = (clients.to_string(), seconds.to_string());
        self.start_pgbench(&["-c", &clients, "-T", &seconds, "--rate", "20"])
    }

    /// Runs so many transactions of pgbench on one connection; returns their mean latency in milliseconds.
    ///
    /// # Panics
    /// It printed none.
    #[track_caller]
    pub fn latency(&self, transactions: u32) -> f64 {
        let text = self.start_pgbench(&["-c", "1", "-t", &transactions.to_string()]).output();
        let line = text.lines().find_map(|line| line.strip_prefix("latency average = "));
        let number = line.and_then(|line| line.trim_end_matches(" ms").parse().ok());
        number.unwrap_or_else(|| panic!("no latency in {text}"))
    }

    fn start_pgbench(&self, args: &[&str]) -> Pgbench {
        let mut command = Command::new(program("pgbench"));
        command.args(self.connection()).args(["-U", "postgres", "--select-only", "--no-vacuum"]);
        command.args(args).arg("postgres").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Pgbench(command.spawn().expect("pgbench can be started"))
    }
}

/// Makes a cluster, as the user that PostgreSQL will run as.
fn initdb(data: &OsStr) {
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new(program("setpriv"));
        command.args(["--reuid", USER, "--regid", "nogroup", "--clear-groups", "--"]).arg(program("initdb"));
        command
    } else {
        Command::new(program("initdb"))
    };
    command.args(["--no-sync", "--auth", "trust", "--username", "postgres", "--no-locale", "--encoding", "UTF8"]);
    let output = command.arg("-D").arg(data).current_dir("/").output().expect("initdb can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A pgbench that runs.
#[derive(Debug)]
pub struct Pgbench(Child);

impl Pgbench {
    /// Waits for its end; returns all that it printed.
    ///
    /// # Panics
    /// It cannot be waited for.
    pub fn output(self) -> String {
        let output = self.0.wait_with_output().expect("our own child");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}
