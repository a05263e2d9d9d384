//! The shop's command line, for a binary of its own (`shop up`) and for one that carries it (`toprope shop up`).

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::{DEFAULT_BASE_PORT, Error, Launch, Options, Output, Service, Shop, ports, run};

/// What the shop's command line can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run all five services until Ctrl-C
    Up(UpArgs),
    /// Run the gateway
    Gateway(GatewayArgs),
    /// Run the catalog
    Catalog(ServiceArgs),
    /// Run the cart
    Cart(ServiceArgs),
    /// Run payments
    Payments(ServiceArgs),
    /// Run the recommendations
    Recommendations(ServiceArgs),
}

/// How to run all five.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Run the repaired shop
    #[arg(long)]
    pub fixed: bool,
    /// The gateway's port; the other services take the four after it
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_BASE_PORT)]
    pub base_port: u16,
    /// Where the stores are kept
    #[arg(long, value_name = "DIR", default_value = "shop-data")]
    pub data: PathBuf,
    /// Start a service again, half a second after it ended
    #[arg(long)]
    pub supervise: bool,
}

/// How to run one service.
#[derive(Clone, Debug, Args)]
pub struct ServiceArgs {
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where the store is kept
    #[arg(long, value_name = "DIR", default_value = "shop-data")]
    pub data: PathBuf,
    /// Run the repaired service
    #[arg(long)]
    pub fixed: bool,
    /// End when this process ends, which must be the parent
    #[arg(long, value_name = "PID", hide = true)]
    pub parent: Option<u32>,
}

/// How to run the gateway.
#[derive(Clone, Debug, Args)]
pub struct GatewayArgs {
    /// What every service has.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Where the catalog is [default: the port after the gateway's]
    #[arg(long, value_name = "ADDRESS")]
    pub catalog: Option<SocketAddr>,
    /// Where the cart is [default: the second port after the gateway's]
    #[arg(long, value_name = "ADDRESS")]
    pub cart: Option<SocketAddr>,
    /// Where payments is [default: the third port after the gateway's]
    #[arg(long, value_name = "ADDRESS")]
    pub payments: Option<SocketAddr>,
    /// Where the recommendations are [default: the fourth port after the gateway's]
    #[arg(long, value_name = "ADDRESS")]
    pub recommendations: Option<SocketAddr>,
}

/// Does what the command says, on the calling thread, which must be the process' main thread: it is the one that gets
/// the service's name. `prefix` is what stands before the command on the command line of this executable (`["shop"]`
/// for `toprope shop up`), so that it can start itself.
///
/// # Errors
///
/// As [`run`] and [`Shop::start`].
pub fn execute(command: Command, prefix: &[&str]) -> Result<(), Error> {
    let (service, args) = match command {
        Command::Up(args) => return up(args, prefix),
        Command::Gateway(args) => return gateway(args),
        Command::Catalog(args) => (Service::Catalog, args),
        Command::Cart(args) => (Service::Cart, args),
        Command::Payments(args) => (Service::Payments, args),
        Command::Recommendations(args) => (Service::Recommendations, args),
    };
    // They call nobody; any addresses do.
    become_service(
        service,
        args.parent,
        Options { listen: args.listen, upstreams: ports(DEFAULT_BASE_PORT)?, data_dir: args.data, fixed: args.fixed },
    )
}

fn gateway(args: GatewayArgs) -> Result<(), Error> {
    let GatewayArgs { service: ServiceArgs { listen, data, fixed, parent }, catalog, cart, payments, recommendations } =
        args;
    let given = [
        (Service::Catalog, catalog),
        (Service::Cart, cart),
        (Service::Payments, payments),
        (Service::Recommendations, recommendations),
    ];
    let mut upstreams = ports(listen.port())?;
    for (service, address) in given {
        if let Some(address) = address {
            upstreams = upstreams.with(service, address);
        }
    }
    become_service(Service::Gateway, parent, Options { listen, upstreams, data_dir: data, fixed })
}

/// Serves in this process, under the service's name, and no longer than the parent lives.
fn become_service(service: Service, parent: Option<u32>, options: Options) -> Result<(), Error> {
    if let Some(parent) = parent {
        live_no_longer_than(parent, service)?;
    }
    let name = std::ffi::CString::new(service.process_name()).expect("a service's name has no NUL");
    rustix::thread::set_name(&name).map_err(|e| Error::Os { what: "name the process", source: e.into() })?;
    // One thread does for a small service, and starts fast; SQLite has one of its own.
    block_on(run(service, options))?
}

fn live_no_longer_than(parent: u32, service: Service) -> Result<(), Error> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    // SIGKILL, for it ends a process that an experiment has stopped, too.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Error::Os { what: "ask to end with the parent process", source: e.into() })?;
    // A parent that went before the line above sends no signal.
    match getppid() {
        Some(pid) if pid.as_raw_nonzero().get().cast_unsigned() == parent => Ok(()),
        _ => Err(Error::Orphaned { service, parent }),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Os { what: "start the asynchronous runtime", source })?;
    Ok(runtime.block_on(future))
}

fn up(args: UpArgs, prefix: &[&str]) -> Result<(), Error> {
    let exe = std::env::current_exe().map_err(|source| Error::Os { what: "find this executable", source })?;
    let shop = Shop::start(Launch {
        args_prefix: prefix.iter().map(OsString::from).collect(),
        fixed: args.fixed,
        supervise: args.supervise,
        output: Output::Inherit,
        ..Launch::new(exe, args.base_port, args.data)
    })?;
    block_on(async {
        // Whoever reads that the shop is open may end it at once.
        let end = asked_to_end()?;
        // The reader may have closed the pipe, which is no reason to end the shop.
        let _ = introduce(&shop, args.fixed);
        end.await;
        Ok::<(), Error>(())
    })??;
    drop(shop);
    Ok(())
}

/// Listens for the signals that end a program from now on, and resolves at the first.
fn asked_to_end() -> Result<impl Future<Output = ()>, Error> {
    let os = |source| Error::Os { what: "listen for signals", source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(os)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(os)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(os)?;
    Ok(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
    })
}

fn introduce(shop: &Shop, fixed: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let kind = if fixed { "repaired" } else { "as shipped, with its five weaknesses" };
    writeln!(out, "the shop is open ({kind})")?;
    for service in Service::ALL {
        let pid = shop.pid(service).map_or_else(|| "-".into(), |pid| pid.to_string());
        writeln!(out, "  {:<16} {:<28} pid {pid}", service.name(), shop.url(service, ""))?;
    }
    writeln!(out, "try")?;
    writeln!(out, "  curl {}", shop.url(Service::Gateway, "/product/1"))?;
    writeln!(out, "  curl -X POST {}", shop.url(Service::Gateway, "/checkout"))?;
    writeln!(out, "Ctrl-C closes it")
}
