//! A whole shop: five child processes, started, kept and ended together.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::keeper::{Keeper, State};
use crate::{Addresses, Error, Service, ports};

/// How long a service may take until it is healthy. Far more than it needs: the machine may be busy building.
const HEALTHY_WITHIN: Duration = Duration::from_secs(20);

/// How long one question about its health may take.
const ASK_LIMIT: Duration = Duration::from_secs(1);

/// How much of a log an error quotes, in bytes.
const LAST_WORDS: usize = 1000;

/// Where the services write what they have to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Into `SERVICE.log` in the data directory.
    Logs,
    /// Where this process writes its errors.
    Inherit,
}

/// How to start a shop.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The executable that is each of the services, when it is called with `args_prefix` and then the service's name.
    pub exe: PathBuf,
    /// What stands before the service's name: `["shop"]` for `toprope`, nothing for `shop`.
    pub args_prefix: Vec<OsString>,
    /// The gateway's port; the others follow, as [`ports`] says.
    pub base_port: u16,
    /// Where the stores and logs are; made when it is missing.
    pub data_dir: PathBuf,
    /// The repaired shop.
    pub fixed: bool,
    /// Start a service again half a second after it ended, as an init system would.
    pub supervise: bool,
    /// Where the gateway finds a service when not at the service's own address: a proxy's listener in front of it.
    pub via: BTreeMap<Service, SocketAddr>,
    /// Where the services write.
    pub output: Output,
}

impl Launch {
    /// The shop as shipped, not supervised, writing logs, of an executable that takes the service's name first.
    pub fn new(exe: impl Into<PathBuf>, base_port: u16, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            exe: exe.into(),
            args_prefix: Vec::new(),
            base_port,
            data_dir: data_dir.into(),
            fixed: false,
            supervise: false,
            via: BTreeMap::new(),
            output: Output::Logs,
        }
    }
}

/// A running shop. Dropping it ends its processes, and returns when they have ended. When the process that holds it is
/// killed, the kernel kills them.
///
/// Its methods block; call them from a thread that may.
#[derive(Debug)]
pub struct Shop {
    addresses: Addresses,
    data_dir: PathBuf,
    output: Output,
    keeper: Keeper,
}

impl Shop {
    /// Starts the five processes and waits until each is healthy.
    ///
    /// # Errors
    ///
    /// When a process cannot be started, ends, or is not healthy within 20 seconds; those that were started are ended.
    pub fn start(launch: Launch) -> Result<Self, Error> {
        let addresses = ports(launch.base_port)?;
        fs::create_dir_all(&launch.data_dir)
            .map_err(|source| Error::DataDir { path: launch.data_dir.clone(), source })?;
        let (data_dir, output, supervise) = (launch.data_dir.clone(), launch.output, launch.supervise);
        let shop = Self { addresses, data_dir, output, keeper: Keeper::start(launch, addresses)? };
        let deadline = Instant::now() + HEALTHY_WITHIN;
        for service in Service::ALL {
            shop.wait_healthy(service, deadline)?;
        }
        // Only now: a service that ends while it starts is an error to tell, not one to repeat.
        shop.keeper.supervise(supervise);
        Ok(shop)
    }

    /// Where each service listens, itself and not a proxy in front of it.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// A URL of a service; `path` begins with `/` or is empty.
    pub fn url(&self, service: Service, path: &str) -> String {
        format!("http://{}{path}", self.addresses.of(service))
    }

    /// The process id of a service, unless it has ended.
    pub fn pid(&self, service: Service) -> Option<u32> {
        match self.keeper.state(service) {
            State::Running(pid) => Some(pid),
            State::Ended(_) => None,
        }
    }

    /// The process ids of the services that run.
    pub fn pids(&self) -> BTreeMap<Service, u32> {
        Service::ALL.into_iter().filter_map(|service| Some((service, self.pid(service)?))).collect()
    }

    /// Ends a service's process, if it runs, as a deploy would (SIGTERM, and SIGKILL when it does not heed it), starts
    /// it again and waits until it is healthy.
    ///
    /// # Errors
    ///
    /// As [`Shop::start`].
    pub fn restart(&self, service: Service) -> Result<(), Error> {
        self.keeper.restart(service)?;
        self.wait_healthy(service, Instant::now() + HEALTHY_WITHIN)
    }

    /// Where a service writes its log, with [`Output::Logs`].
    pub fn log(&self, service: Service) -> PathBuf {
        log_path(&self.data_dir, service)
    }

    fn wait_healthy(&self, service: Service, deadline: Instant) -> Result<(), Error> {
        let address = self.addresses.of(service);
        loop {
            match self.keeper.state(service) {
                State::Ended(status) if !self.keeper.is_supervised() => {
                    return Err(Error::Exited { service, status, log: self.last_words(service) });
                }
                // The pid tells our process from a stranger's at the same port.
                State::Running(pid) if health_pid(address) == Some(u64::from(pid)) => return Ok(()),
                State::Running(_) | State::Ended(_) => {}
            }
            if Instant::now() > deadline {
                let log = self.last_words(service);
                return Err(Error::Unhealthy { service, address, waited: HEALTHY_WITHIN, log });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn last_words(&self, service: Service) -> String {
        if self.output == Output::Inherit {
            return String::new();
        }
        let log = fs::read(self.log(service)).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LAST_WORDS)..]).trim().to_owned()
    }
}

pub(crate) fn log_path(data_dir: &Path, service: Service) -> PathBuf {
    data_dir.join(format!("{service}.log"))
}

/// The process id that a good health check at `address` tells. Anything else is not a healthy service.
fn health_pid(address: SocketAddr) -> Option<u64> {
    let mut stream = TcpStream::connect_timeout(&address, ASK_LIMIT).ok()?;
    stream.set_read_timeout(Some(ASK_LIMIT)).ok()?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    // A stranger might answer for ever.
    stream.take(64 * 1024).read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if !head.starts_with("HTTP/1.1 200") {
        return None;
    }
    serde_json::from_str::<Value>(body).ok()?["pid"].as_u64()
}
