//! A fault in a pass-through, as its injector holds it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::UnixStream;
use toprope_model::step::{Effect, Step};

use super::message::{Answer, Request, Wanted};
use crate::fault::{Draining, FaultError, Injection, Params};
use crate::line::{self, Incoming};

/// How long the pass-through may take to change its rules.
const LIMIT: Duration = Duration::from_secs(5);

/// An injector's socket to a pass-through. What was asked for over it ends with it.
#[derive(Debug)]
pub(crate) struct Lent {
    stream: UnixStream,
    incoming: Incoming,
    next: u64,
}

impl Lent {
    /// Puts a step in force in the pass-through.
    pub(crate) async fn apply(
        socket: OwnedFd,
        fault: &str,
        step: &Step,
        params: &Params,
    ) -> Result<Box<dyn Injection>, FaultError> {
        let stream = StdStream::from(socket);
        let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
        let stream = stream.map_err(|e| FaultError::because("the socket to the pass-through cannot be used", e))?;
        let mut lent = Self { stream, incoming: Incoming::default(), next: 0 };
        lent.ask(Wanted::Apply {
            fault: fault.to_owned(),
            step: Box::new(step.clone()),
            params: params.node.to_json(),
            seed: params.seed,
            for_ms: u64::try_from(params.duration.as_millis()).unwrap_or(u64::MAX),
        })
        .await?;
        Ok(Box::new(lent))
    }

    async fn ask(&mut self, wanted: Wanted) -> Result<Option<Effect>, FaultError> {
        self.next += 1;
        let number = self.next;
        let asked = async {
            line::send(&self.stream, &Request { number, wanted }, &[]).await?;
            loop {
                let Some((line, _)) = self.incoming.next(&self.stream).await? else {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
                };
                let answer: Answer = serde_json::from_slice(&line)?;
                // One that came too late is not the one that is waited for.
                if answer.number == number {
                    return Ok(answer.result);
                }
            }
        };
        match tokio::time::timeout(LIMIT, asked).await {
            Ok(Ok(result)) => result.map_err(Into::into),
            Ok(Err(error)) => Err(FaultError::because("the pass-through is gone", error)),
            Err(_) => Err(FaultError::new(format!("the pass-through has not answered within {LIMIT:?}"))),
        }
    }
}

impl Injection for Lent {
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>> {
        async { Ok(self.ask(Wanted::Observe).await?.unwrap_or_default()) }.boxed()
    }

    fn adjust<'a>(&'a mut self, params: &'a Params) -> BoxFuture<'a, Result<(), FaultError>> {
        async { self.ask(Wanted::Adjust { params: params.node.to_json() }).await.map(drop) }.boxed()
    }

    fn ended(&mut self) -> BoxFuture<'_, String> {
        async {
            // Between questions nothing is said: whatever comes is late, and the end is the end.
            while let Ok(Some(_)) = self.incoming.next(&self.stream).await {}
            "the pass-through was killed, and its connections are cut".to_owned()
        }
        .boxed()
    }

    fn release(mut self: Box<Self>, _: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>> {
        // Connections in flight go on in the pass-through.
        async move { self.ask(Wanted::Release).await.map(|_| None) }.boxed()
    }
}
