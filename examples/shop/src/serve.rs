//! Serving one service until it is asked to end.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cart::{self, Book};
use crate::gateway::Gateway;
use crate::{Addresses, Error, Service, catalog, payments, recommendations};

/// How long requests may go on after the service was asked to end. A checkout that waits for ever must not hold it.
const DRAIN: Duration = Duration::from_millis(500);

/// What a service needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the gateway finds the others; they themselves need nobody.
    pub upstreams: Addresses,
    /// Where its store is; made when it is missing.
    pub data_dir: PathBuf,
    /// The repaired shop.
    pub fixed: bool,
}

/// Serves `service` until SIGTERM or SIGINT; then ends what it is at, writes what is unwritten, and returns.
///
/// # Errors
///
/// When the address is taken, or the store cannot be opened or, at the end, written.
pub async fn run(service: Service, options: Options) -> Result<(), Error> {
    let Options { listen, upstreams, data_dir, fixed } = options;
    let os = |what| move |source| Error::Os { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(os("listen for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(os("listen for SIGINT"))?;
    // Before the store is touched: whoever has the port may have the store too.
    let listener = TcpListener::bind(listen).await.map_err(|source| Error::Bind { service, listen, source })?;
    std::fs::create_dir_all(&data_dir).map_err(|source| Error::DataDir { path: data_dir.clone(), source })?;

    let asked_to_end = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    let kind = if fixed { "repaired" } else { "as shipped" };
    say(service, format_args!("{kind}, listening on http://{listen}"));
    match service {
        Service::Gateway => {
            let gateway = Arc::new(Gateway::new(&upstreams, fixed)?);
            serve(listener, gateway.clone().router(), gateway.keep(), asked_to_end).await?;
        }
        Service::Catalog => serve(listener, catalog::router(&data_dir).await?, nothing_else(), asked_to_end).await?,
        Service::Cart => {
            let book = Arc::new(Book::open(&data_dir, fixed).await?);
            serve(listener, cart::router(book.clone()), book.keep(), asked_to_end).await?;
            let path = data_dir.join("cart.db");
            book.close().await.map_err(|source| Error::Store { path, source })?;
        }
        Service::Payments => serve(listener, payments::router(&data_dir).await?, nothing_else(), asked_to_end).await?,
        Service::Recommendations => serve(listener, recommendations::router(), nothing_else(), asked_to_end).await?,
    }
    say(service, format_args!("ended"));
    Ok(())
}

/// What most services do beside serving.
async fn nothing_else() {
    std::future::pending().await
}

/// Serves until `asked_to_end`, then drains for [`DRAIN`] at most; `beside` goes on for as long.
async fn serve(
    listener: TcpListener,
    router: Router,
    beside: impl Future<Output = ()>,
    asked_to_end: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let (ending, mut ended) = watch::channel(false);
    let served = axum::serve(listener, router).with_graceful_shutdown(async move {
        asked_to_end.await;
        // It fails when nobody listens any more, and then nobody needs to know.
        let _ = ending.send(true);
    });
    let drained = async {
        // An error means that the sender was dropped, so serving has ended.
        let _ = ended.wait_for(|&ending| ending).await;
        tokio::time::sleep(DRAIN).await;
    };
    let beside = pin!(beside);
    tokio::select! {
        result = served.into_future() => result.map_err(|source| Error::Os { what: "serve HTTP", source }),
        () = drained => Ok(()),
        () = beside => Ok(()),
    }
}

/// Writes a line for the person who watches. Nobody may be watching any more, and that is no reason to end.
pub(crate) fn say(service: Service, what: fmt::Arguments<'_>) {
    // One write: five processes share the terminal.
    let _ = io::stderr().write_all(format!("[{service}] {what}\n").as_bytes());
}
