//! Instruments: programs that are asked about the system and are not the system.
//!
//! What they say is evidence. That they say nothing is none: whoever cannot see has not seen that anything is wrong.

use std::time::Duration;

use reqwest::{Method, Url};
use serde_json::Value as Json;

use super::expect::shown;
use super::web::{MAX_BODY, Options, Web, WebUrl};
use super::{Answer, Context, ProbeError};

/// An HTTP API that answers in JSON.
#[derive(Debug)]
pub(super) struct Instrument {
    name: &'static str,
    web: Web,
    patience: Duration,
}

impl Instrument {
    /// An instrument that is known to users by this name. Connects to nothing yet.
    ///
    /// # Errors
    /// As [`Web::new`].
    pub(super) fn new(
        name: &'static str,
        url: &WebUrl,
        options: &Options<'_>,
        context: &Context,
    ) -> Result<Self, ProbeError> {
        let web = Web::new(url, options, context)?;
        // A little less than the sample may take: beyond that, the caller takes the silence for the system's.
        let patience = context.timeout.mul_f64(0.9);
        Ok(Self { name, web, patience })
    }

    /// Asks a question.
    ///
    /// # Errors
    /// The sample's answer if there is none: no evidence.
    pub(super) async fn ask(&self, url: Url) -> Result<Json, Answer> {
        let none = |why: String| Answer::broken(format!("{} cannot be asked: {why}", self.name));
        let reply = match tokio::time::timeout(self.patience, self.web.send(Method::GET, url, None)).await {
            Ok(reply) => reply.map_err(|answer| none(answer.bad.unwrap_or_default()))?,
            Err(_) => return Err(none(format!("no answer within {:?}", self.patience))),
        };
        if reply.cut {
            return Err(none(format!("its answer is longer than {MAX_BODY} bytes")));
        }
        let json: Result<Json, _> = serde_json::from_str(&reply.body);
        match json {
            Ok(json) if reply.status.is_success() => Ok(json),
            // Prometheus says what is wrong with a query.
            Ok(json) if json["error"].is_string() => Err(none(shown(json["error"].as_str().unwrap_or_default()))),
            Err(e) if reply.status.is_success() => Err(none(format!("its answer is not JSON: {e}"))),
            _ => Err(none(format!("status {}", reply.status.as_u16()))),
        }
    }
}
