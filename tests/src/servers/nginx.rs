//! An nginx, alone or before an upstream.

use std::ffi::OsStr;

use tempfile::TempDir;
use toprope_os::process::{ProcessInfo, Signal};

use super::{Server, client, directory, free_port};

/// An nginx with a master and one worker.
#[derive(Debug)]
pub struct Nginx {
    /// Its master process.
    pub server: Server,
    /// Its port on 127.0.0.1.
    pub port: u16,
    directory: TempDir,
}

impl Nginx {
    /// The programs that it takes.
    pub const NEEDS: &[&str] = &["nginx", "curl"];

    /// Starts one that answers by itself: `hello` at `/`, and a file at `/large` of so many bytes.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn serving(large: usize) -> Self {
        let nginx = Self::prepare();
        std::fs::write(nginx.0.path().join("large"), vec![b'x'; large]).expect("the directory can be written");
        Self::start(nginx, |root| format!("root {root}; location = / {{ return 200 'hello'; }}"))
    }

    /// Starts one that passes everything on to an upstream, to which it waits so many seconds.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn before(upstream: u16, timeout: u32) -> Self {
        Self::start(Self::prepare(), |_| {
            format!(
                "location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_connect_timeout {timeout}s; \
                 proxy_read_timeout {timeout}s; }}"
            )
        })
    }

    fn prepare() -> (TempDir, u16) {
        (directory("toprope-nginx-"), free_port())
    }

    fn start((directory, port): (TempDir, u16), locations: impl Fn(&str) -> String) -> Self {
        let root = directory.path().to_str().expect("temporary directories have plain names").to_owned();
        // Every path that nginx would take below /var is named, because that one is the machine's own server's.
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {root}/{what};"))
            .concat();
        let config = format!(
            "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; {temporary}\n\
             server {{ listen 127.0.0.1:{port}; {} }} }}\n",
            locations(&root)
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, config).expect("the directory can be written");
        let error_log = directory.path().join("error.log");
        let args: Vec<&OsStr> = vec![
            "-e".as_ref(),
            error_log.as_os_str(),
            "-p".as_ref(),
            directory.path().as_os_str(),
            "-c".as_ref(),
            file.as_os_str(),
        ];
        let mut server = Server::start("nginx", &args, None, Signal::TERM, &directory.path().join("output"));
        server.until_listening(port);
        Self { server, port, directory }
    }

    /// Its URL, with a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The worker that serves.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn worker(&self) -> ProcessInfo {
        let worker = || self.server.workers().into_iter().find(|w| w.cmdline.join(" ").contains("worker process"));
        // The master listens before it starts one.
        crate::eventually("nginx has a worker", || worker().is_some());
        worker().expect("it was just there")
    }

    /// What curl sees: the status (0 for no answer) and the seconds that it took, at most so many.
    ///
    /// # Panics
    /// curl prints something else.
    #[track_caller]
    pub fn curl(&self, path: &str, seconds: &str) -> (u16, f64) {
        curl(&self.url(path), seconds)
    }

    /// What nginx wrote to its error log.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
    }
}

/// What curl sees of a URL: the status (0 for no answer) and the seconds that it took, at most so many.
fn curl(url: &str, seconds: &str) -> (u16, f64) {
    let format = "%{http_code} %{time_total}";
    let (text, _) = client("curl", &["--silent", "--output", "/dev/null", "--max-time", seconds, "-w", format, url]);
    let fields =
        text.trim().split_once(' ').and_then(|(status, time)| Some((status.parse().ok()?, time.parse().ok()?)));
    fields.unwrap_or_else(|| panic!("curl printed {text:?}"))
}
