//! What every service counts, and its `/metrics`.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::Service;
use crate::serve::say;

/// The metrics format that `encode` writes: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answer {
    path: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Path {
    path: &'static str,
}

#[derive(Clone)]
struct Requests {
    service: Service,
    path: &'static str,
    total: Family<Answer, Counter>,
    seconds: Family<Path, Histogram>,
}

/// A router that counts and times what its routes answer, and tells of what they could not, by the route's pattern: a label per product or order would
/// grow without end.
pub(crate) struct CountedRoutes<S> {
    service: Service,
    router: Router<S>,
    total: Family<Answer, Counter>,
    seconds: Family<Path, Histogram>,
}

impl<S: Clone + Send + Sync + 'static> CountedRoutes<S> {
    /// Registers `shop_requests_total` and `shop_request_duration_seconds`, and serves all of `registry` at `/metrics`.
    pub(crate) fn new(service: Service, mut registry: Registry) -> Self {
        let total = Family::<Answer, Counter>::default();
        let seconds = Family::<Path, Histogram>::new_with_constructor(|| {
            Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
        });
        registry.register("shop_requests", "Requests answered, by route and status", total.clone());
        registry.register("shop_request_duration_seconds", "Time to answer a request, by route", seconds.clone());
        let registry = Arc::new(registry);
        let metrics = get(move || async move { exposition(&registry) });
        Self { service, router: Router::new().route("/metrics", metrics), total, seconds }
    }

    /// Adds a route.
    pub(crate) fn route(mut self, path: &'static str, handlers: MethodRouter<S>) -> Self {
        let requests =
            Requests { service: self.service, path, total: self.total.clone(), seconds: self.seconds.clone() };
        self.router = self.router.route(path, handlers.layer(from_fn_with_state(requests, count)));
        self
    }

    /// The finished router.
    pub(crate) fn with_state(self, state: S) -> Router {
        self.router.with_state(state)
    }
}

async fn count(State(requests): State<Requests>, request: Request, next: Next) -> Response {
    let (method, begun) = (request.method().clone(), Instant::now());
    let response = next.run(request).await;
    let (path, status, took) = (requests.path, response.status(), begun.elapsed());
    requests.seconds.get_or_create(&Path { path }).observe(took.as_secs_f64());
    requests.total.get_or_create(&Answer { path, status: status.as_u16() }).inc();
    if status.is_server_error() {
        say(requests.service, format_args!("{method} {path}: {status} after {} ms", took.as_millis()));
    }
    response
}

fn exposition(registry: &Registry) -> Response {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
