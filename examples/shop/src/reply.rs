//! How services read bodies and tell failures.

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::Service;

/// A health check's good answer. It tells the process id, so that whoever started a process knows that it is this one
/// that answers, and not a stranger on the same port.
pub(crate) struct Healthy(pub(crate) Service);

impl IntoResponse for Healthy {
    fn into_response(self) -> Response {
        Json(json!({"service": self.0.name(), "status": "ok", "pid": std::process::id()})).into_response()
    }
}

/// A request that did not succeed: a status and a sentence, sent as `{"error": "..."}`.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    error: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    pub(crate) fn bad_request(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("the store failed: {error}"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.error}))).into_response()
    }
}

/// The JSON body, or the default when there is none. The content type does not matter: a probe that sends a body
/// without one means that body, and must not get the default unnoticed.
pub(crate) fn body_or_default<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, Failure> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("the body is not what is expected: {error}")))
}

/// Refuses an order id that could not stand in a URL's path as it is.
pub(crate) fn check_order_id(id: &str) -> Result<(), Failure> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if (1..=64).contains(&id.len()) && id.bytes().all(plain) && id.bytes().any(|c| c != b'.') {
        return Ok(());
    }
    Err(Failure::bad_request("an order id is 1 to 64 letters, digits, '-', '_' or '.', not dots alone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_body_is_the_default_and_a_wrong_one_is_refused() {
        assert_eq!(body_or_default::<Option<u8>>(&Bytes::new()).unwrap(), None);
        assert_eq!(body_or_default::<Option<u8>>(&Bytes::from_static(b"7")).unwrap(), Some(7));
        assert_eq!(body_or_default::<u8>(&Bytes::from_static(b"no")).unwrap_err().status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn order_ids_stand_in_a_path() {
        for good in ["1", "order-17", "a.b_c", &"x".repeat(64)] {
            assert!(check_order_id(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", "a b", "..", "é", &"x".repeat(65)] {
            assert!(check_order_id(bad).is_err(), "{bad}");
        }
    }
}
