//! What others say about alerts, in the forms in which they say it.

use std::collections::BTreeMap;
use std::fmt;

use reqwest::Url;
use serde_json::Value as Json;

use crate::probe::expect::text_of;

/// The alert that is watched.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// One alert as somebody spoke of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Notice {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) firing: bool,
}

/// Words for an alert that is over, or that was never there.
const OVER: [&str; 8] = ["resolved", "ok", "closed", "normal", "inactive", "recovered", "suppressed", "pending"];

impl Notice {
    /// Reads one alert: of Alertmanager's API or webhook, of Grafana's, or of another one's.
    pub(super) fn read(json: &Json) -> Option<Self> {
        let labels: BTreeMap<String, String> = match json.get("labels").and_then(Json::as_object) {
            Some(labels) => labels.iter().map(|(k, v)| (k.clone(), text_of(v))).collect(),
            None => BTreeMap::new(),
        };
        let text = |key: &str| json.get(key).and_then(Json::as_str);
        let named = ["alertname", "alert", "name", "title"].iter().find_map(|key| text(key));
        let name = labels.get("alertname").map(String::as_str).or(named)?.to_owned();
        // In Alertmanager's API the status is an object with a state.
        let status = text("status").or(json["status"]["state"].as_str()).or(text("state")).unwrap_or("firing");
        let firing = !OVER.contains(&status.to_lowercase().as_str());
        Some(Self { name, labels, firing })
    }

    /// Reads all alerts of a notification.
    pub(super) fn read_all(json: &Json) -> Vec<Self> {
        match (json, json.get("alerts")) {
            // Alertmanager's webhook, https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
            (_, Some(Json::Array(alerts))) => alerts.iter().filter_map(Self::read).collect(),
            (Json::Array(alerts), _) => alerts.iter().filter_map(Self::read).collect(),
            _ => Self::read(json).into_iter().collect(),
        }
    }
}

impl Wanted {
    /// Whether this is the alert, and it fires.
    pub(super) fn is(&self, notice: &Notice) -> bool {
        notice.firing && self.is_of(notice)
    }

    /// Whether this is the alert, in whatever state.
    pub(super) fn is_of(&self, notice: &Notice) -> bool {
        notice.name == self.name && self.labels.iter().all(|(k, v)| notice.labels.get(k) == Some(v))
    }

    /// The query of Alertmanager's API for this alert, as far as somebody is told of it.
    pub(super) fn query(&self, mut url: Url) -> Url {
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("active", "true").append_pair("silenced", "false").append_pair("inhibited", "false");
            let name = ("alertname", &self.name);
            for (label, value) in std::iter::once(name).chain(self.labels.iter().map(|(k, v)| (k.as_str(), v))) {
                let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n");
                query.append_pair("filter", &format!("{label}=\"{value}\""));
            }
        }
        url
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.labels.is_empty() {
            return Ok(());
        }
        let labels: Vec<String> = self.labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
        write!(f, "{{{}}}", labels.join(", "))
    }
}
