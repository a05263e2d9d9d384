//! One call to one of the services behind the gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use reqwest::{Client, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::load::{InFlight, Load, Summary};
use crate::reply::Failure;
use crate::{Error, Service};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Label {
    upstream: &'static str,
}

/// The counters of all upstreams.
#[derive(Clone, Default)]
pub(super) struct Counters {
    requests: Family<Label, Counter>,
    failures: Family<Label, Counter>,
}

impl Counters {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("shop_upstream_requests", "Calls made to a service, retries included", self.requests.clone());
        registry.register("shop_upstream_failures", "Calls to a service that failed", self.failures.clone());
    }
}

/// A client for plain HTTP.
///
/// It is given a TLS configuration that trusts nobody: reqwest builds one in any case, and its own would need the
/// machine's CA bundle, which a small image has not. It keeps no connections: each call is a new one, so that a fault
/// which reaches new connections only is felt by the very next call.
pub(super) fn client() -> Result<Client, Error> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(Client::builder().tls_backend_preconfigured(tls).no_proxy().pool_max_idle_per_host(0).build()?)
}

/// A service behind the gateway.
pub(super) struct Upstream {
    service: Service,
    base: String,
    client: Client,
    load: Load,
    requests: Counter,
    failures: Counter,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("{service} did not answer within {limit:?}")]
    TimedOut { service: Service, limit: Duration },
    #[error("{service} cannot be reached: {source}")]
    Unreachable { service: Service, source: reqwest::Error },
    #[error("{service} answered {status}: {error}")]
    Refused { service: Service, status: StatusCode, error: String },
}

impl CallError {
    /// Whether the same call may succeed when it is made again.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
        }
    }
}

/// What the client did wrong is told to the client; what the shop's services did is "unavailable".
impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused { status, error, .. } if status.is_client_error() => Failure::new(status, error),
            other => Failure::new(StatusCode::SERVICE_UNAVAILABLE, other.to_string()),
        }
    }
}

impl Upstream {
    pub(super) fn new(service: Service, address: SocketAddr, client: &Client, counters: &Counters) -> Self {
        let label = Label { upstream: service.name() };
        Self {
            service,
            base: format!("http://{address}"),
            client: client.clone(),
            load: Load::default(),
            requests: counters.requests.get_or_create(&label).clone(),
            failures: counters.failures.get_or_create(&label).clone(),
        }
    }

    pub(super) fn service(&self) -> Service {
        self.service
    }

    /// A request of the gateway's that needs this service begins; it ends when the returned value is dropped.
    pub(super) fn request(&self) -> InFlight<'_> {
        self.load.request()
    }

    pub(super) fn summary(&self) -> Summary {
        self.load.summary()
    }

    /// `GET path`, once.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, limit: Option<Duration>) -> Result<T, CallError> {
        self.counted(self.within(limit, self.send(Method::GET, path, None))).await
    }

    /// `POST path`, or `PUT path`, with `body` as JSON, once.
    pub(super) async fn send_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        limit: Option<Duration>,
    ) -> Result<T, CallError> {
        let body = serde_json::to_value(body).expect("the shop's messages have string keys only");
        self.counted(self.within(limit, self.send(method, path, Some(body)))).await
    }

    /// Whether the service's health check answers well. Not counted: it is no customer's call.
    pub(super) async fn is_healthy(&self, limit: Duration) -> bool {
        self.within::<Value>(Some(limit), self.send(Method::GET, "/health", None)).await.is_ok()
    }

    async fn counted<T>(&self, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        self.load.called();
        self.requests.inc();
        let result = call.await;
        if result.as_ref().is_err_and(CallError::is_transient) {
            self.load.failed();
            self.failures.inc();
        }
        result
    }

    /// The limit holds for all of a call: name, connection, request, answer and the answer's body.
    async fn within<T>(
        &self,
        limit: Option<Duration>,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        match limit {
            None => call.await,
            Some(limit) => tokio::time::timeout(limit, call)
                .await
                .unwrap_or(Err(CallError::TimedOut { service: self.service, limit })),
        }
    }

    async fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Value>) -> Result<T, CallError> {
        let service = self.service;
        let unreachable = |source| CallError::Unreachable { service, source };
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return response.json().await.map_err(unreachable);
        }
        let text = response.text().await.unwrap_or_default();
        let told = serde_json::from_str::<Value>(&text).ok().and_then(|body| Some(body["error"].as_str()?.to_owned()));
        Err(CallError::Refused { service, status, error: told.unwrap_or(text) })
    }
}
