//! The gateway's health check: weakness 5, one that lies, and its repair.

use std::time::{Duration, Instant};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::Mutex;

use super::upstream::Upstream;
use crate::Service;
use crate::reply::Healthy;

/// How long a dependency's health check may take.
const LIMIT: Duration = Duration::from_millis(300);

/// How long an answer is good for: however often a load balancer asks, the dependencies are asked twice a second.
const GOOD_FOR: Duration = Duration::from_millis(500);

/// What the health check knows.
pub(super) enum Health {
    /// Weakness 5: the process runs, so it says that all is well.
    Constant,
    /// Repaired: it asks what the gateway cannot do without.
    Asked(Mutex<Option<(Instant, Answer)>>),
}

/// What the dependencies said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    /// Without these the gateway cannot do its work.
    down: Vec<&'static str>,
    /// Without these it does its work, less well.
    degraded: Vec<&'static str>,
}

impl Health {
    pub(super) fn new(fixed: bool) -> Self {
        if fixed { Self::Asked(Mutex::new(None)) } else { Self::Constant }
    }

    /// The answer to `GET /health`.
    pub(super) async fn check(&self, hard: [&Upstream; 2], soft: [&Upstream; 2]) -> Response {
        let Self::Asked(last) = self else {
            return Healthy(Service::Gateway).into_response();
        };
        // Held while asking: who comes meanwhile waits for that answer and does not ask again.
        let mut last = last.lock().await;
        let answer = match &*last {
            Some((at, answer)) if at.elapsed() < GOOD_FOR => answer.clone(),
            _ => {
                let (down, degraded) = tokio::join!(silent(hard), silent(soft));
                let answer = Answer { down, degraded };
                *last = Some((Instant::now(), answer.clone()));
                answer
            }
        };
        answer.into_response()
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let (status, word) = match (self.down.is_empty(), self.degraded.is_empty()) {
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "down"),
            (true, false) => (StatusCode::OK, "degraded"),
            (true, true) => (StatusCode::OK, "ok"),
        };
        let body = json!({
            "service": Service::Gateway.name(), "status": word, "pid": std::process::id(),
            "down": self.down, "degraded": self.degraded,
        });
        (status, Json(body)).into_response()
    }
}

/// The names of those that do not answer well, both asked at the same time.
async fn silent([a, b]: [&Upstream; 2]) -> Vec<&'static str> {
    let (a_healthy, b_healthy) = tokio::join!(a.is_healthy(LIMIT), b.is_healthy(LIMIT));
    [(a, a_healthy), (b, b_healthy)]
        .into_iter()
        .filter(|(_, healthy)| !healthy)
        .map(|(upstream, _)| upstream.service().name())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hard_dependency_makes_the_gateway_unhealthy() {
        let status = |down: &[&'static str], degraded: &[&'static str]| {
            Answer { down: down.into(), degraded: degraded.into() }.into_response().status()
        };
        assert_eq!(status(&[], &[]), StatusCode::OK);
        assert_eq!(status(&[], &["payments"]), StatusCode::OK);
        assert_eq!(status(&["cart"], &["payments"]), StatusCode::SERVICE_UNAVAILABLE);
    }
}
